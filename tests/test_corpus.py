"""Directories of recordings into shards: what is kept, what is left out and why; no run loses or repeats any."""

import json
import os
import pathlib
import re
import signal
import struct
import subprocess

import edfio
import mne
import numpy as np
import pytest

from neurolm_jax.corpus import build, parts, recording, sources
from neurolm_jax.corpus.excluded import excluded
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.electrodes import VOCABULARY
from neurolm_jax.eeg.identity import recording_hash
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.records import decode
from neurolm_jax.errors import UserError

SETTINGS = Preprocessing(mains=50.0)
NAMES = ("EEG FP1-REF", "EEG C3-REF", "EEG T3-REF", "EKG1")


def noise(seed, seconds=20, rate=250, channels=4):
    """Brown noise of 20 microvolts."""
    x = np.random.default_rng(seed).standard_normal((channels, seconds * rate)).cumsum(axis=1)
    x -= np.linspace(x[:, 0], x[:, -1], x.shape[1], axis=1)
    return 20 * x / x.std(axis=1, keepdims=True)


def write_edf(path, x, rate=250, names=NAMES):
    path.parent.mkdir(parents=True, exist_ok=True)
    limits = float(np.abs(x).max()) + 1
    kinds = {"physical_dimension": "uV", "physical_range": (-limits, limits)}
    edfio.Edf([edfio.EdfSignal(s, rate, label=name, **kinds) for s, name in zip(x, names)]).write(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Six good recordings, one of them twice, and two that are none."""
    for i in range(6):
        write_edf(tmp_path / "in" / f"{i}.edf", noise(i))
    write_edf(tmp_path / "in" / "again" / "copy.edf", noise(2))
    (tmp_path / "in" / "broken.edf").write_bytes(b"0" * 900)
    write_edf(tmp_path / "in" / "heart.edf", noise(9), names=("ECG1", "ECG2", "EMG", "SaO2"))
    return tmp_path / "in"


def outcomes(manifest):
    return {r["name"]: r["reason"] for r in manifest["recordings"]}


def test_every_recording_is_accounted_for(folder, tmp_path):
    manifest = build.build([folder], tmp_path / "out", SETTINGS, "corpus")
    found = outcomes(manifest)
    used = [f"{i}.edf" for i in range(6)]
    assert [name for name, reason in found.items() if reason is None] == used
    assert found["again/copy.edf"] == "a copy of 2.edf"
    assert "cannot be read" in found["broken.edf"] and "none of its 4 channels" in found["heart.edf"]
    np.testing.assert_allclose(manifest["hours"], 6 * 20 / 3600)
    assert not list(tmp_path.glob(".*"))
    opened = open_shards(tmp_path / "out")
    records = [decode(opened.source[i]) for i in range(len(opened.source))]
    assert list(dict.fromkeys(r.recording for r in records)) == used
    assert {r.electrodes for r in records} == {tuple(map(VOCABULARY.index, ("FP1", "C3", "T7")))}
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


def test_a_stopped_run_goes_on_and_ends_the_same(folder, tmp_path, monkeypatch):
    whole = build.build([folder], tmp_path / "whole", SETTINGS, "corpus")
    made, make = [], parts.make

    def counted(source, **rest):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(source.name)
        return make(source, **rest)

    monkeypatch.setattr(parts, "make", counted)
    with pytest.raises(KeyboardInterrupt):
        build.build([folder], tmp_path / "out", SETTINGS, "corpus")
    assert not (tmp_path / "out").exists()
    before, made[:] = list(made), []
    with pytest.raises(UserError, match="unfinished work with other settings"):
        build.build([folder], tmp_path / "out", Preprocessing(mains=60.0), "corpus")
    monkeypatch.setattr(parts, "make", lambda source, **rest: made.append(source.name) or make(source, **rest))
    again = build.build([folder], tmp_path / "out", SETTINGS, "corpus")
    assert len(before) == 4 and not set(before) & set(made) and len(before + made) == 9
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in whole.items() if k != "seconds"}


def stopped_before_the_end(monkeypatch, inputs, out, settings=SETTINGS):
    """A run all of whose recordings are done, but no shard."""
    with monkeypatch.context() as patch:
        patch.setattr(build, "_merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build.build(inputs, out, settings, "corpus")


def test_what_a_mended_sidecar_tells_is_heeded_when_a_run_goes_on(tmp_path, monkeypatch):
    root, place = tmp_path / "in", tmp_path / "in" / "sub-01" / "eeg"
    for run in ("1", "2"):
        write_edf(place / f"sub-01_run-{run}_eeg.edf", noise(int(run)), names=("Fp1", "C3", "T3", "O1"))
    (root / "dataset_description.json").write_text("{}")
    (place / "sub-01_run-1_eeg.json").write_text("{")
    stopped_before_the_end(monkeypatch, [root], tmp_path / "out", Preprocessing())
    (place / "sub-01_run-1_eeg.json").write_text('{"PowerLineFrequency": 60}')
    (place / "sub-01_run-2_channels.tsv").write_text("name\tstatus\nC3\tbad\n")
    found = build.build([root], tmp_path / "out", Preprocessing(), "corpus")["recordings"]
    assert [(r["outcome"], r["mains"]) for r in found] == [("used", 60.0), ("used", None)]
    assert found[1]["left_out"] == {"C3": "marked bad"}


def test_a_recording_that_was_replaced_by_one_of_its_size_is_read_again(tmp_path, monkeypatch):
    """And one that is written to while others are read is no other than it was when it was found."""
    files = [write_edf(tmp_path / "in" / name, noise(0)) for name in ("a.edf", "b.edf")]
    files[0].write_bytes(b"0" * files[0].stat().st_size)
    stopped_before_the_end(monkeypatch, [tmp_path / "in"], tmp_path / "out")
    size = files[0].stat().st_size
    write_edf(files[0], noise(1))
    assert files[0].stat().st_size == size
    make = parts.make
    monkeypatch.setattr(parts, "make", lambda source, **rest: (make(source, **rest), os.utime(source.path))[0])
    manifest = build.build([tmp_path / "in"], tmp_path / "out", SETTINGS, "corpus")
    assert outcomes(manifest) == {"a.edf": None, "b.edf": None}


@pytest.mark.parametrize(
    ("error", "raised"), [(MemoryError(), UserError), (OSError(28, "No space left on device"), OSError)]
)
def test_no_room_says_nothing_about_a_recording(folder, tmp_path, monkeypatch, error, raised):
    def failing(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        if raised is OSError:
            patch.setattr(parts.shards.Writer, "write", failing)
        else:
            patch.setattr(recording, "read", failing)
        with pytest.raises(raised, match=f"{'0.edf: not enough memory' if raised is UserError else 'No space'}"):
            build.build([folder], tmp_path / "out", SETTINGS, "corpus")
    found = outcomes(build.build([folder], tmp_path / "out", SETTINGS, "corpus"))
    assert [name for name, reason in found.items() if reason is None] == [f"{i}.edf" for i in range(6)]


def test_a_name_that_is_no_text_costs_its_recording_alone(folder, tmp_path):
    write_edf(tmp_path / "y.edf", noise(8)).rename(os.fsdecode(os.fsencode(folder) + b"/\xff.edf"))
    found = outcomes(build.build([folder], tmp_path / "out", SETTINGS, "corpus"))
    assert "cannot be read" in found[os.fsdecode(b"\xff.edf")] and list(found.values()).count(None) == 6


@pytest.mark.parametrize("name", ["x.eeg", "X.EEG"])
def test_nihon_kohdens_files_are_known_by_their_suffix(tmp_path, name):
    (tmp_path / name).write_bytes(b"EEG-1100A V01.00" + bytes(2000))
    [source] = sources.find([tmp_path])[0]
    with pytest.raises(Exception) as told:
        recording.read(source)
    with pytest.raises(type(told.value), match=re.escape(str(told.value))):
        mne.io.read_raw_nihon(tmp_path / name, verbose="error")


def test_the_job_for_slurm_says_what_it_wants():
    script = pathlib.Path(__file__).parents[1] / "launch" / "prepare.sbatch"
    done = subprocess.run(["bash", script], capture_output=True, text=True)
    assert done.returncode == 2 and "sbatch launch/prepare.sbatch RECORDINGS OUT" in done.stderr
    assert done.stderr.count("\n") == 1


def make_and_die_once(source, folder, settings, corpus, marker):
    """A worker's process that is killed in the middle of its first recording."""
    if source.name == "3.edf" and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return parts.make(source, settings=settings, corpus=corpus, folder=folder)


def test_workers_give_the_same_and_a_killed_one_loses_nothing(folder, tmp_path, monkeypatch):
    import functools

    alone = build.build([folder], tmp_path / "alone", SETTINGS, "corpus")
    monkeypatch.setattr(parts, "make", functools.partial(make_and_die_once, marker=tmp_path / "died"))
    spread = build.build([folder], tmp_path / "spread", SETTINGS, "corpus", worker_count=2)
    assert (tmp_path / "died").exists()
    assert {k: v for k, v in spread.items() if k != "seconds"} == {k: v for k, v in alone.items() if k != "seconds"}


def test_tuh_paths_tell_subject_session_and_montage(tmp_path):
    path = "edf/000/aaaaaaaa/s001_2015/{}/aaaaaaaa_s001_t000.edf"
    for montage in ("01_tcp_ar", "02_tcp_le", "04_tcp_le_a"):
        write_edf(
            tmp_path / "tueg" / path.format(montage), noise(len(montage)), names=("EEG FP1-LE", "EEG T4-LE", "X", "Y")
        )
    found, others = sources.find([tmp_path / "tueg"])
    assert others == {}
    assert [(s.subject, s.session, s.reference) for s in found] == [
        ("aaaaaaaa", "s001_2015", "AR"),
        ("aaaaaaaa", "s001_2015", "LE"),
        ("aaaaaaaa", "s001_2015", "LE"),
    ]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("edf/train/normal/01_tcp_ar/aaaaaaaq_s004_t000.edf", ("aaaaaaaq", "s004", "AR")),
        ("edf/02_tcp_le/aaaaaaac_s002_t001.edf", ("aaaaaaac", "s002", "LE")),
        ("edf/train/aaaaaaar/aaaaaaar_00000001.edf", ("aaaaaaar", None, None)),
        ("edf/eval/000/bckg_000_a_.edf", (None, None, None)),
        ("other/visit_one_20200101.edf", (None, None, None)),
    ],
)
def test_files_of_tuab_and_tuev_tell_their_subject(tmp_path, path, told):
    write_edf(tmp_path / path, noise(0, seconds=2))
    [source] = sources.find([tmp_path])[0]
    assert (source.subject, source.session, source.reference) == told
    assert source.cohort == ("tuh" if told[0] else None)


