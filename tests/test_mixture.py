import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm_jax.data.mixture import PERIOD, Mixture, apportion


class Counting:
    """Rows that are their own index."""

    content = "numbers"

    def __init__(self, name, length):
        self._name, self._length = name, length

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        return self._name, index


@given(st.lists(st.floats(0, 100), min_size=1, max_size=5).filter(lambda w: sum(w) > 0.1))
def test_shares_are_as_near_to_the_weights_as_can_be(weights):
    parts = apportion(np.array(weights), 1000)
    assert parts.sum() == 1000
    assert (np.abs(parts - 1000 * np.array(weights) / sum(weights)) < 1).all()


def test_every_period_has_the_shares_and_every_source_goes_on_in_order():
    rows = Mixture([Counting("a", 10), Counting("b", 700)], [3, 1], seed=1)
    found = [rows[i] for i in range(3 * PERIOD)]
    for period in range(3):
        names = collections.Counter(name for name, _ in found[period * PERIOD : (period + 1) * PERIOD])
        assert names == {"a": 768, "b": 256}
    for name, count in (("a", 3 * 768), ("b", 3 * 256)):
        assert [index for n, index in found if n == name] == list(range(count))
    assert len(rows) == 710
    again = Mixture([Counting("a", 10), Counting("b", 700)], [3, 1], seed=1)
    assert [again[i] for i in (2500, 3, 1024)] == [found[i] for i in (2500, 3, 1024)]
    assert [n for n, _ in found[:PERIOD]] != [n for n, _ in found[PERIOD : 2 * PERIOD]]


@pytest.mark.parametrize("weights", [[0, 1], [1, 0]])
def test_a_weight_of_zero_leaves_a_source_out(weights):
    rows = Mixture([Counting("a", 5), Counting("b", 5)], weights, seed=0)
    assert {rows[i][0] for i in range(100)} == {"ab"[weights.index(1)]}
