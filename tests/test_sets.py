"""The seven downstream sets, from files in their published formats to labelled windows."""

import collections
import shutil

import numpy as np
import pytest
import small_sets
from scipy.signal import welch

from neurolm_jax import prepare
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.electrodes import VOCABULARY
from neurolm_jax.eeg.records import decode
from neurolm_jax.eeg.tasks import load_task, seed
from neurolm_jax.errors import UserError

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


def short_schedule(patch):
    """SEED's sessions last an hour: here they have its trials one after the other."""
    patch.setattr(seed, "STARTS", small_sets.SEED_STARTS)
    patch.setattr(seed, "STOPS", small_sets.SEED_STOPS)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("trees")
    return {name: write(root / name, small_sets.planted(name)) for name, write in small_sets.WRITERS.items()}


@pytest.fixture(scope="module")
def prepared(trees, tmp_path_factory):
    out = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:
        short_schedule(patch)
        for name, tree in trees.items():
            prepare.prepare_task(load_task(name), tree, out / name)
    return out


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
        wanted = {name.upper().replace("T3", "T7").replace("T4", "T8") for name in task.channels}
        wanted = {name.replace("T5", "P7").replace("T6", "P8") for name in wanted}
        assert {VOCABULARY[e].upper() for e in record.electrodes} == wanted


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
    raw, windows = found[14].open()
    assert found[14].subject == "15" and raw.info["sfreq"] == 1000 and len(windows) == 52
    assert {w.label for w in windows} == {"negative"}
    begin, end = found[14].span
    samples = raw.get_data(["CB1"], round(begin * 1000), round((begin + 2) * 1000)) * 1e6
    np.testing.assert_allclose(samples[0], make("negative", 66, 209, 1000, 0)[57 + 2, :2000], atol=0.026)
    assert end - begin == 209 and not raw.get_data(["CB1"], 0, round(begin * 1000)).any()


def test_a_window_of_tuev_is_five_seconds_round_its_event(trees):
    found = list(load_task("tuev").recordings(trees["tuev"]))
    _, windows = found[0].open()
    assert [w.onset for w in windows] == [7 * k + 1.0 for k in range(12)] and {w.duration for w in windows} == {5}


def test_near_an_end_of_the_recording_a_window_of_tuev_is_moved_inside(trees, tmp_path):
    edited(trees["tuev"], "tuev", tmp_path / "in", "*.rec", append("3,0.4,1.4,1\n3,83.0,84.0,2\n"))
    _, windows = next(iter(load_task("tuev").recordings(tmp_path / "in"))).open()
    assert [(w.onset, w.label) for w in windows[-2:]] == [(0, "spsw"), (79, "gped")]


def test_official_split_is_in_the_manifest(trees, tmp_path):
    prepare.prepare_task(load_task("workload"), trees["workload"], tmp_path / "out", way="official")
    manifest = open_shards(tmp_path / "out" / "windows" / "train").manifest
    assert manifest["split_by"] == {"way": "official", "seed": 0} and manifest["records"] == 10 * 29


def edited(tree, name, to, pattern, change):
    """A copy of a tree in which ``change(file)`` was called for the first file of a pattern."""
    shutil.copytree(tree, to)
    file = sorted(to.rglob(pattern))[0]
    change(file)
    return file


def append(text):
    return lambda file: file.write_text(file.read_text() + text)


def replace(old, new):
    def change(file):
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("name", "pattern", "change", "message"),
    [
        ("tuev", "*.rec", lambda file: file.unlink(), "its label file bckg_000_a_.rec is missing"),
        ("tusl", "*.tse_agg", lambda file: file.unlink(), "its label file .*.tse_agg is missing"),
        ("hmc", "*.txt", lambda file: file.unlink(), "its label file SN001_sleepscoring.txt is missing"),
        ("tuev", "*.rec", append("3,5.0,6.0,7\n"), r"bckg_000_a_.rec: line 13: label 7 is none of 1 to 6"),
        ("tuev", "*.rec", append("3,5.0\n"), r"line 13 is not 'channel,start,stop,label'"),
        ("tuev", "*.rec", append("3,500.0,501.0,1\n"), "its labels want seconds 498 to 503, it has 0 to 84"),
        ("tusl", "*.tse_agg", append("1.0 11.0 spik 1.0\n"), "line 9: label 'spik' is none of bckg, seiz, slow"),
        ("tusl", "*.tse_agg", append("100.0 110.0 slow 1.0\n"), "its labels want seconds 100 to 110, it has 0 to 72"),
        ("hmc", "*.txt", replace("Sleep stage R", "Sleep stage X"), "'Sleep stage X' is none of W, N1, N2, N3, R"),
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


def edf(names, rate, seconds):
    return lambda file: small_sets.write_edf(
        file, names, rate, 20 * np.random.default_rng(0).standard_normal((len(names), rate * seconds))
    )


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
        ("seed_iv", "*.mat", lambda file: file.write_bytes(b"MATLAB 5.0" + bytes(500)), "cannot be read as MATLAB's"),
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


def test_a_file_of_ones_own_is_a_task(tmp_path):
    """The example of docs/tasks.md, as it stands there."""
    import pathlib

    text = (pathlib.Path(__file__).parents[1] / "docs" / "tasks.md").read_text()
    [example] = [block for block in text.split("```python\n")[1:] if "TASK = Task(" in block]
    example = example.split("```")[0]
    assert example.count("\n") <= 45
    (tmp_path / "nback.py").write_text(example)
    for i in range(6):
        for label in ("easy", "hard"):
            edf(["Fp1", "Cz"], 250, 9 + i)(tmp_path / "in" / f"S{i:02d}_{label}.edf")
    task = load_task(str(tmp_path / "nback.py"))
    # The same noise under two labels is a copy, which is left out.
    prepare.prepare_task(task, tmp_path / "in", tmp_path / "out")
    assert open_shards(tmp_path / "out" / "windows" / "train").manifest["records"] > 0
    (tmp_path / "none.py").write_text("x = 1\n")
    for name, message in (("none.py", "defines no TASK"), ("missing.py", "no such file")):
        with pytest.raises(UserError, match=message):
            load_task(str(tmp_path / name))