def test_subjects_and_recordings_that_are_tested_on_are_left_out(tmp_path):
    tree = tmp_path / "tueg" / "edf" / "000"
    for i, subject in enumerate(("aaaaaaaa", "aaaaaaab", "aaaaaaac")):
        write_edf(tree / subject / "s001_2015" / "01_tcp_ar" / f"{subject}_s001_t000.edf", noise(i))
    hashes = build.build([tree], tmp_path / "all", SETTINGS, "tueg")["recordings"]
    test = {
        "split": "test",
        "cohort": "tuh",
        "recordings": [{"hash": "h", "subject": "aaaaaaaa"}, {"hash": hashes[2]["hash"]}],
    }
    train = {"split": "train", "recordings": [{"hash": hashes[1]["hash"], "subject": "aaaaaaab"}]}
    for split, manifest in (("test", test), ("train", train)):
        (tmp_path / "tuab" / "windows" / split).mkdir(parents=True)
        (tmp_path / "tuab" / "windows" / split / "manifest.json").write_text(json.dumps({"format": 1} | manifest))
    without = excluded({"tuab": sorted((tmp_path / "tuab" / "windows").iterdir())})
    manifest = build.build([tree], tmp_path / "out", SETTINGS, "tueg", without)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "manifest.json").write_text('{"format": 1, "split": "test", "recordings": []}')
    with pytest.raises(UserError, match="prepare that set again"):
        excluded({"old": [tmp_path / "old"]})
    assert [r["outcome"] for r in manifest["recordings"]] == ["excluded", "used", "excluded"]
    assert list(outcomes(manifest).values()) == ["subject aaaaaaaa is in tuab", None, "a recording of tuab"]
    assert all(r["recorded_hours"] == 20 / 3600 for r in manifest["recordings"])


