"""The quickstart's sets, read from the files as published."""

import dataclasses

import numpy as np
import pytest

from neurolm_jax import prepare
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.records import decode
from neurolm_jax.eeg.tasks import load_task
from neurolm_jax.eeg.tasks.readers import read_ts
from neurolm_jax.errors import UserError


@pytest.fixture(scope="module")
def blink(recordings, tmp_path_factory):
    out = tmp_path_factory.mktemp("blink") / "blink"
    prepare.prepare_task(load_task("blink"), recordings / "Blink", out)
    return out


def test_blink_has_17_distinct_recordings_and_400_test_windows(blink):
    parts = {split: open_shards(blink / "windows" / split).manifest for split in ("train", "validation", "test")}
    used = {s: [r for r in m["recordings"] if r["outcome"] == "used"] for s, m in parts.items()}
    assert {s: len(u) for s, u in used.items()} == {"train": 7, "validation": 2, "test": 8}
    assert {s: m["records"] for s, m in parts.items()} == {"train": 350, "validation": 100, "test": 400}
    hashes = [r["hash"] for u in used.values() for r in u]
    assert len(set(hashes)) == 17
    left_out = {r["name"]: r["reason"] for m in parts.values() for r in m["recordings"] if r["outcome"] == "skipped"}
    assert left_out == {"train-9": "a copy of train-5", "test-4": "a copy of train-6"}
    assert not (blink / "recordings" / "test").exists()


def test_blink_windows_are_cut_from_the_filtered_whole(blink, recordings):
    windows, whole = open_shards(blink / "windows" / "train"), open_shards(blink / "recordings" / "train")
    pieces = [decode(whole.source[i]) for i, number in enumerate(whole.manifest["index"]["recording"]) if not number]
    recording = dataclasses.replace(pieces[0], samples=np.hstack([piece.samples for piece in pieces]))
    window = decode(windows.source[7])
    assert recording.samples.shape == (4, 20_000) and window.samples.shape == (4, 400)
    np.testing.assert_allclose(window.samples, recording.samples[:, 2800:3200], atol=0.05)
    trials, labels = read_ts(recordings / "Blink" / "Blink_TRAIN.ts")
    assert window.label == labels[7] == "LongBlink"
    # 100 s at 255 Hz put together again: no seam of the windows is left in the slow part of the signal.
    assert abs(recording.samples.mean()) < 2 and abs(trials[:50].mean() - 850) < 50


def test_scp1_is_one_channel(recordings):
    trials, _ = read_ts(recordings / "SelfRegulationSCP1" / "SelfRegulationSCP1_TRAIN.ts")
    for channel in range(5):
        np.testing.assert_array_equal(trials[:, channel, 6:], trials[:, channel + 1, :-6])
    found = list(load_task("scp1").recordings(recordings / "SelfRegulationSCP1"))
    assert len(found) == 268 + 293 and {r.open().raw.ch_names[0] for r in found} == {"A1"}
    splits = [r.split for r in found]
    assert (splits.count("train"), splits.count("validation"), splits.count("test")) == (214, 54, 293)
    np.testing.assert_allclose(found[0].open().raw.get_data()[0] * 1e6, trials[0, 0])


def test_scp1_windows_are_told_from_their_baseline(small_data):
    from mne.baseline import rescale

    windows, whole = (open_shards(small_data / "scp1" / kind / "train").source for kind in ("windows", "recordings"))
    for i in range(len(windows)):
        window, recording = decode(windows[i]), decode(whole[i])
        assert window.recording == recording.recording
        times = np.arange(window.samples.shape[1]) / 200
        want = rescale(recording.samples.astype(np.float64), times, (0, 49 / 200), verbose="error")
        # Both are stored in steps of 2^-15 of their largest value.
        np.testing.assert_allclose(window.samples, want, atol=3e-4 * np.abs(recording.samples).max())
        assert abs(recording.samples.mean()) > abs(window.samples[:, :50].mean())


def test_bad_files_are_named(tmp_path):
    with pytest.raises(UserError, match="Blink_TRAIN.ts: no such file"):
        list(load_task("blink").recordings(tmp_path))
    file = tmp_path / "x.ts"
    for content in ("", "@data\n", "@data\n1,2:3,4:a\n1:2:a\n", "@data\n1,2:3:a\n", "@data\n1,x:a\n"):
        file.write_text(content)
        with pytest.raises(UserError, match="x.ts"):
            read_ts(file)
    with pytest.raises(UserError, match="unknown task 'x'"):
        load_task("x")
