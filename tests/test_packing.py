import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurolm_jax.data.packing import RowPlan

sizes = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=60)


@settings(deadline=None, max_examples=80)
@given(sizes, st.integers(0, 5))
def test_each_sample_once_an_epoch_and_no_row_too_full(sizes, seed):
    plan = RowPlan(np.array(sizes), (10, 6), seed)
    for epoch in range(3):
        rows = [plan.row(epoch * len(plan) + i) for i in range(len(plan))]
        assert {e for e, _ in rows} == {epoch}
        assert collections.Counter(s for _, row in rows for s in row) == collections.Counter(range(len(sizes)))
        for _, row in rows:
            assert (np.array([sizes[s] for s in row]).sum(0) <= (10, 6)).all()


def test_epochs_differ_and_are_a_function_of_the_seed():
    sizes = np.ones((50, 1), int)
    plan = RowPlan(sizes, (5,), seed=3)
    first = [plan.row(i)[1] for i in range(len(plan))]
    second = [plan.row(len(plan) + i)[1] for i in range(len(plan))]
    assert first != second
    again = RowPlan(sizes, (5,), seed=3)
    assert [again.row(len(plan) + i)[1] for i in reversed(range(len(plan)))] == second[::-1]


def test_equal_samples_fill_rows_wholly():
    assert len(RowPlan(np.full((100, 1), 2), (10,), None)) == 20


def test_a_sample_larger_than_a_row_is_refused():
    with pytest.raises(ValueError, match="sample 1 of size"):
        RowPlan(np.array([[3], [11]]), (10,), None)


def test_plans_keep_their_epochs_apart(monkeypatch):
    """Many plans are read in turn: each deals an epoch once."""
    dealt = []
    deal = RowPlan._deal
    monkeypatch.setattr(RowPlan, "_deal", lambda plan, epoch: dealt.append((id(plan), epoch)) or deal(plan, epoch))
    plans = [RowPlan(np.ones((20, 1), int), (5,), seed) for seed in (0, 1, 2, None)]
    for index in (0, 1, 2, 3, 4, 3, 5, 2):  # into the second epoch and back
        for plan in plans:
            plan.row(index)
    assert len(dealt) == len(set(dealt)) == 2 * 3 + 1