def test_a_bids_tree(tmp_path):
    root = tmp_path / "bids"
    place = root / "sub-01" / "ses-a" / "eeg"
    write_edf(place / "sub-01_ses-a_task-rest_eeg.edf", noise(1), names=("Fp1", "C3", "T3", "O1"))
    (root / "dataset_description.json").write_text('{"Name": "Rest"}')
    (root / "participants.tsv").write_text("participant_id\tage\tsex\nsub-02\t30\tM\nsub-01\t44\tF\n")
    events = "onset\tduration\ttrial_type\n1.0\t0\tgo\n2.0\t0\tgo\n3.0\t0\tstop\n"
    (place / "sub-01_ses-a_task-rest_events.tsv").write_text(events)
    (root / "task-rest_eeg.json").write_text('{"PowerLineFrequency": 50}')
    (root / "task-other_eeg.json").write_text('{"PowerLineFrequency": 51}')
    (root / "sub-01" / "sub-01_task-rest_eeg.json").write_text('{"PowerLineFrequency": 60}')
    channels = "name\ttype\tunits\tstatus\nFp1\tEEG\tuV\tgood\nC3\tEEG\tuV\tbad\nT3\tEOG\tuV\tgood\nO1\tEEG\tuV\tgood\n"
    (place / "sub-01_ses-a_task-rest_channels.tsv").write_text(channels)
    assert [s.cohort for s in sources.find([root])[0]] == ["Rest"]
    manifest = build.build([root], tmp_path / "out", Preprocessing(), "bids")
    [found] = manifest["recordings"]
    assert manifest["other_files"] == {".json": 4, ".tsv": 3}
    assert found["participant"] == {"participant_id": "sub-01", "age": "44", "sex": "F"}
    assert found["events"] == {"go": 2, "stop": 1}
    assert (found["subject"], found["session"], found["channels"]) == ("01", "a", ["Fp1", "O1"])
    assert (found["mains"], found["mains_from"]) == (60.0, "sidecar")
    assert found["left_out"] == {"C3": "marked bad", "T3": "of type EOG"}
    # A sidecar does not make it another recording.
    assert found["hash"] == recording_hash(mne.io.read_raw(place / "sub-01_ses-a_task-rest_eeg.edf", verbose="error"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "sub-01_task-rest_channels.tsv",
            "name\tunits\nFp1\tµV\n".encode("latin-1"),
            "channels.tsv: not a table in UTF-8",
        ),
        ("sub-01_task-rest_eeg.json", b"{", "eeg.json: not a JSON object"),
        ("sub-01_task-rest_eeg.json", None, "eeg.json: not a JSON object .*No such file"),
    ],
)
def test_a_faulty_sidecar_costs_its_recording_alone(tmp_path, name, content, message):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "dataset_description.json").write_text("{}")
    for subject in ("01", "02"):
        write_edf(tmp_path / "in" / f"sub-{subject}/eeg/sub-{subject}_task-rest_eeg.edf", noise(int(subject)))
    sidecar = tmp_path / "in" / "sub-01" / "eeg" / name
    if content is None:
        sidecar.symlink_to("not/fetched")
    else:
        sidecar.write_bytes(content)
    found = build.build([tmp_path / "in"], tmp_path / "out", SETTINGS, "c")["recordings"]
    assert [r["outcome"] for r in found] == ["skipped", "used"] and re.search(message, found[0]["reason"])


