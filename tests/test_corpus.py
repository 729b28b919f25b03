"""Directories of recordings into shards: what is kept, what is left out and why."""

import pathlib

import edfio
import mne
import numpy as np
import pytest
from small_corpora import NAMES, SETTINGS, noise, outcomes, write_edf

from neurolm_jax.corpus import build, recording, sources
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.electrodes import VOCABULARY
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.records import decode
from neurolm_jax.errors import UserError


def test_every_recording_is_accounted_for(folder, tmp_path):
    manifest = build.build([folder], tmp_path / "out", SETTINGS, "corpus")
    found = outcomes(manifest)
    used = [f"{i}.edf" for i in range(6)]
    assert [name for name, reason in found.items() if reason is None] == used
    assert found["again/copy.edf"] == "a copy of 2.edf"
    assert "cannot be read" in found["broken.edf"] and "none of its channels" in found["heart.edf"]
    np.testing.assert_allclose(manifest["hours"], 6 * 20 / 3600)
    assert not list(tmp_path.glob(".*"))
    opened = open_shards(tmp_path / "out")
    records = [decode(opened.source[i]) for i in range(len(opened.source))]
    assert list(dict.fromkeys(r.recording for r in records)) == used
    assert {r.electrodes for r in records} == {tuple(map(VOCABULARY.index, ("FP1", "C3", "T3")))}
    assert manifest["recordings"][0]["left_out"] == {"EKG1": "no electrode of the vocabulary"}


def test_samples_equal_a_plain_mne_pipeline(tmp_path):
    file = write_edf(tmp_path / "in" / "x.edf", noise(1, seconds=300))
    build.build([file], tmp_path / "out", Preprocessing(mains=50.0), "corpus")
    source = open_shards(tmp_path / "out").source
    records = [decode(source[i]) for i in range(len(source))]
    got = np.concatenate([r.samples for r in records], axis=1)
    raw = mne.io.read_raw_edf(file, preload=True, verbose="error").pick(list(NAMES[:3]))
    raw.filter(0.1, 75, verbose="error").notch_filter(50, verbose="error").resample(200, verbose="error")
    assert [r.start for r in records] == list(range(0, 300, 16))
    np.testing.assert_allclose(got, raw.get_data() * 1e6, atol=0.1)


@pytest.mark.parametrize("rate", [249.9, 1000 / 3])
def test_rates_that_no_second_is_whole_at(tmp_path, rate):
    x = 1e-6 * noise(1, seconds=1, rate=round(600 * rate), channels=2)
    raw = mne.io.RawArray(x, mne.create_info(["Fp1", "C3"], rate, "eeg"), verbose="error")
    raw.save(tmp_path / "x_raw.fif", fmt="double", verbose="error")
    manifest = build.build([tmp_path / "x_raw.fif"], tmp_path / "out", SETTINGS, "corpus")
    assert outcomes(manifest) == {"x_raw.fif": None}
    assert sum(manifest["index"]["samples"]) >= 599 * 200


def test_bad_stretches_are_cut_out_and_counted(tmp_path):
    x = noise(1, seconds=60)
    x[:, 20 * 250 : 23 * 250] = 5.0
    x[2, 40 * 250 : 41 * 250] = np.nan
    x[3] = x[0]
    file = tmp_path / "x_raw.fif"
    info = mne.create_info(["Fp1", "C3", "T3", "O1"], 250, "eeg", verbose="error")
    mne.io.RawArray(x * 1e-6, info, verbose="error").save(file, fmt="double", verbose="error")
    manifest = build.build([file], tmp_path / "out", SETTINGS, "corpus")
    [found] = manifest["recordings"]
    assert found["left_out"] == {"O1": "copies Fp1 exactly"}
    assert found["dropped_seconds"] == 4 and found["hours"] == 56 / 3600
    assert found["bad_channel_seconds"] == {"missing": 1, "flat": 9}
    assert manifest["index"]["samples"] == [16 * 200, 4 * 200, 16 * 200, 200, 16 * 200, 3 * 200]


