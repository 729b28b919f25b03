"""A checkpoint tells what every stage learnt from, and ``evaluate`` which test recordings are among it."""

import json
import shutil
import sys

import pytest
from small_data import NAMES, config
from test_evaluation import copy_of

from neurolm_jax import evaluate as command
from neurolm_jax.data import shards
from neurolm_jax.data.trained_on import NOTHING, contamination, describe, line
from neurolm_jax.errors import UserError
from neurolm_jax.inference import findings
from neurolm_jax.stages import build, corpora, inheritance
from neurolm_jax.training import checkpoint


def used(folder):
    return {r["hash"] for r in shards.read_manifest(folder)["recordings"] if r["outcome"] == "used"}


def test_each_stage_hands_on_what_it_learnt_from(runs, small_data):
    found = checkpoint.read_trained_on(runs / "instruct")
    stages = [one["stage"] for one in found["stages"]]
    assert sorted(stages[:2]) == ["language", "tokenizer"] and stages[2:] == ["pretrain", "instruct"]
    sets = {one["stage"]: one["sets"] for one in found["stages"]}
    assert sets["language"] == [] and sets["tokenizer"] == sets["pretrain"] and len(sets["instruct"]) == 3
    for stage, kind in (("tokenizer", "recordings"), ("instruct", "windows")):
        told = {r["hash"] for content in sets[stage] for r in found["sets"][content]["recordings"]}
        assert told == set.union(*(used(small_data / name / kind / "train") for name in NAMES))
    assert found["unknown"] == [] and set(found["sets"]) == {*sets["tokenizer"], *sets["instruct"]}


def test_a_run_that_goes_on_keeps_what_its_checkpoint_tells(runs, small_data, tmp_path):
    """The earlier stages' workdirs may be gone by then."""
    stage = build(config("instruct", small_data, tmp_path / "gone"))
    step = checkpoint.newest_step(runs / "instruct")
    assert inheritance.trained_on(stage, runs / "instruct", step) == checkpoint.read_trained_on(runs / "instruct")


def with_leak(small_data, folder):
    """The data, where the test part of blink is its training part under other names."""
    shutil.copytree(small_data, folder)
    part = folder / "blink" / "windows" / "test"
    shutil.rmtree(part)
    shutil.copytree(folder / "blink" / "windows" / "train", part)
    manifest = shards.read_manifest(part)
    for number, recording in enumerate(manifest["recordings"]):
        recording["name"] = f"renamed {number}"
    (part / "manifest.json").write_text(json.dumps(manifest | {"split": "test"}))
    return folder


def test_evaluate_tells_which_recordings_were_learnt_from(runs, small_data, tmp_path, monkeypatch, capsys):
    workdir = copy_of(runs, tmp_path / "w")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["evaluate", "--checkpoint", str(workdir), "--quick", *arguments])
        command.main()
        return capsys.readouterr().out

    tested = len(used(small_data / "blink/windows/test"))
    said = run("--tasks", "blink")
    assert f"\ncontaminated: 0 of {tested} test recordings\n" in said and "validation recordings\n" in said
    leaked = with_leak(small_data, tmp_path / "data")
    count = len(used(leaked / "blink/windows/test"))
    assert count == 2
    assert "contaminated: 2 of 2 test recordings (2 trained on; renamed 0, renamed 1)\n" in run(
        "--tasks", "blink", "--data", str(leaked)
    )
    kept = findings.read(workdir / "evaluation.json")["tasks"]["blink"]["contamination"]
    assert kept["test"]["contaminated"] == kept["test"]["same"] == 2 and kept["validation"]["contaminated"] == 0


def test_a_checkpoint_of_an_earlier_version_or_damaged(runs, tmp_path):
    shutil.copytree(runs / "pretrain", tmp_path / "w")
    [file] = (tmp_path / "w" / "checkpoints").glob(f"{checkpoint.newest_step(runs / 'pretrain')}/trained_on.json")
    whole = file.read_text()
    file.write_text(whole.replace("hash", "hush"))
    with pytest.raises(UserError, match="trained_on.json is not what was written; remove trained_on.json from it"):
        checkpoint.read_trained_on(tmp_path / "w")
    file.unlink()
    assert checkpoint.read_trained_on(tmp_path / "w") is None
    assert describe("instruct", [], {"pretrain": None})["unknown"] == ["pretrain"]
    found = contamination(None, [manifest("s", recording("a"))])
    assert line([found], "test").startswith("contaminated: unknown of 1 test recordings (the checkpoint does not tell")