@pytest.mark.parametrize(
    ("text", "cohort"),
    [("\ufeff" + '{"Name": "Rest"}', "Rest"), ('{"Name": ["Rest"]}', None), ('{"Name": 3}', None), ("{}", None)],
)
def test_descriptions_of_bids_trees(tmp_path, text, cohort):
    (tmp_path / "dataset_description.json").write_text(text, encoding="utf-8")
    write_edf(tmp_path / "sub-01" / "eeg" / "sub-01_task-rest_eeg.edf", noise(1))
    assert [source.cohort for source in sources.find([tmp_path])[0]] == [cohort]


def test_memory_does_not_grow_with_the_recording(monkeypatch):
    """Of a recording of six hours, no more than six minutes are asked for at once."""
    asked = []
    raw = mne.io.RawArray(np.zeros((2, 100)), mne.create_info(["Fp1", "C3"], 256, "eeg"), verbose="error")
    length, x = 6 * 3600 * 256, noise(0, 60, 256, 2) * 1e-6

    class Long:
        info, ch_names, n_times = raw.info, raw.ch_names, length

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
    many = [f"X{i}" for i in range(297)] + ["Fp1", "C3", "T3"]
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


LIES = {
    "channels": (252, b"9999"),
    "fewer": (252, b"1   "),
    "length": (236, b"99999999"),
    "no_length": (236, b"-1      "),
    "record": (244, b"1e9     "),
    "zero": (244, b"0       "),
    "header": (184, b"7       "),
    "date": (168, b"99.99.99"),
    "negative": (252, b"-4  "),
}