def test_a_channel_that_is_mostly_bad_goes_instead_of_its_seconds(tmp_path):
    x = noise(1, seconds=60)
    x[1, : 40 * 250] = 0.0
    manifest = build.build([write_edf(tmp_path / "x.edf", x)], tmp_path / "out", SETTINGS, "corpus")
    assert manifest["index"]["channels"] == [2] * 4 and sum(manifest["index"]["samples"]) == 60 * 200


@pytest.mark.parametrize(("scale", "word"), [(1e-5, "far below"), (1e5, "far above")])
def test_wrong_units_are_refused_with_advice(tmp_path, scale, word):
    raw = mne.io.RawArray(noise(1) * 1e-6 * scale, mne.create_info(["Fp1", "C3", "T3", "O1"], 250, "eeg"))
    raw.save(tmp_path / "x_raw.fif", fmt="double", verbose="error")
    with pytest.raises(UserError, match=f"x_raw.fif: amplitudes .* {word} .*; correct the header"):
        build.build([tmp_path / "x_raw.fif"], tmp_path / "out", SETTINGS, "corpus")
    assert [path.name for path in tmp_path.iterdir()] == ["x_raw.fif"]


def test_memory_does_not_grow_with_the_recording(monkeypatch):
    """Of a recording of six hours, no more than six minutes are asked for at once."""
    asked = []
    raw = mne.io.RawArray(np.zeros((2, 100)), mne.create_info(["Fp1", "C3"], 256, "eeg"), verbose="error")
    length, x = 6 * 3600 * 256, noise(0, 60, 256, 2) * 1e-6

    class Long:
        info, ch_names, n_times = raw.info, raw.ch_names, length
        annotations, first_time, filenames = raw.annotations, 0.0, ()

        def get_channel_types(self):
            return ["eeg", "eeg"]

        def get_data(self, picks, first, last, verbose):
            asked.append(last - first)
            return np.take(x, np.arange(first, last), axis=1, mode="wrap")

    outcome = recording.Outcome("long")
    source = sources.Source(pathlib.Path("long"), "long")
    hours = sum(r.samples.shape[1] for r in recording.records(Long(), source, SETTINGS, "c", outcome)) / 200 / 3600
    assert hours == outcome.hours == 6.0
    assert max(asked) <= 6 * 60 * 256


def test_many_channels_one_channel_and_names_that_occur_twice(tmp_path):
    many = [f"AUX{i}" for i in range(297)] + ["Fp1", "C3", "T3"]
    write_edf(tmp_path / "in" / "many.edf", noise(0, channels=300), names=many)
    write_edf(tmp_path / "in" / "one.edf", noise(1, channels=1), names=["Cz"])
    write_edf(tmp_path / "in" / "twice.edf", noise(2), names=["T3", "T7", "Cz", "Cz"])
    manifest = build.build([tmp_path / "in"], tmp_path / "out", SETTINGS, "corpus")
    assert [r["channels"] for r in manifest["recordings"]] == [["Fp1", "C3", "T3"], ["Cz"], ["T3", "Cz-0"]]
    assert manifest["recordings"][2]["left_out"] == {
        "T7": "a second channel at T7, after T3",
        "Cz-1": "a second channel at CZ, after Cz-0",
    }


def test_uneven_rates(tmp_path):
    limits = {"physical_dimension": "uV", "physical_range": (-200, 200)}
    x = np.clip(noise(0, channels=2), -199, 199)
    signals = [
        edfio.EdfSignal(x[0], 250, label="Fp1", **limits),
        edfio.EdfSignal(x[1, ::5].copy(), 50, label="SaO2", **limits),
    ]
    edfio.Edf(signals).write(tmp_path / "x.edf")
    [found] = build.build([tmp_path / "x.edf"], tmp_path / "out", SETTINGS, "corpus")["recordings"]
    assert (found["channels"], found["rate"], found["hours"]) == (["Fp1"], 250.0, 20 / 3600)
