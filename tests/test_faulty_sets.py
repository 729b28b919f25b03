"""Faults in the files of a downstream set are named, and what is faulty is left out if asked."""

import dataclasses

import mne
import numpy as np
import pytest
from edited_sets import append, edf, edited, edited_task, replace

from neurolm_jax import prepare
from neurolm_jax.data import shards
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.tasks import Window, load_task
from neurolm_jax.errors import UserError


@pytest.mark.parametrize(
    ("name", "pattern", "change", "message"),
    [
        ("tuev", "*.rec", lambda file: file.unlink(), "its label file bckg_000_a_.rec is missing"),
        ("tusl", "*.tse_agg", lambda file: file.unlink(), "its label file .*.tse_agg is missing"),
        ("hmc", "*.txt", lambda file: file.unlink(), "its label file SN001_sleepscoring.txt is missing"),
        ("tuev", "*.rec", append("3,5.0,6.0,7\n"), r"bckg_000_a_.rec: line 13: label 7 is none of 1 to 6"),
        ("tuev", "*.rec", append("3,5.0\n"), r"line 13 is not 'channel,start,stop,label'"),
        ("tuev", "*.rec", append("3,5.0,6.0,inf\n"), r"line 13 is not 'channel,start,stop,label'"),
        ("tuev", "*.rec", append("3,nan,6.0,1\n"), "its labels want seconds nan to nan, it has 0 to 84"),
        ("tuev", "*.rec", append("3,500.0,501.0,1\n"), "its labels want seconds 498 to 503, it has 0 to 84"),
        ("tusl", "*.tse_agg", append("1.0 11.0 spik 1.0\n"), "line 9: label 'spik' is none of bckg, seiz, slow"),
        ("tusl", "*.tse_agg", append("100.0 110.0 slow 1.0\n"), "its labels want seconds 100 to 110, it has 0 to 72"),
        ("hmc", "*.txt", replace("Sleep stage R", "Sleep stage X"), "'Sleep stage X' is none of W, N1, N2, N3, R"),
        ("hmc", "*.txt", replace(", 420, 30", ", nan, 30"), "its labels want seconds nan to nan, it has 0 to 463"),
        ("hmc", "*.txt", replace(", 420, 30", ", 480, 30"), "its labels want seconds 480 to 510, it has 0 to 463"),
    ],
)
def test_faulty_labels_are_named(trees, tmp_path, name, pattern, change, message):
    edited(trees[name], name, tmp_path / "in", pattern, change)
    with pytest.raises(UserError, match=message):
        prepare.prepare_task(load_task(name), tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))
    prepare.prepare_task(load_task(name), tmp_path / "in", tmp_path / "out", skip_faulty=True)
    recordings = [
        r
        for s in ("train", "validation", "test")
        for r in open_shards(tmp_path / "out/windows" / s).manifest["recordings"]
    ]
    assert [r["outcome"] for r in recordings].count("skipped") == 1


