"""No subject on two sides; and what the released code does instead."""

import collections
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurolm_jax.eeg.tasks import NAMES, Recording, load_task
from neurolm_jax.eeg.tasks.splits import assign
from neurolm_jax.errors import UserError


def made(*rows):
    """Recordings of rows (name, subject, split)."""
    return [Recording(name, subject, split, None) for name, subject, split in rows]


def sides(recordings, found):
    seen = collections.defaultdict(set)
    for recording in recordings:
        seen[recording.subject].add(found[recording.name])
    return seen


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=15, max_size=60), st.integers(0, 5))
def test_subjects_are_whole(subjects, seed):
    recordings = made(*((f"r{i}", f"s{k}", None) for i, k in enumerate(subjects)))
    for way in ("published", "subject"):
        found = assign(load_task("hmc"), recordings, way, seed)
        assert all(len(side) == 1 for side in sides(recordings, found).values())
        assert found == assign(load_task("hmc"), recordings[::-1], way, seed)  # whatever the order of files
        if len(set(subjects)) >= 3:
            assert set(found.values()) == {"train", "validation", "test"}


def test_shares_are_of_subjects():
    recordings = made(*((f"r{i}", f"s{i}", None) for i in range(151)))
    found = collections.Counter(assign(load_task("hmc"), recordings).values())
    assert found == {"train": 91, "validation": 30, "test": 30}
    one, other = (assign(load_task("hmc"), recordings, seed=seed) for seed in (0, 1))
    assert one != other


def test_a_published_test_part_stays_and_validation_comes_from_training_subjects():
    rows = [(f"{s}-{i}", f"s{s}", "train") for s in range(20) for i in range(2)]
    rows += [(f"t{i}", f"t{i}", "test") for i in range(7)]
    recordings = made(*rows)
    found = assign(load_task("tuab"), recordings)
    assert collections.Counter(found.values()) == {"train": 32, "validation": 8, "test": 7}
    assert all(len(side) == 1 for side in sides(recordings, found).values())
    assert all(found[name] == "test" for name, _, split in rows if split == "test")


def test_a_subject_on_two_sides_is_named():
    recordings = made(("a", "s1", "train"), ("b", "s2", "train"), ("c", "s1", "test"))
    with pytest.raises(UserError, match="tuab: subject s1 is on two sides: a in (train|validation), c in test"):
        assign(load_task("tuab"), recordings)
    found = assign(load_task("tuab"), recordings, "subject")
    assert found["a"] == found["c"]
    # The trials of a session of SEED are parted on purpose.
    trials = made(("1", "s", "train"), ("2", "s", "validation"), ("3", "s", "test"))
    assert assign(load_task("seed"), trials) == {"1": "train", "2": "validation", "3": "test"}


