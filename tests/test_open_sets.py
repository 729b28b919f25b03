"""The open sets as tasks, from small files in their published layouts."""

import collections
import csv
import gzip
import shutil

import edfio
import numpy as np
import pytest
from edited_sets import edited, replace

from neurolm_jax import prepare
from neurolm_jax.data import shards
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.electrodes import VOCABULARY, electrode_id
from neurolm_jax.eeg.records import decode
from neurolm_jax.eeg.tasks import eegmmidb, guinea_bissau, load_task, mdd
from neurolm_jax.eeg.tasks.base import SPLITS
from neurolm_jax.errors import UserError

# The 64 electrodes of EEGMMIDB in the order and spelling of its files.
SIXTY_FOUR = """
Fc5. Fc3. Fc1. Fcz. Fc2. Fc4. Fc6. C5.. C3.. C1.. Cz.. C2.. C4.. C6.. Cp5. Cp3. Cp1. Cpz. Cp2. Cp4. Cp6.
Fp1. Fpz. Fp2. Af7. Af3. Afz. Af4. Af8. F7.. F5.. F3.. F1.. Fz.. F2.. F4.. F6.. F8.. Ft7. Ft8. T7.. T8.. T9.. T10.
Tp7. Tp8. P7.. P5.. P3.. P1.. Pz.. P2.. P4.. P6.. P8.. Po7. Po3. Poz. Po4. Po8. O1.. Oz.. O2.. Iz..
""".split()
HERTZ = {"left": 7, "right": 15, "left fist": 7, "right fist": 15, "both fists": 22, "both feet": 31}
HERTZ |= {"depressed": 6, "healthy": 11, "epilepsy": 5, "control": 12}
STAGE_HERTZ = {"W": 4, "1": 8, "2": 13, "3": 20, "4": 20, "R": 30, "?": 17, "M": 17}
STAGE_OF = {"1": "N1", "2": "N2", "3": "N3", "4": "N3", "W": "W", "R": "R"}


def rhythm(hertz, channels, seconds, rate, seed):
    """Noise of 5 microvolts and a rhythm of 30."""
    time = np.arange(round(seconds * rate)) / rate
    noise = 5 * np.random.default_rng(seed).standard_normal((channels, len(time)))
    return 30 * np.sin(2 * np.pi * hertz * time) + noise


def write_edf(file, names, rate, samples, annotations):
    file.parent.mkdir(parents=True, exist_ok=True)
    limits = {"physical_dimension": "uV", "physical_range": (-3276.8, 3276.7)}
    signals = [edfio.EdfSignal(x, rate, label=name, **limits) for name, x in zip(names, samples)]
    edfio.Edf(signals, annotations=[edfio.EdfAnnotation(*each) for each in annotations]).write(file)


