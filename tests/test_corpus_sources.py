"""The files of a corpus: what their paths, BIDS sidecars and names tell."""

import json
import os
import re

import mne
import pytest
from small_corpora import SETTINGS, noise, outcomes, write_edf

from neurolm_jax.corpus import build, recording, sources
from neurolm_jax.corpus.excluded import excluded
from neurolm_jax.eeg.identity import recording_hash
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.reading import warnings_by_kind
from neurolm_jax.errors import UserError


def test_a_name_that_is_no_text_is_escaped(folder, tmp_path):
    write_edf(tmp_path / "y.edf", noise(8)).rename(os.fsdecode(os.fsencode(folder) + b"/\xff.edf"))
    found = outcomes(build.build([folder], tmp_path / "out", SETTINGS, "corpus"))
    assert found["\\xff.edf"] is None and list(found.values()).count(None) == 7


@pytest.mark.parametrize("name", ["x.eeg", "X.EEG"])
def test_nihon_kohdens_files_are_known_by_their_suffix(tmp_path, name):
    (tmp_path / name).write_bytes(b"EEG-1100A V01.00" + bytes(2000))
    [source] = sources.find([tmp_path])[0]
    with pytest.raises(Exception) as told, warnings_by_kind({}):
        recording.read(source)
    with pytest.raises(type(told.value), match=re.escape(str(told.value))):
        mne.io.read_raw_nihon(tmp_path / name, verbose="error")


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
        (
            "edf/02_tcp_le/007/00000768/s003_2012_04_06/00000768_s003_t000.edf",
            ("00000768", "s003_2012_04_06", "LE"),
        ),
        ("edf/dev/aaaaaajy/s001_2003/04_tcp_le_a/AAAAAAJY_S001_T000.EDF", ("aaaaaajy", "s001_2003", "LE")),
        ("v1/03_tcp_ar_a/001/00000906/s001_2003_05_12/a_1.edf", ("00000906", "s001_2003_05_12", "AR")),
        ("edf/train/00000254/00000254_00000001.edf", ("00000254", None, None)),
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
        manifest = {"format": 1, "content_hash": split} | manifest
        (tmp_path / "tuab" / "windows" / split / "manifest.json").write_text(json.dumps(manifest))
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
    ("text", "cohort"),
    [("\ufeff" + '{"Name": "Rest"}', "Rest"), ('{"Name": ["Rest"]}', None), ('{"Name": 3}', None), ("{}", None)],
)
def test_descriptions_of_bids_trees(tmp_path, text, cohort):
    (tmp_path / "dataset_description.json").write_text(text, encoding="utf-8")
    write_edf(tmp_path / "sub-01" / "eeg" / "sub-01_task-rest_eeg.edf", noise(1))
    assert [source.cohort for source in sources.find([tmp_path])[0]] == [cohort]
