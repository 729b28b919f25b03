"""The seven downstream sets, from files in their published formats to labelled windows."""

import collections

import numpy as np
import pytest
import small_sets
from edited_sets import append, edited
from scipy.signal import welch

from neurolm_jax import prepare
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.electrodes import VOCABULARY
from neurolm_jax.eeg.records import decode
from neurolm_jax.eeg.tasks import load_task

# windows of each label in train, validation and test; electrodes; seconds
EXPECTED = {
    "tuab": ({"abnormal": 30, "normal": 30}, {"abnormal": 10, "normal": 10}, 23, 10),
    "tuev": (dict.fromkeys(small_sets.RHYTHMS["tuev"], 24), dict.fromkeys(small_sets.RHYTHMS["tuev"], 6), 23, 5),
    "tusl": (dict.fromkeys(small_sets.RHYTHMS["tusl"], 20), dict.fromkeys(small_sets.RHYTHMS["tusl"], 4), 23, 10),
    "seed": (dict.fromkeys(small_sets.RHYTHMS["seed"], 28), dict.fromkeys(small_sets.RHYTHMS["seed"], 7), 62, 4),
    "seed_iv": (
        {"neutral": 20, "sad": 28, "fear": 26, "happy": 22},
        {"neutral": 16, "sad": 8, "fear": 10, "happy": 14},
        62,
        4,
    ),
    "hmc": (dict.fromkeys(small_sets.RHYTHMS["hmc"], 24), dict.fromkeys(small_sets.RHYTHMS["hmc"], 6), 4, 30),
    "workload": ({"low": 116, "high": 116}, {"low": 29, "high": 29}, 19, 4),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_windows_hold_what_their_label_says(prepared, name):
    learnt, tested, electrodes, seconds = EXPECTED[name]
    task, counts = load_task(name), {}
    for split in ("train", "validation", "test"):
        part = open_shards(prepared / name / "windows" / split)
        counts[split] = collections.Counter(part.manifest["index"]["label"])
        assert part.manifest["split_by"] == {"way": "published", "seed": 0}
        for i in range(0, len(part.source), 3):
            record = decode(part.source[i])
            assert record.samples.shape == (electrodes, seconds * 200)
            frequency, density = welch(record.samples.mean(0), 200, nperseg=400)
            assert frequency[density.argmax()] == small_sets.RHYTHMS[name][record.label], record.label
            # A rhythm of 30 microvolts: units came through.
            assert 17 < record.samples.std() < 29
    assert counts["train"] + counts["validation"] == learnt and counts["test"] == tested
    if task.channels:
        assert {VOCABULARY[e].upper() for e in record.electrodes} == {name.upper() for name in task.channels}


@pytest.mark.parametrize("name", [name for name in EXPECTED if not name.startswith("seed")])
def test_no_subject_is_on_two_sides(prepared, name):
    side = collections.defaultdict(set)
    for split in ("train", "validation", "test"):
        for recording in open_shards(prepared / name / "windows" / split).manifest["recordings"]:
            assert recording["subject"]
            side[recording["subject"]].add(split)
    assert all(len(splits) == 1 for splits in side.values())


def test_an_abnormal_subject_with_a_normal_session_is_one_subject(prepared):
    parts = [
        open_shards(prepared / "tuab" / "windows" / split).manifest["recordings"] for split in ("train", "validation")
    ]
    both = [[r["name"] for r in part if r["subject"] == "aaaaaaaa"] for part in parts]
    assert sorted(map(len, both)) == [0, 2]


def test_recordings_of_a_trial_are_the_trial(prepared):
    """Whole recordings of SEED, for the stages without labels, hold no second of another split's trial."""
    part = open_shards(prepared / "seed" / "recordings" / "train")
    assert part.manifest["hours"] == pytest.approx(9 * 29 / 3600)
    seconds = np.array(part.manifest["index"]["samples"]).sum() / 200
    assert seconds == 9 * 29


def test_seed_at_its_real_length_and_schedule(tmp_path):
    """An hour at 1000 Hz: a sparse file, of which the last trial alone is written."""
    make = small_sets.planted("seed")
    file = small_sets.write_cnt(
        tmp_path / "SEED_RAW_EEG" / "15_3.cnt", 1000, 3900, [(3598, make("negative", 66, 209, 1000, 0))]
    )
    assert file.stat().st_size > 1e9 and file.stat().st_blocks * 512 < 2e8
    found = list(load_task("seed").recordings(tmp_path))
    assert [r.split for r in found] == ["train"] * 9 + ["validation"] * 3 + ["test"] * 3
    raw, windows, whole = found[14].open()
    assert whole.n_times == 3900 * 1000
    assert found[14].subject == "15" and raw.info["sfreq"] == 1000 and len(windows) == 52
    assert {w.label for w in windows} == {"negative"}
    begin, end = found[14].span
    samples = raw.get_data(["CB1"], round(begin * 1000), round((begin + 2) * 1000)) * 1e6
    np.testing.assert_allclose(samples[0], make("negative", 66, 209, 1000, 0)[57 + 2, :2000], atol=0.026)
    assert end - begin == 209 and not raw.get_data(["CB1"], 0, round(begin * 1000)).any()


def test_a_window_of_tuev_is_five_seconds_round_its_event(trees):
    found = list(load_task("tuev").recordings(trees["tuev"]))
    windows = found[0].open().windows
    assert [w.onset for w in windows] == [7 * k + 1.0 for k in range(12)] and {w.duration for w in windows} == {5}


def test_near_an_end_of_the_recording_a_window_of_tuev_is_moved_inside(trees, tmp_path):
    edited(trees["tuev"], "tuev", tmp_path / "in", "*.rec", append("3,0.4,1.4,1\n3,83.0,84.0,2\n"))
    windows = next(iter(load_task("tuev").recordings(tmp_path / "in"))).open().windows
    assert [(w.onset, w.label) for w in windows[-2:]] == [(0, "spsw"), (79, "gped")]


def test_official_split_is_in_the_manifest(trees, tmp_path):
    prepare.prepare_task(load_task("workload"), trees["workload"], tmp_path / "out", way="official")
    manifest = open_shards(tmp_path / "out" / "windows" / "train").manifest
    assert manifest["split_by"] == {"way": "official", "seed": None} and manifest["records"] == 10 * 29