def write_run(file, labels, rate=160, cue=4.1, last=4.9, seed=0):
    """T0 for 4.2 s, then a cue, again and again; ``last``: seconds that the last cue lasts."""
    parts, annotations, onset = [], [], 0.0
    for k, label in enumerate(labels):
        seconds = last if k == len(labels) - 1 else cue
        annotations += [(onset, 4.2, "T0"), (onset + 4.2, seconds, "T1" if k % 2 == 0 else "T2")]
        parts += [rhythm(40, 64, 4.2, rate, seed + k), rhythm(HERTZ[label], 64, seconds, rate, seed + 10 + k)]
        onset += 4.2 + seconds
    samples = np.hstack(parts)
    write_edf(file, SIXTY_FOUR, rate, samples[:, : samples.shape[1] // rate * rate], annotations)


def write_eegmmidb(root):
    for number in (1, 70, 71, 89, 90, 109, 88):
        for run in (1, 3, 4, 5):
            pair = {3: ("left fist", "right fist"), 5: ("both fists", "both feet")}.get(run, ("left", "right"))
            rate, cue = (128, 5.1) if number == 88 else (160, 4.1)
            file = root / f"S{number:03d}" / f"S{number:03d}R{run:02d}.edf"
            write_run(file, pair * 2, rate, cue, seed=10_000 * number + 100 * run)
    return root


def write_mdd(root):
    """Three ill, three healthy; MDD S3 is MDD S1 once more, and H S3 has one file of H S2 and one of its own."""
    names = [f"EEG {name}-LE" for name in mdd.ELECTRODES] + ["EEG A2-A1", "EEG 23A-23R"]
    for group, label in (("MDD", "depressed"), ("H", "healthy")):
        for number in (1, 2, 3, 4, 5):
            for condition in ("EC", "EO", "TASK"):
                space = "  " if number == 2 else " "
                seed = 1000 * len(group) + 100 * number + ord(condition[1])
                samples = rhythm(HERTZ[label], 21, 35, 256, seed)
                write_edf(root / f"{group} S{number}{space}{condition}.edf", names, 256, samples, [])
    for condition in ("EC", "EO"):
        shutil.copy(root / f"MDD S1 {condition}.edf", root / f"MDD S3 {condition}.edf")
    shutil.copy(root / "H S2  EC.edf", root / "H S3 EC.edf")
    (root / "H S5 EO.edf").rename(root / "6921143_H S5 EO.edf")
    shutil.copy(root / "6921143_H S5 EO.edf", root / "6921959_H S5 EO.edf")
    return root


def write_guinea_bissau(root):
    (root / "EEGs_Guinea-Bissau").mkdir(parents=True)
    rows = []
    for number in range(1, 11):
        group = ("Epilepsy", "Control")[number % 2]
        offsets = 4200 + 20 * np.arange(14)[:, None]
        samples = offsets + rhythm(HERTZ[group.lower()], 14, 25, 128, number)
        with gzip.open(root / "EEGs_Guinea-Bissau" / f"signal-{number}.csv.gz", "wt", newline="") as file:
            table = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
            table.writerow(["", *guinea_bissau.ELECTRODES, "COUNTER", "GYROX"])
            table.writerows([str(k + 1), *column, k % 129, 1555] for k, column in enumerate(samples.T.tolist()))
        rows.append(f"{number},{group},closed-3min-then-open-2min,NA,25,27-05-2020 14:33\n")
    header = "subject.id,Group,Eyes.condition,Remarks,recordedPeriod,startTime\n"
    (root / "metadata_guineabissau.csv").write_text(header + "".join(rows))
    return root


NIGHT = "?" + "W" * 70 + "11" + "2234" + "M" + "R?" + "2" + "W" * 65 + "?"  # an epoch a letter


def write_sleep_edf(root, night=NIGHT):
    """Five people, the first of them in two nights, and a night of the telemetry half."""
    names = ["EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal", "EMG submental"]
    stems = ["sleep-cassette/SC4001E", "sleep-cassette/SC4002E", "sleep-telemetry/ST7011J"]
    stems += [f"sleep-cassette/SC4{number:02d}1E" for number in (1, 2, 41)]
    for seed, stem in enumerate(stems):
        parts = [rhythm(STAGE_HERTZ[letter], 4, 30, 100, 1000 * seed + k) for k, letter in enumerate(night)]
        write_edf(root / f"{stem}0-PSG.edf", names, 100, np.hstack(parts), [])
        annotations, begin = [], 0
        for k in range(1, len(night) + 1):
            if k == len(night) or night[k] != night[begin]:
                text = "Movement time" if night[begin] == "M" else f"Sleep stage {night[begin]}"
                annotations.append((30 * begin, 30 * (k - begin), text))
                begin = k
        if night[-1] == "?":  # reaches beyond the end of the recording, as in the set
            annotations[-1] = (annotations[-1][0], 9000, annotations[-1][2])
        edfio.Edf([], annotations=[edfio.EdfAnnotation(*a) for a in annotations]).write(root / f"{stem}C-Hypnogram.edf")
    return root


WRITERS = {
    "eegmmidb": write_eegmmidb,
    "mdd": write_mdd,
    "guinea_bissau": write_guinea_bissau,
    "sleep_edf": write_sleep_edf,
}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("open")
    found = {name: write(root / name) for name, write in WRITERS.items()}
    return found | {"eegmmidb_moved": found["eegmmidb"]}


@pytest.fixture(scope="module")
def prepared(trees, tmp_path_factory):
    out = tmp_path_factory.mktemp("tasks")
    for name, tree in trees.items():
        prepare.prepare_task(load_task(name), tree, out / name)
    return out


def manifests(folder):
    return {split: shards.read_manifest(folder / "windows" / split) for split in SPLITS}


def windows(folder):
    for split in SPLITS:
        part = open_shards(folder / "windows" / split)
        for i in range(len(part.source)):
            yield split, decode(part.source[i])


@pytest.mark.parametrize(
    ("name", "electrodes", "seconds", "counts"),
    [
        # Six people with one run of two cues each way; the last window of 4 s lies inside a cue of 4.2 s.
        ("eegmmidb", 21, 4, {"left": 12, "right": 12}),
        ("eegmmidb_moved", 21, 4, {"left fist": 12, "right fist": 12, "both fists": 12, "both feet": 12}),
        # Of 35 s three windows; of 10 people's 20 recordings at rest 3 are copies, and a 21st is one too.
        ("mdd", 19, 10, {"depressed": 3 * 8, "healthy": 3 * 9}),
        ("guinea_bissau", 14, 10, {"epilepsy": 10, "control": 10}),
        # In each of six nights: 60 epochs of wake on each side, of the 70 and 65 that there are.
        ("sleep_edf", 2, 30, {"W": 6 * 120, "N1": 12, "N2": 18, "N3": 12, "R": 6}),
    ],
)
def test_windows_hold_what_their_label_says(prepared, name, electrodes, seconds, counts):
    found = collections.Counter()
    wanted = {electrode_id(channel) for channel in load_task(name).channels}
    hertz = HERTZ | {STAGE_OF[letter]: value for letter, value in STAGE_HERTZ.items() if letter in STAGE_OF}
    for _, record in windows(prepared / name):
        found[record.label] += 1
        assert record.samples.shape == (electrodes, 200 * seconds) and set(record.electrodes) == wanted
        # The middle, where a filter sees no neighbour: a rhythm of 30 microvolts, and of offsets (4200 in one set) only
        # what the slowest waves of the noise leave.
        middle = record.samples[:, 200:-200]
        power = np.abs(np.fft.rfft(middle.mean(0)))
        frequency = np.fft.rfftfreq(middle.shape[1], 1 / 200)[power.argmax()]
        assert abs(frequency - hertz[record.label]) < 0.3, (record.recording, record.start)
        assert 19 < middle.std() < 24 and np.abs(middle.mean(1)).max() < 20
    assert found == counts


@pytest.mark.parametrize("name", ["eegmmidb", "eegmmidb_moved", "mdd", "guinea_bissau", "sleep_edf"])
def test_no_person_and_no_copy_is_on_two_sides(prepared, name):
    sides, hashes = collections.defaultdict(set), []
    for split, manifest in manifests(prepared / name).items():
        for recording in manifest["recordings"]:
            sides[recording["subject"]].add(split)
            hashes += [recording["hash"]] if recording["outcome"] == "used" else []
    assert all(len(splits) == 1 for splits in sides.values())
    assert len(set(hashes)) == len(hashes)
    assert all(manifest["records"] for manifest in manifests(prepared / name).values())


def reasons(folder):
    recordings = [r for manifest in manifests(folder).values() for r in manifest["recordings"]]
    return {r["name"]: r["reason"] for r in recordings if r["outcome"] == "skipped"}


def test_copies_in_mdd_are_told_and_make_one_person(prepared):
    assert reasons(prepared / "mdd") == {
        "6921959_H S5 EO": "a copy of 6921143_H S5 EO",
        "H S3 EC": "a copy of H S2  EC",
        "MDD S3 EC": "a copy of MDD S1 EC",
        "MDD S3 EO": "a copy of MDD S1 EO",
    }
    subjects = {r["name"]: r["subject"] for m in manifests(prepared / "mdd").values() for r in m["recordings"]}
    # What H S3 has of its own is of the same person: on another side it would tell what was learnt.
    assert subjects["H S3 EO"] == subjects["H S2  EO"] == "H2" and subjects["MDD S3 EO"] == "MDD1"
    assert not any("TASK" in name for name in subjects)


def test_names_without_spaces_are_read_alike(trees, tmp_path):
    files = {"MDDS1EC.edf": "MDD S1 EC.edf", "HS10EO.edf": "H S4 EO.edf", "MDDS12EC.edf": "MDD S4 EC.edf"}
    for name, source in files.items():
        shutil.copy(trees["mdd"] / source, tmp_path / name)
    found = {r.name: r.subject for r in load_task("mdd").recordings(tmp_path)}
    assert found == {"HS10EO": "H10", "MDDS12EC": "MDD12", "MDDS1EC": "MDD1"}


def test_people_of_eegmmidb_are_split_by_number_and_three_left_out(prepared):
    split = {}
    for name in ("eegmmidb", "eegmmidb_moved"):
        for part, manifest in manifests(prepared / name).items():
            split |= {r["subject"]: part for r in manifest["recordings"]}
            assert manifest["cohort"] == "eegmmidb"
    people = {"train": ("S001", "S070"), "validation": ("S071", "S088", "S089"), "test": ("S090", "S109")}
    assert split == {person: part for part, numbers in people.items() for person in numbers}
    reason = "its rate and the timing of its cues are not those of the set"
    assert reasons(prepared / "eegmmidb") == {"S088R04": reason}
    assert reasons(prepared / "eegmmidb_moved") == {"S088R03": reason, "S088R05": reason}


def test_a_window_of_eegmmidb_begins_with_its_cue(trees, tmp_path):
    found = {r.name: r for r in load_task("eegmmidb").recordings(trees["eegmmidb"])}
    assert [(w.onset, w.label) for w in found["S001R04"].open().windows] == [
        (pytest.approx(4.2 + 8.3 * k), ("left", "right")[k % 2]) for k in range(4)
    ]
    assert all(electrode_id(name) is not None for name in SIXTY_FOUR)
    assert {VOCABULARY[electrode_id(name)] for name in SIXTY_FOUR[:21]} == set(eegmmidb.ELECTRODES)
    # A run that was stopped one second into its last cue.
    write_run(tmp_path / "S002R04.edf", ("left", "right", "left"), last=1.2)
    [short] = load_task("eegmmidb").recordings(tmp_path)
    assert [w.label for w in short.open().windows] == ["left", "right"]


def test_a_night_begins_half_an_hour_before_sleep(trees):
    found = {r.name: r for r in load_task("sleep_edf").recordings(trees["sleep_edf"])}
    assert {name: r.subject for name, r in found.items()} == {
        "SC4001E0": "SC400",
        "SC4002E0": "SC400",
        "SC4011E0": "SC401",
        "SC4021E0": "SC402",
        "SC4411E0": "SC441",
        "ST7011J0": "ST701",
    }
    raw, epochs, _ = found["SC4001E0"].open()
    # Sleep is from epoch 71 to 80; what is used is 60 epochs more on each side.
    assert raw.n_times == 100 * 30 * (60 + 10 + 60) and raw.first_time == pytest.approx(30 * 11)
    stages = [(round(w.onset / 30), w.label) for w in epochs]
    inside = [(60, "N1"), (61, "N1"), (62, "N2"), (63, "N2"), (64, "N3"), (65, "N3"), (67, "R"), (69, "N2")]
    assert stages == [(k, "W") for k in range(60)] + inside + [(k, "W") for k in range(70, 130)]


def test_sleep_at_an_end_of_the_recording_has_less_wake_around_it(tmp_path):
    write_sleep_edf(tmp_path, night="W" * 3 + "2R")
    for recording in load_task("sleep_edf").recordings(tmp_path):
        raw, epochs, _ = recording.open()
        assert raw.n_times == 100 * 30 * 5 and [w.label for w in epochs] == ["W", "W", "W", "N2", "R"]


def uncued(file):
    write_edf(file, SIXTY_FOUR, 160, np.zeros((64, 1600)), [])


def csv_of(names):
    def change(file):
        with gzip.open(file, "wt") as out:
            out.write(",".join(f'"{name}"' for name in names) + "\n" + ",".join(["x"] * len(names)) + "\n")

    return change


@pytest.mark.parametrize(
    ("name", "pattern", "change", "message"),
    [
        ("eegmmidb", "S001R04.edf", uncued, "S001R04.edf: has no cue T1 or T2"),
        ("eegmmidb", "S001R04.edf", lambda f: write_run(f, ("left",), 128), "sampled at 128 Hz; the recordings of"),
        ("eegmmidb", "S001R04.edf", lambda f: f.rename(f.with_name("S1R4.edf")), "is not called SNNNRNN.edf"),
        ("mdd", "MDD S1 EC.edf", lambda f: f.rename(f.with_name("X S1 EC.edf")), "which tells its label"),
        ("mdd", "MDD S1 EC.edf", lambda f: f.write_bytes(f.read_bytes()[:400]), "MDD S1 EC.edf: cannot be read"),
        ("guinea_bissau", "metadata*", replace("5,Control", "5,Unknown"), "line 6 has no subject.id, or a Group"),
        ("guinea_bissau", "metadata*", replace("\n5,", "\n55,"), "subject 5 is not in metadata_guineabissau.csv"),
        ("guinea_bissau", "metadata*", lambda f: f.unlink(), "holds no list of subjects"),
        ("guinea_bissau", "*-5.csv.gz", csv_of(["", "AF3", "AF4"]), "signal-5.csv.gz: has no column F3, F4"),
        ("guinea_bissau", "*-5.csv.gz", csv_of(["", *guinea_bissau.ELECTRODES]), "signal-5.csv.gz: cannot be read"),
        ("guinea_bissau", "*-5.csv.gz", lambda f: f.write_bytes(b"no"), "signal-5.csv.gz: cannot be read"),
        ("sleep_edf", "SC4001*Hyp*", lambda f: f.unlink(), "label file SC4001E.-Hypnogram.edf is missing"),
        ("sleep_edf", "SC4001*Hyp*", lambda f: f.write_bytes(b"0" * 300), "SC4001EC-Hypnogram.edf: has no annotation"),
        ("sleep_edf", "SC4001*PSG*", lambda f: f.rename(f.with_name("SX-PSG.edf")), "which tells person and night"),
    ],
)
def test_faults_are_named_in_one_line(trees, tmp_path, name, pattern, change, message):
    edited(trees[name], name, tmp_path / "in", pattern, change)
    with pytest.raises(UserError, match=message) as error:
        prepare.prepare_task(load_task(name), tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [("Sleep stage X", "'Sleep stage X' is none of Sleep stage W"), ("Sleep stage W", "no epoch of sleep")],
)
def test_hypnograms_of_other_stages_are_refused(trees, tmp_path, text, message):
    def change(file):
        edfio.Edf([], annotations=[edfio.EdfAnnotation(0, 60, text)]).write(file)

    edited(trees["sleep_edf"], "sleep_edf", tmp_path / "in", "SC4001*Hyp*", change)
    with pytest.raises(UserError, match=message):
        prepare.prepare_task(load_task("sleep_edf"), tmp_path / "in", tmp_path / "out")


def test_folders_without_the_runs_asked_for_are_refused(trees, tmp_path):
    for file in trees["eegmmidb"].rglob("*R04.edf"):
        shutil.copy(file, tmp_path)
    with pytest.raises(UserError, match="holds no recording of runs 3, 7, 11, 5, 9, 13 of EEGMMIDB"):
        list(load_task("eegmmidb_moved").recordings(tmp_path))
    with pytest.raises(UserError, match="holds no recording of Sleep-EDF"):
        list(load_task("sleep_edf").recordings(tmp_path))