def test_other_faults_are_named():
    with pytest.raises(UserError, match="two recordings are called a"):
        assign(load_task("hmc"), made(("a", "s", None), ("a", "s", None)))
    with pytest.raises(UserError, match="the released code has no split of seed_iv"):
        assign(load_task("seed_iv"), made(("a", "s", "train")), "official")
    with pytest.raises(UserError, match="subjects of blink are not known"):
        assign(load_task("blink"), made(("a", None, "train")), "subject")
    with pytest.raises(UserError, match="hmc: a has split 'eval'; known are train, validation, test"):
        assign(load_task("hmc"), made(("a", "s", "eval")))
    with pytest.raises(UserError, match="hmc: b has no split, others have one"):
        assign(load_task("hmc"), made(("a", "s", "test"), ("b", "t", None)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "../x"}, "name: want a word"),
        ({"answers": {"a": "Yes"}}, "answers: want two labels or more"),
        ({"answers": {"a": "Yes", "b": "yes"}, "positive": None}, "answers: want two labels or more"),
        ({"positive": "seizure"}, "positive: want one of"),
        ({"seconds": 2.5}, "seconds: want whole seconds"),
        ({"seconds": 0}, "seconds: want whole seconds"),
        ({"baseline": 9.0}, "baseline: want seconds from 0 to 2"),
        ({"figures": ("accuracy",)}, "figures: want some of balanced_accuracy"),
        ({"name": 5}, "name: want a text"),
        ({"seconds": "2"}, "seconds: want whole seconds"),
        ({"seconds": True}, "seconds: want whole seconds"),
        ({"answers": ("Yes", "No")}, "answers: want label -> answer"),
        ({"answers": {"a": "Yes", "b": 2}}, "answers: want a text for each label"),
        ({"channels": ("Cz", "FzZ")}, "channels: want electrodes of the vocabulary"),
        ({"rates": (float("nan"),)}, "rates: want numbers in Hz"),
        ({"answers": {"a": "Yes", "b": " "}, "positive": None}, "answers: want two labels or more"),
        ({"answers": {"a": "Yes", "b": "yes "}, "positive": None}, "answers: want two labels or more"),
        ({"published": {"NeuroLM-B": 3}}, "published: want model -> measure -> number"),
        ({"channels": "Cz"}, "channels: want a tuple of electrodes' names"),
        ({"rates": ("250",)}, "rates: want a tuple of numbers"),
        ({"rates": 250.0}, "rates: want a tuple of numbers"),
        ({"recordings": "folder"}, "recordings: want a function of a path"),
        ({"official": "yes"}, "official: want a function of recordings, or None"),
        ({"baseline": None}, "baseline: want seconds"),
        ({"question": None}, "question: want a text"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(UserError, match=f"task .*: {message}.*, not "):
        dataclasses.replace(load_task("blink"), **fields)


@pytest.mark.parametrize("fields", [{"low": 80.0, "high": 1.0}, {"low": "x"}, {"high": -1.0}, {"mains": float("nan")}])
def test_preprocessing_that_makes_no_sense_is_refused(fields):
    with pytest.raises(UserError, match="preprocessing: (low|high|mains): want .*, not "):
        dataclasses.replace(load_task("blink").preprocessing, **fields)


def test_official_splits():
    hmc = made(*((f"SN{i:03d}", f"SN{i:03d}", None) for i in range(1, 155)))
    found = assign(load_task("hmc"), hmc, "official")
    assert [found[f"SN{i:03d}"] for i in (1, 100, 101, 125, 126, 154)] == ["train"] * 2 + ["validation"] * 2 + [
        "test"
    ] * 2
    workload = made(*((f"Subject{s:02d}_{k}", f"Subject{s:02d}", None) for s in range(36) for k in (1, 2)))
    found = assign(load_task("workload"), workload, "official")
    assert collections.Counter(found.values()) == {"train": 52, "validation": 10, "test": 10}
    assert all(len(side) == 1 for side in sides(workload, found).values())
    tusl = made(*((f"s{s}/{k}", f"s{s}", None) for s in range(20) for k in range(5)))
    found = assign(load_task("tusl"), tusl, "official")
    assert collections.Counter(found.values()) == {"train": 60, "test": 20, "validation": 20}
    uneven = made(*((f"s{s:02d}/{k}", f"s{s:02d}", None) for s in range(7) for k in range(3)))
    assert max(map(len, sides(uneven, assign(load_task("tusl"), uneven, "official")).values())) > 1  # a quirk
    rows = [(f"train/{label}/{s}", f"s{s}", "train") for label in ("normal", "abnormal") for s in range(30)]
    tuab = made(*rows, ("eval/normal/x", "x", "test"))
    found = assign(load_task("tuab"), tuab, "official")
    assert collections.Counter(found.values()) == {"train": 48, "validation": 12, "test": 1}
    assert max(map(len, sides(tuab, found).values())) == 2  # the other quirk
    tuev = made(*((f"s{s}", f"s{s:03d}", "train") for s in range(290)), ("e", "e", "test"))
    found = assign(load_task("tuev"), tuev, "official")
    assert collections.Counter(found.values()) == {"train": 232, "validation": 58, "test": 1}
    assert found == assign(load_task("tuev"), tuev[::-1], "official")


@pytest.mark.parametrize("name", NAMES)
def test_every_task_is_complete(name):
    task = load_task(name)
    assert task.name == name and len(task.answers) >= 2 and task.seconds >= 1
    assert (task.positive in task.answers) == (len(task.answers) == 2)
    assert all(0 < figure["balanced_accuracy"] < 1 for figure in task.published.values())
