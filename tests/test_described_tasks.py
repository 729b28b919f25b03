"""Tasks that a YAML file describes: labels in annotations, tables, folders' names; no code."""

import json
import pathlib
import shutil
import subprocess
import sys

import mne
import pytest
from small_corpora import NAMES, noise, write_edf

from neurolm_jax import prepare
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.records import decode
from neurolm_jax.eeg.tasks import load_task
from neurolm_jax.errors import UserError

TEXT = """
question: Is the memory load of this EEG segment high?
answers: {easy: No, hard: Yes}
positive: hard
seconds: 4
"""


def described(folder, *lines, name="nback.yaml", text=TEXT):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n".join(lines) + "\n")
    return load_task(str(file))


def windows_of(task, path):
    """(recording, onset, label) of all windows, and the subject of each recording."""
    recordings = list(task.recordings(path))
    found = [(r.name, round(w.onset, 3), w.label) for r in recordings for w in r.open().windows if not r.left_out]
    return found, {r.name: r.subject for r in recordings}


def annotated(path, events, seconds=20, seed=0):
    raw = mne.io.RawArray(1e-6 * noise(seed, seconds), mne.create_info(list(NAMES), 250.0, "eeg", verbose="error"))
    raw.set_annotations(mne.Annotations(*zip(*events)))
    path.parent.mkdir(parents=True, exist_ok=True)
    raw.save(path, verbose="error")


def test_words_stay_words(tmp_path):
    """YAML's own No and Yes are truth values, 1e3 and 007 are not what they seem."""
    task = described(
        tmp_path, "labels: annotations", "subject: '(S[0-9]+)'", "mains: 60", "high: none", "wordings: ['Really?']"
    )
    assert task.answers == {"easy": "No", "hard": "Yes"} and task.labels == ["easy", "hard"]
    assert (task.name, task.seconds, task.positive, task.wordings) == ("nback", 4, "hard", ("Really?",))
    assert (task.preprocessing.mains, task.preprocessing.low, task.preprocessing.high) == (60.0, 0.1, None)
    plain = described(tmp_path, "labels: folder", "channels: Fp1 Cz", name="b.yml", text=TEXT.replace("hard", "007"))
    assert plain.labels == ["easy", "007"] and plain.channels == ("Fp1", "Cz") and plain.name == "b"


def test_annotations(tmp_path):
    """A long one is tiled, a short one has a window from its onset, one that does not fit has none.
    Onsets count from the first sample that is there."""
    events = [(0.5, 9.0, "easy"), (11.0, 0.2, "hard"), (13.0, 2.0, "rest"), (17.5, 0.1, "hard")]
    annotated(tmp_path / "in" / "S01_a_raw.fif", events)
    task = described(tmp_path, "labels: annotations", "subject: '(S[0-9]+)_'")
    found, subjects = windows_of(task, tmp_path / "in")
    assert found == [("S01_a_raw", 0.5, "easy"), ("S01_a_raw", 4.5, "easy"), ("S01_a_raw", 11.0, "hard")]
    assert subjects == {"S01_a_raw": "S01"}
    raw = mne.io.read_raw(tmp_path / "in" / "S01_a_raw.fif", preload=True, verbose="error").crop(10)
    shutil.rmtree(tmp_path / "in")
    (tmp_path / "in").mkdir()
    raw.save(tmp_path / "in" / "S01_a_raw.fif", verbose="error")
    assert windows_of(task, tmp_path / "in")[0] == [("S01_a_raw", 1.0, "hard")]
    moved = described(tmp_path, "labels: annotations", "subject: S..", "offset: 0.5", "every: 2", name="m.yaml")
    annotated(tmp_path / "other" / "S02_raw.fif", events)
    onsets = [onset for _, onset, _ in windows_of(moved, tmp_path / "other")[0]]
    assert onsets == [1.0, 3.0, 5.0, 11.5]


def bids(root, subject, seed, rows=None, group="patient"):
    place = root / f"sub-{subject}" / "eeg"
    write_edf(place / f"sub-{subject}_task-rest_eeg.edf", noise(seed))
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.8.0"}))
    table = root / "participants.tsv"
    head = "" if table.exists() else "participant_id\tgroup\tpart\n"
    with table.open("a") as opened:
        opened.write(f"{head}sub-{subject}\t{group}\t{('train', 'validation', 'test')[seed % 3]}\n")
    if rows:
        (place / f"sub-{subject}_task-rest_events.tsv").write_text("\n".join("\t".join(row) for row in rows) + "\n")


