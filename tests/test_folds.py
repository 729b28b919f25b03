"""People are dealt into folds: nobody on two sides, everybody tested once, whatever a recording is called."""

import collections
import json

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold
from small_data import NAMES, config

from neurolm_jax import evaluate as command
from neurolm_jax.data.folds import of_people, people_of, split_people
from neurolm_jax.data.shards import open_shards, write
from neurolm_jax.errors import UserError
from neurolm_jax.inference.cross_validation import fold_config, summarise
from neurolm_jax.inference.measures import measure_units
from neurolm_jax.stages import corpora

SPLITS = ("train", "validation", "test")
FOLDS = 5


def part(path, people, split, labels=("a", "b"), each=2, hashes=None):
    """A folder with ``each`` recordings of each person, three windows in each."""
    recordings, records = [], []
    for person in people:
        for take in range(each):
            number = len(recordings)
            digest = (hashes or {}).get((person, take), f"{person}-{take}")
            recordings.append({"name": f"{person}R{take}", "subject": person, "outcome": "used", "hash": digest})
            label = labels[int(person[1:]) % len(labels)]
            records += [(f"{person} {take} {i}".encode(), {"recording": number, "label": label}) for i in range(3)]
    write(path, iter(records), {"split": split, "recordings": recordings})
    return open_shards(path)


@pytest.fixture
def parts(tmp_path):
    names = [f"p{number}" for number in range(23)]
    cut = {"train": names[:13], "validation": names[13:17], "test": names[17:]}
    return [part(tmp_path / split, people, split) for split, people in cut.items()]


def people(shards):
    """Who the records themselves say they are of."""
    return {shards.source[i].decode().split()[0] for i in range(len(shards.source))}


def test_everybody_is_tested_once_and_nobody_is_on_two_sides(parts):
    dealt, tested = split_people(parts, FOLDS), collections.Counter()
    for fold in range(FOLDS):
        found = {split: of_people(parts, split, people_of(split, dealt, fold)) for split in SPLITS}
        sides = {split: set().union(*map(people, shards)) for split, shards in found.items()}
        tested.update(sides["test"])
        assert sides["validation"] == people_of("test", dealt, (fold + 1) % FOLDS)
        assert not any(sides[one] & sides[other] for one in SPLITS for other in SPLITS if one != other)
        assert len(set().union(*sides.values())) == 23
        for split, shards in found.items():
            for one in shards:
                used = {r["subject"] for r in one.manifest["recordings"] if r["outcome"] == "used"}
                assert used == people(one) and one.manifest["split"] == split
                names = [one.manifest["recordings"][n]["subject"] for n in one.manifest["index"]["recording"]]
                assert names == [one.source[i].decode().split()[0] for i in range(len(one.source))]
    assert set(tested.values()) == {1} and len(tested) == 23


def test_folds_are_as_even_as_those_of_scikit_learn(parts):
    names = [f"p{number}" for number in range(23)]
    labels = np.array([int(name[1:]) % 2 for name in names])
    for fold, dealt in enumerate(split_people(parts, FOLDS)):
        assert len(dealt) in (4, 5), fold
        assert {int(name[1:]) % 2 for name in dealt} == {0, 1}
    theirs = [len(test) for _, test in StratifiedGroupKFold(FOLDS).split(labels, labels, names)]
    assert sorted(map(len, split_people(parts, FOLDS))) == sorted(theirs)


def test_folds_do_not_depend_on_the_published_parts_nor_on_order(parts):
    assert split_people(parts, FOLDS) == split_people(parts[::-1], FOLDS)


def test_people_who_share_a_recording_stay_together(tmp_path):
    """p3 and p8 have a recording in common, p8 and p11 another."""
    hashes = {("p8", 0): "p3-1", ("p11", 0): "p8-1"}
    one = part(tmp_path / "all", [f"p{number}" for number in range(12)], "train", hashes=hashes)
    for folds in (3, 4, 10):
        together = [dealt & {"p3", "p8", "p11"} for dealt in split_people([one], folds)]
        assert sorted(map(len, together))[-2:] == [0, 3]
    with pytest.raises(UserError, match="config.data.folds: 11 folds of 10 people; choose fewer"):
        split_people([one], 11)


