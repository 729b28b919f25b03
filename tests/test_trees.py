"""Trees of recordings: BIDS trees and their sidecars, links, recordings of several files, what is not fetched."""

import json
import os
import pathlib
import shutil

import mne
import numpy as np
import pytest
from small_corpora import SETTINGS, noise, outcomes, write_edf

from neurolm_jax.corpus import build, sources
from neurolm_jax.corpus.excluded import Excluded
from neurolm_jax.eeg import bids
from neurolm_jax.eeg.files import Files, not_fetched
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks.readers import files_under
from neurolm_jax.errors import UserError

ELECTRODES = ("Fp1", "C3", "T3", "O1")


def touched(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"0" * 4000)


def found(*inputs):
    return {source.name: source for source in sources.find(inputs)[0]}


def bids_tree(root, name="Rest", subjects=("01", "02")):
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": name}))
    for subject in subjects:
        write_edf(root / f"sub-{subject}/eeg/sub-{subject}_task-rest_eeg.edf", noise(int(subject), 8), names=ELECTRODES)
    return root


def test_folders_of_derived_data_and_hidden_ones_are_not_searched(tmp_path):
    root = tmp_path / "in"
    touched(root, "dataset_description.json", "derivatives/dataset_description.json")
    touched(root, "sub-01/eeg/sub-01_task-rest_eeg.edf")
    touched(root, "derivatives/clean/sub-01/eeg/sub-01_task-rest_eeg.edf", "sourcedata/sub-01/eeg/sub-01_eeg.edf")
    touched(root, "code/sub-01_eeg.edf", ".git/annex/objects/sub-01_eeg.edf", ".datalad/sub-01_eeg.edf")
    touched(root, "sub-01/Derivatives/sub-01_eeg.edf")
    recordings, others = sources.find([root])
    assert [source.name for source in recordings] == ["sub-01/eeg/sub-01_task-rest_eeg.edf"]
    assert others["derivatives/"] == others["sourcedata/"] == others[".git/"] == 1
    # Nor by a link, but where they are asked for.
    (root / "sub-01" / "extra").symlink_to(root / "derivatives" / "clean")
    assert len(found(root)) == 1
    assert len(found(root / "derivatives")) == 1
    with pytest.raises(UserError, match="no recording .*; not searched: derivatives/"):
        (tmp_path / "other" / "derivatives").mkdir(parents=True)
        sources.find([tmp_path / "other"])
    assert [file.name for file in files_under(root, "SUB*.EDF", "recording")] == ["sub-01_task-rest_eeg.edf"]


def test_a_derivative_of_a_test_person_is_known_by_the_outermost_tree(tmp_path):
    root = bids_tree(tmp_path / "in")
    clean = bids_tree(root / "derivatives" / "clean", "Clean")
    excluded = Excluded({("Rest", "01"): "rest"}, {})
    manifest = build.build([root, clean], tmp_path / "out", SETTINGS, "c", excluded)
    assert [(r["name"][:6], r["outcome"]) for r in manifest["recordings"]] == [
        ("sub-01", "excluded"),
        ("sub-02", "used"),
        ("sub-01", "excluded"),
        ("sub-02", "skipped"),  # a copy here
    ]
    # Also through links from a folder that is no such tree.
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "a.edf").symlink_to(clean / "sub-01" / "eeg" / "sub-01_task-rest_eeg.edf")
    (tmp_path / "chosen" / "sub-02").symlink_to(root / "sub-02")
    told = [(s.cohort, s.subject) for s in found(tmp_path / "chosen").values()]
    assert told == [("Rest", "01"), ("Rest", "02")]


def test_only_scalp_eeg_is_taken_from_a_bids_tree(tmp_path):
    root = bids_tree(tmp_path / "in", subjects=("01",))
    for name in ("ieeg/sub-01_task-rest_ieeg.edf", "meg/sub-01_task-rest_meg.fif", "other.edf"):
        touched(root, f"sub-01/{name}")
    touched(tmp_path / "plain", "sub-01_IEEG.edf", "a_meg.fif")
    manifest = build.build([root, tmp_path / "plain"], tmp_path / "out", SETTINGS, "c")
    reasons = outcomes(manifest)
    assert reasons.pop("sub-01/eeg/sub-01_task-rest_eeg.edf") is None
    assert reasons.pop("sub-01_IEEG.edf") == "its name says that it is ieeg, not scalp EEG"
    assert reasons.pop("a_meg.fif") == "its name says that it is meg, not scalp EEG"
    assert set(reasons.values()) == {"it lies in a BIDS tree, where the names of scalp EEG end in _eeg"}