@pytest.mark.parametrize(
    ("name", "pattern", "change", "message"),
    [
        (
            "workload",
            "*_1.edf",
            edf(["EEG Fp1", "EEG Cz"], 250, 70),
            "sampled at 250 Hz; the recordings of workload have 500",
        ),
        ("workload", "*_1.edf", edf(["EEG Fp1", "EEG Cz"], 500, 40), "too short, 40.0 s; the last 60 s are used"),
        (
            "workload",
            "*_1.edf",
            edf(["ECG", "EMG chin"], 500, 70),
            "none of its channels is one of the wanted electrodes",
        ),
        ("tuab", "*.edf", edf(["EEG FP1-REF"], 250, 9), "too short, 9.0 s; a window of tuab has 10"),
        ("tuab", "*.edf", lambda file: file.write_bytes(file.read_bytes()[:500]), "cannot be read"),
        ("tuab", "*.edf", lambda file: file.rename(file.parents[4] / "lost.edf"), "does not lie under {train,eval}"),
        ("workload", "*_1.edf", lambda file: file.rename(file.with_name("Subject00_3.edf")), "which tells its label"),
        ("seed_iv", "*.mat", lambda file: file.write_bytes(b"MATLAB 5.0" + bytes(500)), "cannot be read"),
    ],
)
def test_faulty_recordings_are_named(trees, tmp_path, name, pattern, change, message):
    edited(trees[name], name, tmp_path / "in", pattern, change)
    with pytest.raises(UserError, match=message):
        prepare.prepare_task(load_task(name), tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_an_empty_folder_and_a_missing_trial_are_named(trees, tmp_path):
    import scipy.io

    with pytest.raises(UserError, match="holds no recording of SEED"):
        prepare.prepare_task(load_task("seed"), tmp_path, tmp_path / "out")
    file = tmp_path / "1" / "1_20160518.mat"
    file.parent.mkdir()
    scipy.io.savemat(file, {"cz_eeg1": np.zeros((62, 1000))})
    with pytest.raises(UserError, match=r"holds no trial 2 \(a variable \*_eeg2\)"):
        list(load_task("seed_iv").recordings(tmp_path))[1].open()
    scipy.io.savemat(file, {"cz_eeg1": np.zeros((14, 1000))})
    with pytest.raises(UserError, match=r"trial 1 has shape \(14, 1000\), not 62 electrodes"):
        list(load_task("seed_iv").recordings(tmp_path))[0].open()


@pytest.mark.parametrize(
    ("name", "pattern", "content", "message"),
    [
        pytest.param("seed_iv", "*.mat", b"", r"1_20160501.mat: cannot be read \(MatReadError", marks=pytest.mark.slow),
        ("tusl", "*.tse_agg", b"version\n\xff\xfe\n", r"tse_agg: cannot be read \(UnicodeDecodeError"),
        ("hmc", "*.txt", b"\xff\xfe\n", r"scoring.txt: cannot be read \(UnicodeDecodeError"),
    ],
)
def test_damaged_files_are_left_out_if_asked(trees, tmp_path, name, pattern, content, message):
    edited(trees[name], name, tmp_path / "in", pattern, lambda file: file.write_bytes(content))
    with pytest.raises(UserError, match=message):
        prepare.prepare_task(load_task(name), tmp_path / "in", tmp_path / "out")
    prepare.prepare_task(load_task(name), tmp_path / "in", tmp_path / "out", skip_faulty=True)
    assert shards.read_manifest(tmp_path / "out" / "windows" / "train")["records"]


def test_bytes_that_turn_out_damaged_while_they_are_read_are_named(trees, tmp_path):
    class Damaged(mne.io.RawArray):
        def get_data(self, *_, **__):
            raise ValueError("bytes are\nmissing")

    task = edited_task(lambda raw, windows: (Damaged(raw.get_data(), raw.info, verbose="error"), windows))
    with pytest.raises(UserError, match=r"Subject00_1: cannot be read \(ValueError: bytes are missing\) \(--skip"):
        prepare.prepare_task(task, trees["workload"], tmp_path / "out")


@pytest.mark.parametrize(
    ("window", "seconds", "message"),
    [
        (Window(0.0, float("nan"), "low"), 60, "Subject00_1: a window of nan s at 0 s; workload asks about 4 s"),
        (Window(0.0, 1.5, "low"), 60, "Subject00_1: a window of 1.5 s at 0 s; workload asks about 4 s"),
        (Window(0.0, 4.0, "low"), 3.9955, "Subject00_1: too short for its window of 4 s"),
    ],
)
def test_windows_shorter_than_the_task_wants_are_refused(trees, tmp_path, window, seconds, message):
    task = edited_task(lambda raw, _: (raw.crop(0, seconds, include_tmax=False), [window]))
    with pytest.raises(UserError, match=message):
        prepare.prepare_task(task, trees["workload"], tmp_path / "out")


def test_a_set_without_a_window_is_refused(trees, tmp_path):
    lost = dataclasses.replace(load_task("workload"), rates=(1.0,))
    with pytest.raises(UserError, match="no labelled window in any of its 10 recordings"):
        prepare.prepare_task(lost, trees["workload"], tmp_path / "out", skip_faulty=True)
    assert not (tmp_path / "out").exists()