def test_parts_of_a_config_are_its_folds(small_data, runs):
    """Of real sets; other splits share no recording, and the parts as published are left where no folds are wanted."""
    c = config("instruct", small_data, runs)
    published = {name: open_shards(small_data / name / "windows" / "test").content for name in NAMES}
    assert {task.name: part.content for task, part in corpora.tasks(c, "test")} == published
    c.data.folds = 3
    held = {}
    for fold in range(3):
        c.data.fold = fold
        for split in SPLITS:
            for task, shards in corpora.tasks(c, split):
                held.setdefault((fold, split, task.name), []).extend(
                    r["hash"] for r in shards.manifest["recordings"] if r["outcome"] == "used"
                )
    for name in NAMES:
        for fold in range(3):
            sides = [set(held[fold, split, name]) for split in SPLITS]
            assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    for folds, fold in ((1, 0), (2, 0), (3, 3)):
        c.data.folds, c.data.fold = folds, fold
        with pytest.raises(UserError, match="config.data.folds: want 0, or 3 or more, and config.data.fold below it"):
            corpora.tasks(c, "train")


def test_an_encoder_that_knows_the_people_is_refused(runs):
    with pytest.raises(UserError, match="--folds: .*pretrain has learnt from blink, eyes, scp1, so its people"):
        fold_config(runs / "instruct", 3, 0, 0)
    with pytest.raises(UserError, match="--folds trains instruct runs anew; .* is of stage tokenizer"):
        fold_config(runs / "tokenizer", 3, 0, 0)


def test_whole_units_are_answered_by_their_windows_mean():
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.6, 0.4], [0.1, 0.9], [0.7, 0.3], [0.7, 0.3]])
    units = np.array(["a", "a", "a", "b", "b", "c", "c"], object)
    assert measure_units(labels, probabilities, units) == {"balanced_accuracy": 0.75, "count": 3}
    assert measure_units(labels, probabilities, np.array(list("aaaabbb"), object)) is None


def test_means_and_deviations_are_those_of_all_runs():
    runs = [
        {
            "tasks": {
                "x": {
                    "balanced_accuracy": value,
                    "units": {"people": {"balanced_accuracy": value / 2}},
                    "baselines": {"band power": {"balanced_accuracy": 0.5}},
                }
            }
        }
        for value in (0.5, 0.7, 0.9)
    ]
    found = summarise(runs)["x"]
    assert found["answers"]["windows"]["mean"] == pytest.approx(0.7)
    assert found["answers"]["windows"]["deviation"] == pytest.approx(np.std([0.5, 0.7, 0.9], ddof=1))
    assert found["answers"]["people"]["each"] == [0.25, 0.35, 0.45]
    assert found["band power"] == {"windows": {"mean": 0.5, "deviation": 0.0, "each": [0.5] * 3}}


@pytest.mark.slow
def test_the_command_trains_and_evaluates_each_fold_and_goes_on(small_data, runs, tmp_path, monkeypatch, capsys):
    """An encoder of two of the three sets, asked about the third."""
    from neurolm_jax import train

    others = tuple(f"{name}/recordings/train" for name in NAMES[:2])
    for stage in ("tokenizer", "pretrain", "instruct"):
        c = config(stage, small_data, runs, steps=2)
        if "train" in c.data:
            c.data.train = others
        for earlier in ("tokenizer", "pretrain"):
            if earlier in c.initial:
                c.initial[earlier] = str(tmp_path / earlier)
        train.train(c, tmp_path / stage)
    line = ["evaluate", "--checkpoint", str(tmp_path / "instruct"), "--folds", "3", "--tasks", NAMES[2], "--quick"]
    monkeypatch.setattr("sys.argv", line)
    command.main()
    told = capsys.readouterr().out
    assert "3 of 3 runs" in told and NAMES[2] in told and all(len(row) <= 80 for row in told.splitlines() if "±" in row)
    found = json.loads((tmp_path / "instruct" / "folds.json").read_text())
    each = found["tasks"][NAMES[2]]["answers"]["windows"]["each"]
    files = sorted((tmp_path / "instruct" / "folds").glob("*/evaluation.json"))
    assert [json.loads(f.read_text())["tasks"][NAMES[2]]["balanced_accuracy"] for f in files] == each
    tested = [json.loads(f.read_text())["tasks"][NAMES[2]]["n_test"] for f in files]
    published = [open_shards(small_data / NAMES[2] / "windows" / split).manifest["records"] for split in SPLITS]
    assert sum(tested) == sum(published)
    before = {f: f.stat().st_mtime_ns for f in files}
    command.main()  # finished folds are left as they are
    assert {f: f.stat().st_mtime_ns for f in files} == before
    for bad in (["--folds", "2"], ["--folds", "3", "--seeds", "0,x"], ["--folds", "3", "--split", "validation"]):
        monkeypatch.setattr("sys.argv", [*line[:3], *bad])
        with pytest.raises(UserError, match="--folds: want 3 or more|--seeds: want different whole numbers"):
            command.main()