def test_a_column_of_events(tmp_path):
    rows = [("onset", "duration", "trial_type", "load"), ("1.0", "n/a", "x", "easy"), ("6", "8.0", "x", "hard")]
    rows += [("15", "1", "x", "n/a"), ("n/a", "1", "x", "easy")]
    bids(tmp_path / "in", "01", 1, rows)
    task = described(tmp_path, "labels: events.load")
    found, subjects = windows_of(task, tmp_path / "in")
    name = "sub-01_eeg_sub-01_task-rest_eeg"
    assert found == [(name, 1.0, "easy"), (name, 6.0, "hard"), (name, 10.0, "hard")] and subjects == {name: "01"}
    with pytest.raises(UserError, match="events.tsv has no column level; there are onset, duration, trial_type, load"):
        windows_of(described(tmp_path, "labels: events.level", name="l.yaml"), tmp_path / "in")
    words = described(tmp_path, "labels: events.trial_type", name="w.yaml")
    with pytest.raises(UserError, match="no window of easy or hard; the labels of its events are: x"):
        windows_of(words, tmp_path / "in")


def test_the_example_of_the_page(tmp_path):
    """docs/tasks.md, from its lines to shards."""
    page = (pathlib.Path(__file__).parents[1] / "docs" / "tasks.md").read_text()
    example = page.split('```yaml title="load.yaml"\n')[1].split("```")[0]
    assert example.count("\n") <= 10
    (tmp_path / "load.yaml").write_text(example)
    rows = [("onset", "duration", "load"), ("1.0", "4.0", "easy"), ("6", "8.0", "hard")]
    for i in range(5):
        bids(tmp_path / "in", f"{i:02d}", i, rows)
    line = [sys.executable, "-m", "neurolm_jax.prepare", "task", tmp_path / "load.yaml", tmp_path / "in"]
    done = subprocess.run([*map(str, line), "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manifests = {part: open_shards(tmp_path / "out" / "windows" / part).manifest for part in ("train", "test")}
    assert [manifests[part]["records"] for part in ("train", "test")] == [9, 3]  # 3 windows a person, 3 / 1 / 1 people
    source = open_shards(tmp_path / "out" / "windows" / "test").source
    assert sorted(decode(source[i]).label for i in range(3)) == ["easy", "hard", "hard"]


def test_a_column_of_participants_and_a_published_split(tmp_path):
    groups = ("patient", "control", "excluded", "patient", "control", "patient")
    for i, group in enumerate(groups):
        bids(tmp_path / "in", f"{i:02d}", i, group=group)
    text = TEXT.replace("easy", "control").replace("hard", "patient")
    lines = "labels: participants.group", "split: participants.part"
    task = described(tmp_path, *lines, name="g.yaml", text=text)
    recordings = list(task.recordings(tmp_path / "in"))
    assert [r.split for r in recordings] == ["train", "validation", "test"] * 2
    assert [r.left_out for r in recordings if r.left_out] == ["its label is 'excluded', none of control, patient"]
    assert [w.onset for w in recordings[0].open().windows] == [0, 4, 8, 12, 16]
    prepare.prepare_task(task, tmp_path / "in", tmp_path / "out")
    test = open_shards(tmp_path / "out" / "windows" / "test").manifest
    assert [r["subject"] for r in test["recordings"] if r.get("outcome", "used") == "used"][-1:] == ["05"]
    train = open_shards(tmp_path / "out" / "windows" / "train").manifest
    assert train["records"] == 10 and train["split_by"]
    with pytest.raises(UserError, match="tells no stage of sub-00; its row has participant_id, group, part"):
        windows_of(described(tmp_path, "labels: participants.stage", name="s.yaml"), tmp_path / "in")


def test_folders_and_a_table(tmp_path):
    for i, label in enumerate(("easy", "hard", "easy")):
        write_edf(tmp_path / "in" / label / f"P{i}" / "a.edf", noise(i))
    folders = described(tmp_path, "labels: folder", "subject: P.", "every: 8")
    found, subjects = windows_of(folders, tmp_path / "in")
    assert found[:3] == [("easy_P0_a", 0.0, "easy"), ("easy_P0_a", 8.0, "easy"), ("easy_P0_a", 16.0, "easy")]
    assert subjects == {"easy_P0_a": "P0", "easy_P2_a": "P2", "hard_P1_a": "P1"}
    table = tmp_path / "table.csv"
    table.write_text("recording,onset,label\neasy/P0/a.edf,2.5,hard\neasy/P2/a,1,easy\nhard/P1/a.edf,3,hard\n")
    task = described(tmp_path, "labels: table.csv", "subject: P.", name="t.yaml")
    assert windows_of(task, tmp_path / "in")[0] == [
        ("easy_P0_a", 2.5, "hard"),
        ("easy_P2_a", 1.0, "easy"),
        ("hard_P1_a", 3.0, "hard"),
    ]
    good = table.read_text()
    for row, fault in {
        "gone.edf,1,easy": "table.csv: names gone.edf, which is not below",
        "easy/P0/a.edf,soon,easy": "table.csv:5: want a recording, an onset in seconds and a label",
    }.items():
        table.write_text(f"{good}{row}\n")
        with pytest.raises(UserError, match=fault):
            windows_of(task, tmp_path / "in")
    table.write_text("file,onset\n")
    with pytest.raises(UserError, match="its first line lacks label, recording"):
        windows_of(task, tmp_path / "in")
    with pytest.raises(UserError, match="lies in no folder called low or hard"):
        wrong = described(tmp_path, "labels: folder", "subject: P.", name="w.yaml", text=TEXT.replace("easy", "low"))
        windows_of(wrong, tmp_path / "in")


@pytest.mark.parametrize(
    "change, fault",
    [
        (("seconds: 4", "seconds: four"), "seconds: want whole seconds, not 'four'"),
        (("seconds: 4", "second: 4"), "second: no such field; there are question, answers"),
        (("positive: hard\n", ""), None),
        (("positive: hard", "positive: tough"), "task x: positive: want one of"),
        (("question: Is", "questions: Is"), "questions: no such field"),
        (("answers: {easy: No, hard: Yes}", "answers: [No, Yes]"), "answers: want lines of 'label: answer'"),
        (("answers: {easy: No, hard: Yes}", "answers: {easy: No, hard: [Yes]}"), "answers: want lines"),
        (("answers: {easy: No, hard: Yes}", "answers: !!python/object/apply:os.system [exit]"), "answers: want lines"),
        (("answers: {easy: No, hard: Yes}", "answers: {easy: No, hard: no}"), "answers: want two labels or more"),
        (("labels: annotations", "labels: events"), "labels: want annotations, events.COLUMN"),
        (("labels: annotations", ""), "labels is missing"),
        (("labels: annotations", "labels: annotations\nsubject: '('"), "subject: want a regular expression"),
        (("labels: annotations", "labels: annotations\nlettered: perhaps"), "lettered: want true or false"),
        (("labels: annotations", "labels: annotations\nevery: 0"), "every: want a number"),
        (("labels: annotations", "labels: annotations\nmains: 50 Hz"), "mains: want a number"),
        (("labels: annotations", "labels: annotations\nsplit: part"), "split: want participants.COLUMN"),
        (("labels: annotations", "labels: annotations\nchannels: [Cz, Xy]"), "channels: want electrodes"),
        (("labels: annotations", "labels: [annotations"), "is no YAML"),
        (("question:", "- question:"), "is no YAML"),
    ],
)
def test_faults_are_named(tmp_path, change, fault):
    text = f"{TEXT}labels: annotations\n"
    assert change[0] in text
    (tmp_path / "x.yaml").write_text(text.replace(*change))
    if fault is None:
        assert load_task(str(tmp_path / "x.yaml")).positive is None
        return
    with pytest.raises(UserError) as error:
        load_task(str(tmp_path / "x.yaml"))
    assert str(error.value).startswith(f"{tmp_path}/x.yaml: ") and fault in str(error.value)
    assert "\n" not in str(error.value)


def test_who_it_is_must_be_known(tmp_path):
    write_edf(tmp_path / "in" / "easy" / "a.edf", noise(0))
    with pytest.raises(UserError, match="whose it is is not known; give the task a pattern"):
        windows_of(described(tmp_path, "labels: folder"), tmp_path / "in")
    with pytest.raises(UserError, match="does not match easy/a.edf"):
        windows_of(described(tmp_path, "labels: folder", "subject: P[0-9]", name="p.yaml"), tmp_path / "in")
    with pytest.raises(UserError, match="no such file"):
        load_task(str(tmp_path / "none.yaml"))


def test_a_checkpoint_needs_no_trust_for_it(tmp_path):
    from ml_collections import ConfigDict

    from neurolm_jax.inference.model import trusted_tasks

    config = ConfigDict({"data": {"tasks": ("nback.yaml", "tuab")}})
    assert trusted_tasks(tmp_path, config, False) == ("nback.yaml", "tuab")