def recording(name, **fields):
    return {"name": name, "outcome": "used", "hash": name, "subject": None} | fields


def manifest(source, *recordings, **fields):
    return {"source": source, "cohort": "c", "recordings": list(recordings)} | fields


def trained_on(*manifests, **fields):
    sets = {str(i): {"source": m["source"], "recordings": corpora_of(m)} for i, m in enumerate(manifests)}
    return NOTHING | {"sets": sets} | fields


def corpora_of(one):
    from neurolm_jax.data.trained_on import recordings_of

    return recordings_of(one)


def test_every_way_of_having_seen_a_recording():
    learnt = [
        manifest("own", recording("a", subject="1"), recording("left", outcome="skipped"), recording("f")),
        manifest(
            "other", recording("b", subject="2", fingerprint="0f" * 30 + "1234"), recording("x", file_hashes=["y"])
        ),
    ]
    tested = manifest(
        "own",
        recording("a"),  # the same
        recording("new", subject="1"),  # of a person in this set's own training part
        recording("more", subject="2"),  # of a person in another set
        recording("copy", fingerprint="0f" * 30 + "1233"),
        recording("y"),  # the file that a stretch was taken from
        recording("left"),
        recording("free", subject="3"),
    )
    found = contamination(trained_on(*learnt), [tested])
    assert found == {
        "recordings": 7,
        "contaminated": 4,
        "same": 2,
        "exported": 1,
        "people": 1,
        "own_people": 1,
        "possible": 0,
        "names": ["a", "more", "copy", "y"],
        "unknown": [],
        "notes": [],
    }
    assert line([found, found], "test") == (
        "contaminated: 8 of 14 test recordings (4 trained on; 2 trained on as another export; 2 of people trained on in"
        " other sets; 2 not counted: of people in the set's own training part; a, more, copy ...)"
    )
    # A number tells nobody of another cohort.
    assert contamination(trained_on(*learnt), [manifest("z", recording("new", subject="2"), cohort="d")])["people"] == 0


def test_a_part_of_the_data_is_told_as_that(small_data):
    """Of a share of the recordings, the others were not learnt from."""
    c = config("tokenizer", small_data, small_data)
    c.data.share = 0.3
    parts = corpora.training(c)
    found = describe("tokenizer", parts, {})
    for part in parts:
        names = [r["name"] for r in found["sets"][part.content]["recordings"]]
        assert len(names) == len(set(part.manifest["index"]["recording"])) < 12


def test_tests_beside_the_data_are_guarded_too(small_data, tmp_path):
    """As the pages lay it out: corpus/ and tasks/ side by side."""
    shutil.copytree(small_data / "blink" / "windows" / "test", tmp_path / "corpus" / "eeg")
    file = tmp_path / "corpus" / "eeg" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"split": "train", "source": "eeg"}))
    c = config("tokenizer", tmp_path / "corpus", tmp_path)
    c.data.train = ("eeg",)
    assert len(corpora.training(c)) == 1
    shutil.copytree(small_data / "blink", tmp_path / "tasks" / "blink")
    with pytest.raises(UserError, match="tasks/blink/windows/test; remove that folder, and prepare it again"):
        corpora.training(c)
    # Of a set that the root has itself, another split beside it is none of this run.
    shutil.copytree(small_data / "blink" / "windows" / "train", tmp_path / "corpus" / "blink" / "windows" / "test")
    file = tmp_path / "corpus" / "blink" / "windows" / "test" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"split": "test"}))
    assert len(corpora.training(c)) == 1


def test_a_manifest_beside_the_data_that_tells_less_is_no_obstacle(small_data, tmp_path):
    """One with a test recording's hash, but nothing of what became of it, counts as one that is tested on."""
    (tmp_path / "data").symlink_to(small_data)
    [shared, *_] = used(small_data / "blink" / "recordings" / "train")
    other = tmp_path / "sets" / "elsewhere" / "windows" / "test"
    other.mkdir(parents=True)
    c = config("tokenizer", tmp_path / "data", tmp_path)
    for digest, refused in (("0" * 64, False), (shared, True)):
        told = {"format": 1, "split": "test", "source": "elsewhere", "recordings": [{"hash": digest}]}
        (other / "manifest.json").write_text(json.dumps(told))
        if refused:
            with pytest.raises(UserError, match="of the test part .*elsewhere/windows/test"):
                corpora.training(c)
        else:
            corpora.training(c)
