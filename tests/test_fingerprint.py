"""A recording is known again after another export, and no other one of the same person is taken for it."""

import dataclasses

import mne
import numpy as np
import pytest
from exports import WRITERS, write_edf
from small_corpora import noise

from neurolm_jax import prepare
from neurolm_jax.corpus import build
from neurolm_jax.corpus.excluded import excluded
from neurolm_jax.data import guard, shards
from neurolm_jax.eeg import fingerprint
from neurolm_jax.eeg.fingerprint import Known, agreement
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks import Opened, Recording, Window, load_task
from neurolm_jax.eeg.tasks.readers import read_raw, read_ts
from neurolm_jax.errors import UserError

RATE = 256
CHANNELS = ("Fz", "Cz", "Pz", "C3", "C4", "F3", "F4")


@pytest.fixture(scope="module")
def trials(recordings):
    """120 recordings of 4.5 s of one person, microvolts [120, 7, 1152], all in one task at one pace."""
    samples, _ = read_ts(recordings / "SelfRegulationSCP2" / "SelfRegulationSCP2_TRAIN.ts")
    return np.asarray(samples[:120], float)


def raw_of(x, names=CHANNELS, rate=RATE):
    return mne.io.RawArray(x * 1e-6, mne.create_info(list(names), rate, "eeg"), verbose="error")


def print_of(x, *arguments):
    return fingerprint.fingerprint(raw_of(x, *arguments))


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("gain", [1.0, 0.31])
def test_exports_are_known_again_and_told_apart(trials, tmp_path, suffix, gain):
    known = Known([print_of(x) for x in trials])
    exports = [WRITERS[suffix](tmp_path / f"{i}{suffix}", gain * x, CHANNELS, RATE) for i, x in enumerate(trials[:20])]
    found = known.match([fingerprint.fingerprint(read_raw(file)) for file in exports])
    assert found == list(range(20))
    others = Known([print_of(x) for x in trials[20:]])
    assert others.match([print_of(x) for x in trials[:20]]) == [None] * 20


def test_changes_of_a_copy(trials):
    # 18 s of one person that never were: pieces of the trials, one after another.
    x, other = (np.concatenate(list(trials[begin : begin + 8]), axis=1) for begin in (0, 8))
    rng = np.random.default_rng(0)
    whole = print_of(x)
    copies = {
        "gains": x * rng.uniform(0.2, 5, (7, 1)),
        "offsets": x + 4000 * rng.standard_normal((7, 1)),
        "drift": x + np.linspace(0, 900, x.shape[1]),
        "mains": x + 30 * np.sin(2 * np.pi * 50 * np.arange(x.shape[1]) / RATE),
        "coarse": np.rint(x),
        "shorter": x[:, : 17 * RATE],
        "longer": np.pad(x, ((0, 0), (0, 3 * RATE))),
        "polarity": -x,
    }
    found = {name: agreement(whole, print_of(copy)) for name, copy in copies.items()}
    assert min(found.values()) > 0.9, found
    resampled = raw_of(x).resample(200, verbose="error")
    assert agreement(whole, fingerprint.fingerprint(resampled)) > 0.9
    assert agreement(whole, print_of(x[[4, 2, 0, 5]], [CHANNELS[i] for i in (4, 2, 0, 5)])) > 0.7
    assert agreement(whole, print_of(other)) < 0.5


def test_what_tells_nothing_has_none(trials):
    assert print_of(trials[0][:, : 2 * RATE]) == ""  # too short
    assert print_of(np.zeros((7, 30 * RATE))) == print_of(np.full((7, 30 * RATE), np.nan)) == ""
    assert print_of(np.tile(np.sin(np.arange(30 * RATE) / 4), (7, 1))) == ""
    # Two recordings of a tone in noise, whose power goes up and down with it, are not one.
    seconds = np.arange(30 * RATE) / RATE
    for hertz in (3, 4, 5):
        tones = [30 * np.sin(2 * np.pi * hertz * seconds) + noise(i, 30, RATE, 7) for i in (0, 1)]
        assert fingerprint.course(tones[0], RATE).std() > fingerprint.LEAST_DEVIATION
        assert [print_of(tone) for tone in tones] == ["", ""]
    assert print_of(trials[0], ["ECG", "EMG", "X1", "X2", "X3", "X4", "X5"]) == ""
    assert Known([]).match(["", "7f" * 32]) == [None, None] and agreement("", "") == -np.inf


def test_the_correlation_is_that_of_numpy(trials):
    """Also where one has fewer values, and pieces that the other lacks."""
    one, other = print_of(trials[0]), print_of(trials[1])
    numbers = [np.array([int(c, 16) for c in mark], float) for mark in (one, other[:50])]
    want = np.corrcoef(numbers[0][:50], numbers[1])[0, 1]
    assert agreement(one, other[:50]) == pytest.approx(want, abs=1e-5)
    assert agreement(f"{one}.{other}", f"{other[:50]}..{one}") == pytest.approx(want, abs=1e-5)


@pytest.fixture
def exported(tmp_path):
    """A set that tests on ``0.edf``, and a corpus that has it, and another, in other containers and scales."""
    names = ("Fp1", "C3", "T7", "O1")
    x = [
        noise(i, seconds=40, rate=RATE) + 3 * np.random.default_rng(i + 9).standard_normal((4, 40 * RATE))
        for i in (0, 1)
    ]
    raw = read_raw(write_edf(tmp_path / "set" / "0.edf", x[0], names, RATE))
    made = [Recording("0", "s", "test", lambda: Opened(raw, [Window(0.0, 4.0, "low")]))]
    task = dataclasses.replace(load_task("workload"), rates=(), channels=(), recordings=lambda path: made)
    prepare.prepare_task(task, tmp_path / "set", tmp_path / "tasks" / "own")
    for name, samples in (("copy", 2.5 * x[0]), ("other", x[1])):
        for suffix, write in WRITERS.items():
            write(tmp_path / "in" / f"{name}{suffix}", samples, names, RATE)
    return tmp_path


def test_another_export_is_left_out_and_refused(exported):
    without = excluded({"own": [exported / "tasks/own/windows/test"]})
    found = build.build([exported / "in"], exported / "apart", Preprocessing(mains=50.0), "c", without)
    became = {r["name"]: (r["outcome"], r["reason"]) for r in found["recordings"]}
    for suffix in WRITERS:
        assert became[f"copy{suffix}"] == ("excluded", "a recording of own, exported anew")
        assert became[f"other{suffix}"] == ("used", None)
    tested = shards.read_manifest(exported / "tasks/own/windows/test")
    assert found["kept_apart_from"] == {"own": [tested["content_hash"]]}
    build.build([exported / "in"], exported / "all", Preprocessing(mains=50.0), "c")
    parts = [(name, shards.read_manifest(exported / name)) for name in ("all", "apart")]
    guard.check_disjoint(parts[1:], [("test", tested)])
    with pytest.raises(UserError, match=r"all: recording copy.edf is an export of 0 of the test part test; remove"):
        guard.check_disjoint(parts, [("test", tested)])
