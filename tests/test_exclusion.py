"""Recordings and subjects that one set is tested on are left out of others."""

import dataclasses
import functools

import edfio
import mne
import numpy as np
import pytest
from edited_sets import edf

from neurolm_jax import prepare
from neurolm_jax.corpus import build
from neurolm_jax.corpus.excluded import Excluded, excluded
from neurolm_jax.data import guard, shards
from neurolm_jax.eeg.identity import recording_hash
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks import Opened, Recording, Window, load_task
from neurolm_jax.eeg.tasks.base import SPLITS
from neurolm_jax.eeg.tasks.readers import read_raw
from neurolm_jax.errors import UserError


@pytest.mark.parametrize("name", ["tuab", "tuev", "tusl", "seed", "hmc", "workload"])
def test_a_corpus_leaves_out_the_files_of_test_and_validation(trees, prepared, tmp_path, name):
    """The same tree as a corpus: each file is known again by its samples alone, whatever electrodes the task reads."""
    parts = sorted((prepared / name).glob("windows/*"))
    without = excluded({name: parts})
    tested = [r for p in parts if p.name != "train" for r in shards.read_manifest(p)["recordings"]]
    by_hash = Excluded({}, without.hashes)
    if name == "seed":  # its recordings are stretches of one file, which is left out as a whole
        with pytest.raises(UserError, match="1_1.cnt: a recording of seed"):
            build.build([trees[name]], tmp_path / "out", Preprocessing(), "c", by_hash)
        return
    learnt = shards.read_manifest(prepared / name / "windows" / "train")["recordings"]
    found = build.build([trees[name]], tmp_path / "out", Preprocessing(), "c", by_hash)
    became = {r["hash"]: (r["outcome"], r["reason"]) for r in found["recordings"] if r["hash"]}
    assert {became[r["hash"]] for r in tested} == {("excluded", f"a recording of {name}")}
    assert {became[r["hash"]] for r in learnt} == {("used", None)}


def test_subjects_of_one_cohort_are_left_out_of_a_corpus(trees, prepared, tmp_path):
    without = excluded({"tusl": prepared.glob("tusl/*/*"), "seed": prepared.glob("seed/*/*")})
    by_subject = Excluded(without.subjects, {})
    found = build.build([trees["tusl"]], tmp_path / "out", Preprocessing(), "c", by_subject)
    sides = {s: shards.read_manifest(prepared / "tusl" / "windows" / s)["recordings"] for s in ("train", "test")}
    reasons = {r["subject"]: r["reason"] for r in found["recordings"]}
    assert {reasons[r["subject"]] for r in sides["train"]} == {None}
    assert all(reasons[r["subject"]] == f"subject {r['subject']} is in tusl" for r in sides["test"])
    # A number tells a subject of SEED, and nobody else.
    assert without.reason("seed", "1") == "subject 1 is in seed" and without.reason("Rest", "1") is None


def test_a_training_part_keeps_apart_from_another_set(trees, prepared, tmp_path):
    """Sets of one cohort share their subjects; the parts that may be learnt from make room."""
    sides = {s: shards.read_manifest(prepared / "tusl/windows" / s)["recordings"] for s in SPLITS}
    (first, second, third), tested, chosen = sides["train"][:3], sides["test"][0], sides["validation"][0]
    subjects = {("tuh", r["subject"]): "tuab" for r in (first, tested, chosen)} | {("x", second["subject"]): "x"}
    without = Excluded(subjects, {third["hash"]: "tuev"})
    prepare.prepare_task(load_task("tusl"), trees["tusl"], tmp_path / "apart", without=without)
    reasons = {}
    for split in sides:
        apart = shards.read_manifest(tmp_path / "apart" / "windows" / split)
        assert apart["cohort"] == "tuh"
        reasons |= {r["name"]: r["reason"] for r in apart["recordings"] if r["outcome"] == "excluded"}
    want = {r["name"]: f"subject {r['subject']} is in tuab" for r in (first, chosen)}
    assert reasons == want | {third["name"]: "a recording of tuev"}


