"""The seven downstream sets, from files in their published formats to labelled windows."""

import collections
import dataclasses
import functools
import shutil
import sys

import edfio
import mne
import numpy as np
import pytest
import small_sets
from scipy.signal import welch

from neurolm_jax import prepare
from neurolm_jax.corpus import build
from neurolm_jax.corpus.excluded import Excluded, excluded
from neurolm_jax.data import guard, shards
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.electrodes import VOCABULARY
from neurolm_jax.eeg.identity import recording_hash
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.records import decode
from neurolm_jax.eeg.tasks import Opened, Recording, Window, load_task, seed
from neurolm_jax.eeg.tasks.base import SPLITS
from neurolm_jax.eeg.tasks.readers import read_raw
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
    (tmp_path / "few.py").write_text("from neurolm_jax.eeg.tasks import Task\nTASK = Task(name='x')\n")
    (tmp_path / "torn.py").write_text("TASK = (\n")
    (tmp_path / "lost.py").write_text("x = 1\nopen('/nowhere')\n")
    later = "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int\n"
    (tmp_path / "later.py").write_text(later + example)
    assert load_task(str(tmp_path / "later.py")).name == task.name
    faults = {
        "none.py": "defines no TASK",
        "missing.py": "no such file",
        "few.py": "few.py:2: TypeError",
        "torn.py": "SyntaxError",
        "lost.py": "lost.py:2: FileNotFoundError",
    }
    for name, message in faults.items():
        with pytest.raises(UserError, match=message):
            load_task(str(tmp_path / name))


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
    """MNE resamples slower channels stretch by stretch: the hash must not depend on who reads."""
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
    assert not np.array_equal(raw.get_data(["Cz"], 0, 64000)[:, :60000], raw.get_data(["Cz"], 0, 60000))