def mutated(data, rng):
    """Bytes of a damaged file."""
    data = bytearray(data)
    kind = rng.integers(6)
    if kind == 0:
        return bytes(data[: rng.integers(len(data))])
    if kind == 1:
        place, lie = LIES[rng.choice(list(LIES))]
        data[place : place + len(lie)] = lie
    elif kind == 2:
        for place in rng.integers(0, 256 * 5, 8):
            data[place] = rng.integers(256)
    elif kind == 3:
        start = rng.integers(len(data))
        data[start : start + 4000] = bytes(4000)
    elif kind == 4:
        return rng.bytes(int(rng.integers(1, 5000)))
    else:
        for place in rng.integers(256, 256 * 5, 3):
            data[place : place + 4] = struct.pack("<f", rng.standard_normal() * 1e30)
    return bytes(data)


def test_damaged_files_end_as_used_or_skipped(tmp_path):
    good = write_edf(tmp_path / "good.edf", noise(0)).read_bytes()
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(200):
        (folder / f"{i:03d}.edf").write_bytes(mutated(good, rng))
    (folder / "empty.bdf").touch()
    (folder / "text.vhdr").write_text("Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\n")
    (folder / "matlab.set").write_bytes(b"MATLAB 5.0" + bytes(500))
    (folder / "some.mff").mkdir()
    manifest = build.build([folder], tmp_path / "out", Preprocessing(), "damaged")
    found = outcomes(manifest)
    assert len(found) == 204
    assert all(reason for name, reason in found.items() if not name.endswith("edf"))
    used = [r for r in manifest["recordings"] if r["outcome"] == "used"]
    assert used and sum(r["hours"] for r in used) == pytest.approx(sum(manifest["index"]["samples"]) / 200 / 3600)
    source = open_shards(tmp_path / "out").source
    for i in range(len(source)):
        assert np.isfinite(decode(source[i]).samples).all()