def test_a_stretch_of_a_file_is_known_by_the_file(trees, tmp_path):
    """A trial is told by a span of its file; the same file tested on by another set is no dead end."""
    file = next(trees["workload"].rglob("*_1.edf"))
    raw = read_raw(file)
    windows = [Window(5.0, 4.0, "low"), Window(9.0, 4.0, "low")]

    def task(name, *recordings, whole=None):
        made = [
            Recording(name, subject, split, lambda: Opened(raw, windows, whole), span)
            for name, subject, split, span in recordings
        ]
        return dataclasses.replace(load_task("workload"), name=name, cohort="", recordings=lambda path: made)

    def hashes(folder):
        found = [r for s in SPLITS for r in shards.read_manifest(folder / "windows" / s)["recordings"]]
        return [(r["hash"], *r["file_hashes"]) for r in found]

    trial = task("trials", ("trial", "s", "train", (5.0, 13.0)))
    prepare.prepare_task(trial, file, tmp_path / "trials")
    [(own, whole)] = hashes(tmp_path / "trials")
    assert (own, whole) == (recording_hash(raw, 2500, 6500), recording_hash(raw)) and own != whole
    prepare.prepare_task(task("whole", ("all", "s", "test", None)), file, tmp_path / "whole")
    parts = [(name, shards.read_manifest(tmp_path / name)) for name in ("trials/windows/train", "whole/windows/test")]
    with pytest.raises(UserError, match="remove that folder, and prepare it again with --exclude"):
        guard.check_disjoint(parts[:1], parts[1:])
    without = excluded({"whole": (tmp_path / "whole").glob("windows/*")})
    with pytest.raises(UserError, match="no labelled window in any of its 1 recordings"):
        prepare.prepare_task(trial, file, tmp_path / "again", without=without)
    # Files in memory have no name to be told apart by.
    copies = [mne.io.RawArray(raw.get_data() * k, raw.info, verbose="error") for k in (1, 2)]
    made = [
        Recording(str(k), str(k), "train", functools.partial(Opened, raw, windows[1:], copy), (5.0 + k, 13.0))
        for k, copy in enumerate(copies)
    ]
    prepare.prepare_task(dataclasses.replace(trial, recordings=lambda path: made), file, tmp_path / "memory")
    assert {found for _, found in hashes(tmp_path / "memory")} == {recording_hash(copy) for copy in copies}


def test_recordings_of_mixed_rates_are_known_again(tmp_path):
    """MNE resamples slower channels stretch by stretch: the hash must not depend on what lies beside the EEG."""
    x, kinds = 20 * np.random.default_rng(0).standard_normal((2, 250 * 600)), {"physical_dimension": "uV"}
    signals = [
        edfio.EdfSignal(x[0], 250, label="Fp1", **kinds),
        edfio.EdfSignal(x[1, ::2].copy(), 125, label="Cz", **kinds),
    ]
    file = tmp_path / "x.edf"
    edfio.Edf(signals).write(file)
    raw, windows = read_raw(file), [Window(0.0, 4.0, "low")]
    made = [Recording("x", "s", "test", lambda: Opened(raw, windows))]
    task = dataclasses.replace(load_task("workload"), rates=(), recordings=lambda path: made)
    prepare.prepare_task(task, file, tmp_path / "task")
    found = build.build([file], tmp_path / "eeg", Preprocessing(mains=50.0), "c")["recordings"]
    [tested] = shards.read_manifest(tmp_path / "task/windows/test")["recordings"]
    assert tested["hash"] == found[0]["hash"]
    edfio.Edf(signals[:1]).write(tmp_path / "alone.edf")
    assert tested["hash"] == recording_hash(mne.io.read_raw(tmp_path / "alone.edf", verbose="error"))


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.crop(10, 50),
        lambda raw: raw.pick(["F4"]),
        lambda raw: raw.rename_channels({"ECG": "Cz"}),
        lambda raw: raw.info.update(bads=["F4"]),
        lambda raw: raw.load_data().set_eeg_reference(["C4"]),
        lambda raw: raw.reorder_channels(raw.ch_names[::-1]),
    ],
    ids=["crop", "pick", "rename", "bads", "reference", "reorder"],
)
def test_a_file_is_known_again_whatever_a_task_does_to_it(tmp_path, change):
    file = tmp_path / "x.edf"
    edf(["F4", "C4", "O2", "ECG"], 250, 60)(file)

    def opened():
        raw = read_raw(file)
        change(raw)
        return Opened(raw, [Window(0.0, 4.0, "low")])

    task = load_task("workload")
    made = [Recording("x", "s", "test", opened)]
    task = dataclasses.replace(task, rates=(), channels=(), recordings=lambda path: made)
    prepare.prepare_task(task, file, tmp_path / "task")
    without = excluded({"task": [tmp_path / "task" / "windows" / "test"]})
    with pytest.raises(UserError, match="x.edf: a recording of task"):
        build.build([file], tmp_path / "eeg", Preprocessing(), "c", without)