@pytest.mark.parametrize(
    ("name", "pattern", "content", "message"),
    [
        ("seed_iv", "*.mat", b"", r"1_20160501.mat: cannot be read \(MatReadError"),
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


def edited_task(change):
    """Workload with every recording's ``(raw, windows)`` changed."""
    task = load_task("workload")

    def recordings(path):
        for recording in task.recordings(path):
            opened = functools.partial(Opened, *change(*recording.open()[:2]))
            yield dataclasses.replace(recording, open=opened)

    return dataclasses.replace(task, recordings=recordings)


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


def test_a_folder_split_otherwise_is_not_taken_for_what_is_asked(trees, tmp_path, monkeypatch, capsys):
    def run(*arguments):
        line = ["prepare", "task", "workload", str(trees["workload"]), "--out", str(tmp_path / "out"), *arguments]
        monkeypatch.setattr(sys, "argv", line)
        prepare.main()
        return capsys.readouterr().out

    # The first 52 files are all that are here.
    assert "empty: there is nothing to read from the test part" in run("--split", "official")
    assert "already prepared" in run("--split", "official")
    for other in ("--split=subject", "--seed=1"):
        with pytest.raises(UserError, match="prepared with --split official; remove the folder"):
            run(other)
    # It draws nothing, so no seed is taken, nor told.
    with pytest.raises(UserError, match="--seed: --split official has no choice of subjects"):
        run("--split=official", "--seed=0")


@pytest.fixture
def command(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
        prepare.main()
        return capsys.readouterr().out

    return run


def test_a_corpus_of_other_inputs_or_options_is_not_taken_for_what_is_asked(trees, tmp_path, command, monkeypatch):
    hmc, out = trees["hmc"], ("--out", tmp_path / "eeg")
    command("eeg", hmc, *out, "--mains", 50, "--source", "sleep")
    for other, message in (
        ((hmc, "--mains", 60, "--source", "sleep"), "prepared with --mains 50; remove the folder, or give another"),
        ((hmc, "--mains", 50), "prepared with --source sleep; remove the folder"),
        ((hmc, trees["workload"], "--source", "sleep"), f"prepared from {hmc}; remove the folder"),
    ):
        with pytest.raises(UserError, match=message):
            command("eeg", *other, *out)
    monkeypatch.chdir(hmc.parent)  # the same inputs, told otherwise; and whatever mains were found
    for given in ((hmc.name, "--mains", 50), (hmc,)):
        assert "already prepared" in command("eeg", *given, *out, "--source", "sleep")


@pytest.mark.parametrize("flag", ["--skip_faulty", "--skip-faulty"])
def test_flags_are_written_with_underscores_and_one_also_as_it_was(trees, tmp_path, command, monkeypatch, flag):
    found = []
    monkeypatch.setattr(prepare, "prepare_task", lambda *_, **options: found.append(options["skip_faulty"]))
    command("task", "hmc", trees["hmc"], "--out", tmp_path / "out", flag)
    command("task", "hmc", trees["hmc"], "--out", tmp_path / "out")
    assert found == [True, False]


def used(folder):
    return {r["name"] for r in shards.read_manifest(folder)["recordings"] if r["outcome"] == "used"}


def test_what_is_there_is_not_taken_for_what_is_asked(trees, prepared, tmp_path, command):
    task = "task", "tusl", trees["tusl"], "--seed=7", "--out", tmp_path / "a" / "task"
    corpus = "eeg", trees["hmc"], "--out", tmp_path / "b" / "eeg"
    exclude = {task: f"tusl={prepared / 'tusl'}", corpus: f"hmc={prepared / 'hmc'}"}
    for arguments in (task, corpus):
        command(*arguments)
        with pytest.raises(
            UserError, match="prepared without regard to .*, (a recording of|subject .* is in) (tusl|hmc)"
        ):
            command(*arguments, "--exclude", exclude[arguments])
        shutil.rmtree(arguments[-1])
        command(*arguments, "--exclude", exclude[arguments])
        assert "already prepared" in command(*arguments, "--exclude", exclude[arguments])
        assert "already prepared" in command(*arguments)
    with pytest.raises(UserError, match="holds tusl, not hmc; remove the folder"):
        command("task", "hmc", trees["hmc"], "--out", tmp_path / "a" / "task")
    with pytest.raises(UserError, match="holds eeg, not hmc"):
        command("task", "hmc", trees["hmc"], "--out", tmp_path / "b" / "eeg")
    # A set that was prepared beside a corpus after it.
    command("eeg", trees["hmc"], "--out", tmp_path / "c" / "eeg")
    shutil.copytree(prepared / "hmc", tmp_path / "c" / "hmc")
    with pytest.raises(UserError, match="prepared without regard to"):
        command("eeg", trees["hmc"], "--out", tmp_path / "c" / "eeg")


def test_all_that_is_excluded_is_left_out(trees, prepared, tmp_path, command):
    """Named in one option or in several, with one name or with several, beside the corpus or elsewhere."""
    files = sorted(trees["hmc"].rglob("SN???.edf"))[:4] + sorted(trees["workload"].rglob("*_1.edf"))[:4]
    for place, file in enumerate(files):
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "in" / f"{place}.edf")
    parts = {}
    for name, place in (("hmc", 0), ("workload", 4)):  # one recording of each is tested on
        raw = read_raw(tmp_path / "in" / f"{place}.edf")
        manifest = {"kind": "task", "split": "test", "cohort": name, "recordings": [{"hash": recording_hash(raw)}]}
        parts[name] = tmp_path / "sets" / name
        shards.write(parts[name] / "windows" / "test", [], manifest)
    shards.write(tmp_path / "sets" / "text" / "validation", [], {"kind": "text", "split": "validation"})
    both = [f"{name}={folder}" for name, folder in parts.items()]
    ways = {
        "several": ["--exclude", *both],
        "again": [word for pair in both for word in ("--exclude", pair)],
        "alike": ["--exclude", f"x={parts['hmc']}", f"x={parts['workload']}"],
        "all": ["--exclude", f"x={tmp_path / 'sets'}"],  # text there is no matter
        "address": ["--exclude", f"x=file://{tmp_path / 'sets'}"],
    }
    for way, options in ways.items():
        command("eeg", tmp_path / "in", "--out", tmp_path / way / "eeg", *options)
        assert used(tmp_path / way / "eeg") == {"1.edf", "2.edf", "3.edf", "5.edf", "6.edf", "7.edf"}, way
    shutil.copytree(parts["hmc"], tmp_path / "beside" / "x")
    command("eeg", tmp_path / "in", "--out", tmp_path / "beside" / "eeg", "--exclude", f"x={parts['workload']}")
    assert len(used(tmp_path / "beside" / "eeg")) == 6
    with pytest.raises(UserError, match="x: no test or validation part of a task among"):
        command("eeg", tmp_path / "in", "--out", tmp_path / "z", "--exclude", f"x={tmp_path / 'sets' / 'text'}")


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


def test_a_set_without_a_window_is_refused(trees, tmp_path):
    lost = dataclasses.replace(load_task("workload"), rates=(1.0,))
    with pytest.raises(UserError, match="no labelled window in any of its 10 recordings"):
        prepare.prepare_task(lost, trees["workload"], tmp_path / "out", skip_faulty=True)
    assert not (tmp_path / "out").exists()
