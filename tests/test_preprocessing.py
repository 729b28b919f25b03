import hashlib

import mne
import numpy as np
import pytest

from neurolm_jax.eeg import identity
from neurolm_jax.eeg.electrodes import VOCABULARY, electrode_id
from neurolm_jax.eeg.identity import recording_hash
from neurolm_jax.eeg.preprocessing import Preprocessing, preprocess
from neurolm_jax.errors import UserError

NAMED = [
    ("Fp1", "FP1"),
    ("EEG FP1-REF", "FP1"),
    ("Fp1-LE", "FP1"),
    ("C3..", "C3"),
    ("eeg T7", "T7"),
    ("F7-T7", "F7-T7"),
    ("T3", "T3"),
    ("EEG T6-REF", "T6"),
    ("F7-T3", "F7-T7"),
    ("EEG Fpz-Cz", "FPZ"),
    ("C4-M1", "C4"),
    ("EEG F1-Ref-0", "F1"),  # as MNE numbers names that occur twice
]


def raw_of(samples, names, rate=256.0):
    return mne.io.RawArray(samples, mne.create_info(names, rate, "eeg", verbose="error"), verbose="error")


def noise(channels=3, seconds=30, rate=256, seed=0):
    return 2e-5 * np.random.default_rng(seed).standard_normal((channels, seconds * rate))


def test_equals_a_plain_mne_pipeline():
    raw = raw_of(noise(), ["Fp1", "EEG C3-REF", "ECG"])
    got = preprocess(raw, Preprocessing(mains=50.0), "r")
    plain = raw.copy().pick(["Fp1", "EEG C3-REF"]).filter(0.1, 75, verbose="error")
    plain = plain.notch_filter(50, verbose="error").resample(200, verbose="error").get_data() * 1e6
    assert got.electrodes == (VOCABULARY.index("FP1"), VOCABULARY.index("C3"))
    assert got.samples.dtype == np.float32
    np.testing.assert_allclose(got.samples, plain, atol=0.01)


def test_a_mains_hum_goes_and_the_rest_stays():
    time = np.arange(30 * 256) / 256
    hum, alpha = 5e-5 * np.sin(2 * np.pi * 60 * time), 2e-5 * np.sin(2 * np.pi * 10 * time)
    got = preprocess(raw_of((hum + alpha)[None], ["Cz"]), Preprocessing(mains=60.0), "r").samples[0, 1000:-1000]
    spectrum = np.abs(np.fft.rfft(got)) / len(got) * 2
    frequency = np.fft.rfftfreq(len(got), 1 / 200)
    assert spectrum[np.abs(frequency - 60) < 1].max() < 0.5
    np.testing.assert_allclose(spectrum[np.argmin(np.abs(frequency - 10))], 20, rtol=0.02)


def test_without_bands_the_mean_stays():
    raw = raw_of(noise(1, 4) + 3e-5, ["Cz"])
    got = preprocess(raw, Preprocessing(low=None, high=None), "r").samples
    np.testing.assert_allclose(got.mean(), raw.get_data().mean() * 1e6, atol=0.5)


@pytest.mark.parametrize(
    ("name", "place"),
    NAMED,
)
def test_names_of_electrodes(name, place):
    assert electrode_id(name) == VOCABULARY.index(place)


@pytest.mark.parametrize("name", ["ECG", "pad", "PAD", "", "EEG", "Photic-REF", "X1"])
def test_other_names(name):
    assert electrode_id(name) is None


@pytest.mark.parametrize(
    ("samples", "names", "message"),
    [
        (noise(), ["X1", "X2", "X3"], "none of its channels"),
        (np.where(np.arange(7680) == 99, np.nan, noise()), ["Cz", "C3", "C4"], "r.edf: NaN or infinite samples in Cz"),
        (noise(3), ["Cz", "CZ", "C4"], "more than one channel for electrode Cz"),
        (noise(1)[:, :200], ["Cz"], "shorter than one second"),
    ],
)
def test_bad_recordings_are_named(samples, names, message):
    with pytest.raises(UserError, match=message):
        preprocess(raw_of(samples, names), Preprocessing(), "r.edf")


def test_hash_is_of_the_samples_of_all_electrodes():
    first, same, other = (raw_of(noise(seed=seed), ["C3", "Cz", "X1"]) for seed in (1, 1, 2))
    assert recording_hash(first) == recording_hash(same) != recording_hash(other)
    assert recording_hash(first) == recording_hash(first.copy().pick(["C3", "Cz"]))  # X1 is none
    assert recording_hash(first) != recording_hash(first.copy().pick(["Cz"]))
    assert recording_hash(first, 128, 1280) == recording_hash(first.copy().crop(0.5, 5.0, include_tmax=False))
    assert recording_hash(first.copy().pick(["X1"])) == ""
    # A copied channel tells nothing.
    double = raw_of(np.vstack([noise(seed=1)[:2], noise(seed=1)[:1]]), ["C3", "Cz", "Pz"])
    assert recording_hash(double) == recording_hash(first)
    samples = first.get_data(["C3", "Cz"]) * 1e6
    each = b"".join(hashlib.sha256(channel.tobytes()).digest() for channel in samples)
    assert recording_hash(first) == hashlib.sha256(each).hexdigest()


def test_hash_does_not_depend_on_the_stretches_that_are_read(monkeypatch):
    raw = raw_of(noise(seed=1), ["C3", "Cz", "X1"])
    whole = recording_hash(raw)
    monkeypatch.setattr(identity, "STRETCH", 3)
    assert recording_hash(raw) == whole