def test_channels_within_the_brain_are_never_scalp_eeg(tmp_path):
    root = bids_tree(tmp_path / "in", subjects=("01",))
    rows = "name\ttype\nFp1\tSEEG\nC3\tecog\nT3\tEEG\nO1\tn/a\n"
    (root / "sub-01" / "eeg" / "sub-01_task-rest_channels.tsv").write_text(rows)
    [recording] = build.build([root], tmp_path / "out", SETTINGS, "c")["recordings"]
    assert recording["channels"] == ["T3", "O1"]
    assert recording["left_out"] == {"Fp1": "of type SEEG", "C3": "of type ecog"}


FAULTS = {
    "latin-1": ("channels.tsv", "name\tunits\tstatus\nFp1\tµV\tgood\n".encode("latin-1"), "not in UTF-8"),
    "no header": ("channels.tsv", b"Fp1\tEEG\tuV\nC3\tEEG\tuV\n", "no column name"),
    "empty": ("channels.tsv", b"", "an empty table"),
    "ragged": (
        "channels.tsv",
        b"name\ttype\tstatus\nFp1\tEOG\nC3\tEEG\tbad\tmore\n",
        "row 2 and 1 more has not as many",
    ),
    "events": ("events.tsv", b"1.0\t2.0\tgo\n", "no column onset"),
    "broken": ("eeg.json", b"{", "not a JSON object"),
    "list": ("eeg.json", b"[1]", "not a JSON object, but list"),
    "deep": ("eeg.json", b"[" * 100_000, "not a JSON object"),
    "NaN": ("eeg.json", b'{"PowerLineFrequency": NaN}', "PowerLineFrequency is nan"),
    "infinite": ("eeg.json", b'{"PowerLineFrequency": 1e999}', "PowerLineFrequency is inf"),
    "link": ("eeg.json", None, "a link to not/fetched, which is not there"),
    "pointer": ("eeg.json", b"/annex/objects/MD5E-s20--a.json\n", "'git annex get'"),
    "head": ("electrodes.tsv", b"name\tx\ty\tz\nFp1\t1e9\t0\t0\n", "positions are those of no head"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_faulty_sidecar_costs_what_it_tells_alone(tmp_path, case):
    name, content, message = FAULTS[case]
    root = bids_tree(tmp_path / "in")
    sidecar = root / "sub-01" / "eeg" / f"sub-01_task-rest_{name}"
    if content is None:
        sidecar.symlink_to("not/fetched")
    else:
        sidecar.write_bytes(content)
    told = list(found(root).values())
    assert [(s.subject, s.cohort, s.fault, s.left_out, s.mains) for s in told] == [
        (subject, "Rest", None, (), None) for subject in ("01", "02")
    ]
    [warning] = [warning for source in told for warning in source.warnings]
    assert warning.startswith(f"{sidecar}: ") and message in warning


def test_a_faulty_table_of_the_whole_tree_is_named_once(tmp_path, capsys):
    from neurolm_jax.reporting.console import print_recordings

    root = bids_tree(tmp_path / "in")
    (root / "participants.tsv").write_bytes("id\tname\nsub-01\tMüller\n".encode("latin-1"))
    (root / "sub-01" / "eeg" / "sub-01_task-rest_eeg.json").write_text('{"PowerLineFrequency": NaN}')
    manifest = build.build([root], tmp_path / "out", Preprocessing(), "c")
    assert set(outcomes(manifest).values()) == {None}
    assert [warning.partition(": ")[0].rpartition("/")[2] for warning in manifest["warnings"]] == [
        "sub-01_task-rest_eeg.json",
        "participants.tsv",
    ]
    print_recordings(manifest, "in all")
    assert capsys.readouterr().out.count("  warning: ") == 2


def test_a_description_that_is_not_fetched_still_makes_a_bids_tree(tmp_path):
    root = bids_tree(tmp_path / "in", subjects=("01",))
    (root / "dataset_description.json").unlink()
    (root / "dataset_description.json").symlink_to(".git/annex/objects/x")
    touched(root, "sub-01/ieeg/sub-01_ieeg.edf")
    told = found(root)
    assert told["sub-01/eeg/sub-01_task-rest_eeg.edf"].subject == "01"
    assert "BIDS tree" in told["sub-01/ieeg/sub-01_ieeg.edf"].fault


def test_tables_of_scans_and_electrodes_are_read(tmp_path):
    root = bids_tree(tmp_path / "in", subjects=("01",))
    place = root / "sub-01" / "eeg"
    (root / "sub-01" / "sub-01_scans.tsv").write_text(
        "filename\tacq_time\nieeg/sub-01_ieeg.edf\t2000-01-01T00:00:00\n"
        "eeg/sub-01_task-rest_eeg.edf\t2001-01-01T00:00:00\n"
    )
    (place / "sub-01_space-CapTrak_electrodes.tsv").write_text(
        "name\tx\ty\tz\nFp1\t-29.4\t83.9\t-7.0\nC3\t-65.4\t-11.6\t64.4\nO1\tn/a\tn/a\tn/a\n"
    )
    (place / "sub-01_space-CapTrak_coordsystem.json").write_text(
        '{"EEGCoordinateSystem": "CapTrak", "EEGCoordinateUnits": "mm"}'
    )
    [source] = found(root).values()
    assert dict(source.scan)["acq_time"] == "2001-01-01T00:00:00" and not source.warnings
    [positions] = bids.Sidecars().positions(source.path)
    assert positions.system == "CapTrak"
    assert {name: tuple(place) for name, place in positions.metres.items()} == dict(source.positions)
    np.testing.assert_allclose(positions.metres["Fp1"], (-0.0294, 0.0839, -0.007))
    assert set(positions.metres) == {"Fp1", "C3"}
    (place / "sub-01_space-CapTrak_coordsystem.json").write_text('{"EEGCoordinateUnits": "m"}')
    [source] = found(root).values()
    assert not source.positions  # nothing tells the axes
    np.testing.assert_allclose(next(bids.Sidecars().positions(source.path)).metres["C3"], (-0.0654, -0.0116, 0.0644))
    assert "EEGCoordinateUnits is m, but" in source.warnings[0]
    [recording] = build.build([root], tmp_path / "out", SETTINGS, "c")["recordings"]
    assert recording["scan"]["acq_time"] == "2001-01-01T00:00:00"


def test_loops_and_repeated_folders_are_visited_once(tmp_path):
    root = tmp_path / "in"
    touched(root, "b/1.edf", "b/2.EDF", "c/d/3.edf")
    for link, target in {
        "b/up": "..",
        "b/self": ".",
        "a": "b",
        "c/d/x": "../../b",
        "root": "/",
        "gone": "not/there",
    }.items():
        (root / link).symlink_to(target)
    (root / "round").symlink_to("round")
    for i in range(12):  # as many ways as 2 to the 12th
        (root / "c" / f"l{i}").symlink_to("d")
        (root / "c" / "d" / f"k{i}").symlink_to("..")
    assert list(found(root)) == ["b/1.edf", "b/2.EDF", "c/d/3.edf"]
    assert list(found(root / "c", root)) == ["d/3.edf", "d/x/1.edf", "d/x/2.EDF"]
    assert len(files_under(root, "*.edf", "recording")) == 3


def raw_of(x):
    return mne.io.RawArray(x * 1e-6, mne.create_info(list(ELECTRODES), 250, "eeg", verbose="error"), verbose="error")


@pytest.mark.parametrize("naming", ["neuromag", "bids"])
def test_a_split_fif_file_is_one_recording_and_a_missing_part_is_told(tmp_path, naming):
    x = noise(0, 600)
    names = {
        "neuromag": ("rest_raw.fif", "rest_raw-1.fif", "rest_raw-2.fif"),
        "bids": ("rest_split-01_eeg.fif", "rest_split-02_eeg.fif", "rest_split-03_eeg.fif"),
    }
    first, second, third = (tmp_path / "in" / name for name in names[naming])
    (tmp_path / "in").mkdir()
    name = first.name.replace("_split-01", "")
    raw_of(x).save(tmp_path / "in" / name, split_size="1.2MB", split_naming=naming, verbose="error")
    raw_of(x[:, :2000]).save(tmp_path / "in" / "other_raw-1.fif", verbose="error")  # which is whole
    manifest = build.build([tmp_path / "in"], tmp_path / "out", SETTINGS, "c")
    hours = {r["name"]: r["recorded_hours"] for r in manifest["recordings"]}
    assert hours == {first.name: pytest.approx(600 / 3600), "other_raw-1.fif": pytest.approx(8 / 3600)}
    state = Files().state(first)
    os.utime(third, (0, 0))
    assert Files().state(first) != state
    second.unlink()
    [reason] = filter(None, outcomes(build.build([tmp_path / "in"], tmp_path / "lost", SETTINGS, "c")).values())
    assert second.name in reason and "does not exist" in reason
    first.unlink()
    told = found(tmp_path / "in")
    assert f"the first is {first.name}, which is missing" in told[third.name].fault


POINTERS = {
    "annex": (b"/annex/objects/MD5E-s5--a.edf\n", "git-annex"),
    "text": (b"../../.git/annex/objects/zz/a.edf", "git-annex"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 5\n", "Git LFS"),
}


@pytest.mark.parametrize("case", POINTERS)
def test_pointers_are_told_to_be_not_fetched(tmp_path, case):
    content, tool = POINTERS[case]
    write_edf(tmp_path / "in" / "b.edf", noise(0, 8))
    (tmp_path / "in" / "a.edf").write_bytes(content)
    reason = outcomes(build.build([tmp_path / "in"], tmp_path / "out", SETTINGS, "c"))["a.edf"]
    assert reason.startswith("not fetched: ") and tool in reason


def test_links_of_git_annex_are_told_to_be_not_fetched(tmp_path):
    from neurolm_jax.eeg.tasks.readers import read_raw

    (tmp_path / "a.edf").symlink_to(".git/annex/objects/k/a.edf")
    assert "a link of git-annex" in not_fetched(tmp_path / "a.edf")
    with pytest.raises(UserError, match="a.edf: not fetched: .*'git annex get'"):
        read_raw(tmp_path / "a.edf")
    brainvision(tmp_path, "b")
    (tmp_path / "b.eeg").unlink()
    (tmp_path / "b.eeg").symlink_to(".git/annex/objects/k/b.eeg")
    assert found(tmp_path)["b.vhdr"].fault.startswith("not fetched: b.eeg is a link of git-annex")


def brainvision(folder, name, x=None, data=None, suffixes=(".vhdr", ".eeg", ".vmrk"), marker="x"):
    """A BrainVision recording of four electrodes, units of a tenth of a microvolt."""
    header, samples, markers = suffixes
    x = noise(0, 8) if x is None else x
    np.rint(x * 10).astype("<i2").T.tofile(folder / (data or f"{name}{samples}"))
    channels = "\n".join(f"Ch{i}={electrode},,0.1,µV" for i, electrode in enumerate(ELECTRODES, start=1))
    (folder / f"{name}{header}").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={data or name + '.eeg'}\nMarkerFile={name}.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels=4\nSamplingInterval=4000\n[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\n{channels}\n"
    )
    (folder / f"{name}{markers}").write_bytes(
        b"Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\n[Marker Infos]\n"
        + f"Mk1=Comment,{marker},500,1,0\n".encode("latin-1")
    )
    return folder / f"{name}{header}"


def eeglab(folder, name, x):
    import scipy.io

    x = np.asarray(x, "<f4")
    labels = np.array([(electrode,) for electrode in ELECTRODES], [("labels", object)])
    eeg = {"nbchan": 4, "pnts": x.shape[1], "trials": 1, "srate": 250.0, "data": f"{name}.fdt", "chanlocs": labels}
    eeg |= {"xmin": 0.0, "xmax": (x.shape[1] - 1) / 250, "event": np.array([]), "setname": name}
    scipy.io.savemat(folder / f"{name}.set", {"EEG": eeg}, appendmat=False)
    x.T.tofile(folder / f"{name}.fdt")
    return folder / f"{name}.set"


@pytest.mark.parametrize("case", ["vhdr", "renamed", "vmrk", "set", "mff", "lay"])
def test_a_recording_is_known_by_all_its_files(tmp_path, case):
    """Its header is the same; samples of the same length are others."""
    if case in ("vhdr", "vmrk"):
        path = brainvision(tmp_path, "a")
        changed = tmp_path / ("a.eeg" if case == "vhdr" else "a.vmrk")
    elif case == "renamed":
        path, changed = brainvision(tmp_path, "a", data="other.dat"), tmp_path / "other.dat"
    elif case == "set":
        path, changed = eeglab(tmp_path, "a", noise(0, 8)), tmp_path / "a.fdt"
    elif case == "mff":
        path, changed = tmp_path / "a.mff", tmp_path / "a.mff" / "signal1.bin"
        touched(tmp_path, "a.mff/signal1.bin", "a.mff/info.xml")
    else:
        path, changed = tmp_path / "a.lay", tmp_path / "a.dat"
        path.write_text("[FileInfo]\nFile=a.dat\nFileType=Interleaved\n")
        touched(tmp_path, "a.dat")
    before = found(tmp_path)[path.name].state
    assert found(tmp_path)[path.name].state == before
    data = changed.read_bytes()
    changed.unlink()
    changed.write_bytes(data[::-1])
    assert found(tmp_path)[path.name].state != before


def test_samples_that_were_replaced_behind_their_header_are_read_again(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    brainvision(folder, "a")
    eeglab(folder, "b", noise(1, 8))

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "_merge", stopped)
        build.build([folder], tmp_path / "out", SETTINGS, "c")
    header = (folder / "a.vhdr").stat().st_mtime_ns
    np.rint(noise(2, 8) * 10).astype("<i2").T.tofile(folder / "a.eeg")
    noise(3, 8).astype("<f4").T.tofile(folder / "b.fdt")
    assert (folder / "a.vhdr").stat().st_mtime_ns == header
    hashes = [r["hash"] for r in build.build([folder], tmp_path / "out", SETTINGS, "c")["recordings"]]
    assert hashes == [r["hash"] for r in build.build([folder], tmp_path / "new", SETTINGS, "c")["recordings"]]


@pytest.mark.parametrize(
    "suffixes", [(".VHDR", ".EEG", ".VMRK"), (".VHDR", ".eeg", ".vmrk"), (".vhdr", ".EEG", ".VMRK")]
)
def test_suffixes_are_known_in_any_case(tmp_path, suffixes):
    """Of a header that names its files in small letters, as after a copy from another system."""
    for folder in ("in", "plain"):
        (tmp_path / folder).mkdir()
    brainvision(tmp_path / "plain", "a")
    path = brainvision(tmp_path / "in", "a", suffixes=suffixes)
    assert list(found(tmp_path / "in")) == [path.name]
    [recording] = build.build([tmp_path / "in"], tmp_path / "out", SETTINGS, "c")["recordings"]
    [plain] = build.build([tmp_path / "plain"], tmp_path / "other", SETTINGS, "c")["recordings"]
    assert recording["hash"] == plain["hash"] and recording["outcome"] == "used"


def test_other_formats_suffixes_are_known_in_any_case(tmp_path):
    x = noise(0, 8)
    raw_of(x).save(tmp_path / "a_raw.fif.gz", verbose="error")
    (tmp_path / "a_raw.fif.gz").rename(tmp_path / "A_RAW.FIF.GZ")
    eeglab(tmp_path, "B", noise(1, 8))
    (tmp_path / "B.set").rename(tmp_path / "B.SET")
    (tmp_path / "B.fdt").rename(tmp_path / "B.FDT")
    write_edf(tmp_path / "C.EDF", noise(2, 8))
    manifest = build.build([tmp_path], pathlib.Path(f"{tmp_path}-out"), SETTINGS, "c")
    assert outcomes(manifest) == {"A_RAW.FIF.GZ": None, "B.SET": None, "C.EDF": None}
    shutil.rmtree(f"{tmp_path}-out")


def test_what_is_read_through_links_outlives_the_first_of_its_copies(tmp_path):
    from neurolm_jax.eeg.opening import open_raw, opened_from

    path = brainvision(tmp_path, "a", suffixes=(".VHDR", ".EEG", ".VMRK"), marker="Müller")
    raw = open_raw(path)
    copy = raw.copy().pick(["C3"])
    folder = raw.filenames[0].parent
    del raw
    np.testing.assert_allclose(copy.get_data()[0] * 1e6, np.rint(noise(0, 8)[1] * 10) / 10, atol=1e-9)
    assert copy.annotations.description[0] == "Comment/Müller" and opened_from(copy)[0] == path
    del copy
    assert not folder.exists()


def test_subjects_that_cannot_be_compared_are_told(tmp_path):
    write_edf(tmp_path / "in/02_tcp_le/007/00000768/s003_2012_04_06/00000768_s003_t000.edf", noise(0, 8))
    letters = Excluded({("tuh", "aaaaaaaq"): "tuab", ("other", "1"): "rest"}, {})
    manifest = build.build([tmp_path / "in"], tmp_path / "out", SETTINGS, "c", letters)
    [warning] = manifest["warnings"]
    assert "named by numbers, those of tuab by letters: they cannot be compared" in warning
    assert manifest["recordings"][0]["reference"] == "LE"
    both = Excluded({("tuh", "aaaaaaaq"): "tuab", ("tuh", "00000001"): "old"}, {})
    assert both.incomparable([("tuh", "00000768"), ("tuh", "aaaaaaaa"), (None, "1"), ("tuh", None)]) == []
