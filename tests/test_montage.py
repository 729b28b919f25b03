"""Electrodes are judged from all names of a recording together, its places, and a table of the user's own."""

import functools
import json

import mne
import numpy as np
import pytest
from small_corpora import SETTINGS, noise, write_edf

from neurolm_jax.corpus.build import build
from neurolm_jax.corpus.excluded import NOTHING
from neurolm_jax.corpus.finished import Asked, check_finished
from neurolm_jax.corpus.labelled import write_task
from neurolm_jax.data.shards import open_shards, read_manifest
from neurolm_jax.eeg.bids import Sidecars
from neurolm_jax.eeg.electrodes import VOCABULARY, electrode_id, parse_channel
from neurolm_jax.eeg.montage import read_montage, unknown_montage
from neurolm_jax.eeg.positions import read_places
from neurolm_jax.eeg.preprocessing import Preprocessing, choose_channels, preprocess
from neurolm_jax.eeg.records import decode
from neurolm_jax.eeg.renaming import read_renaming, rename
from neurolm_jax.eeg.tasks import Opened, Recording, Task
from neurolm_jax.eeg.tasks.base import Window
from neurolm_jax.errors import UserError

# As the makers' papers have them: BioSemi's sheets of coordinates, and EGI's note on equivalents in the 10-10 system.
BIOSEMI = {
    16: {"A1": "FP1", "A8": "CZ", "A12": "PZ", "A16": "O2"},
    32: {"A1": "FP1", "A7": "T7", "A13": "PZ", "A24": "T8", "A30": "FP2", "A32": "CZ"},
    64: {"A1": "FP1", "A15": "T7", "A31": "PZ", "B1": "FPZ", "B6": "FZ", "B16": "CZ", "B20": "T8", "B32": "O2"},
    128: {
        "A1": "CZ",
        "A19": "PZ",
        "A23": "OZ",
        "C17": "FPZ",
        "C21": "FZ",
        "D23": "T7",
        "B26": "T8",
        "D19": "C3",
        "B22": "C4",
    },
    160: {"A1": "CZ"},
    256: {"A1": "CZ", "A19": "OZ", "E17": "FZ", "A6": "PZ"},
}
HYDROCEL = {
    32: {"E1": "FP1", "E2": "FP2", "E13": "T7", "E14": "T8", "E17": "FZ", "E20": "OZ"},
    64: {"E10": "FP1", "E5": "FP2", "E6": "FZ", "E20": "C3", "E50": "C4", "E24": "T7", "E52": "T8", "E37": "OZ"},
    # AF3, AF4, FC1, FC2, CP1, CP2 and Fpz are none of the anchors that the net's places are drawn by.
    128: {"E22": "FP1", "E9": "FP2", "E11": "FZ", "E45": "T7", "E108": "T8", "E62": "PZ", "E75": "OZ", "E23": "AF3"}
    | {"E3": "AF4", "E13": "FC1", "E112": "FC2", "E37": "CP1", "E87": "CP2", "E15": "FPZ", "E16": "AFZ", "E129": "CZ"},
    256: {"E37": "FP1", "E18": "FP2", "E21": "FZ", "E59": "C3", "E183": "C4", "E69": "T7", "E202": "T8", "E126": "OZ"},
}


def labels_of(count):
    return [f"{'ABCDEFGH'[i // 32]}{i % 32 + 1}" for i in range(count)]


def raw_of(names, seed=0, seconds=4):
    samples = 2e-5 * np.random.default_rng(seed).standard_normal((len(names), seconds * 256))
    return mne.io.RawArray(samples, mne.create_info(list(names), 256.0, "eeg", verbose="error"), verbose="error")


def chosen(raw):
    return {name: VOCABULARY[electrode] for name, electrode in choose_channels(raw)[0].items()}


@pytest.mark.parametrize("frame", ["{}", "EEG {}-REF", "1-{}"])
@pytest.mark.parametrize("count", BIOSEMI)
def test_a_biosemi_cap(count, frame):
    names = {label: frame.format(label) for label in labels_of(count)}
    got = chosen(raw_of([*names.values(), "EXG1", "EXG2", "Status"]))
    assert {label: got[names[label]] for label in BIOSEMI[count]} == BIOSEMI[count]
    assert len(got) == len(set(got.values())) >= min(count, 60)
    assert unknown_montage(raw_of([*names.values(), "EXG1"])) is None


@pytest.mark.parametrize("count", HYDROCEL)
def test_an_egi_net(count):
    names = [f"E{i + 1}" for i in range(count)] + [f"E{count + 1}"]
    got = chosen(raw_of(names))
    assert HYDROCEL[count].items() <= got.items() and got[f"E{count + 1}"] == "CZ"
    assert len(got) == len(set(got.values()))
    # Left and right mirror each other.
    sides = [sum(name[-1] in odd for name in got.values()) for odd in ("13579", "02468")]
    assert abs(sides[0] - sides[1]) <= 2


def test_caps_with_bad_channels_removed():
    gone = {"A2", "A17", "B9", "C30", "D1", "D32"}
    assert chosen(raw_of([name for name in labels_of(128) if name not in gone]))["D23"] == "T7"
    assert chosen(raw_of([f"E{i}" for i in range(1, 125) if i % 9]))["E22"] == "FP1"


def test_each_electrode_of_an_equiradial_cap_is_the_nearest_within_15_mm():
    places = {name: 95 * p / np.linalg.norm(p) for name, p in _builtin("biosemi128").items()}
    standard = {name.upper(): 95 * p / np.linalg.norm(p) for name, p in _builtin("easycap-M1").items()}
    for name, electrode in chosen(raw_of(labels_of(128))).items():
        apart = {other: np.linalg.norm(places[name] - p) for other, p in standard.items()}
        assert min(apart, key=apart.get) == electrode and apart[electrode] <= 15
        assert all(np.linalg.norm(p - standard[electrode]) >= apart[electrode] - 0.1 for p in places.values())


def _builtin(kind):
    return mne.channels.make_standard_montage(kind).get_positions()["ch_pos"]


def test_earlobes_beside_the_10_20_system():
    assert chosen(raw_of(["Fp1", "C3", "A1", "A2"])) == {"Fp1": "FP1", "C3": "C3", "A1": "A1", "A2": "A2"}


def test_contacts_of_depth_electrodes_are_no_scalp():
    """Shanks of 12 contacts are labelled like BioSemi's connectors, and some of them like the 10-20 system."""
    names = [f"{shank}{i}" for shank in "ACFPT" for i in range(1, 13)]
    assert chosen(raw_of([*names, "Cz"])) == {"Cz": "CZ"}
    assert "only 1 of its 61 EEG channels" in unknown_montage(raw_of([*names, "Cz"]))
    # Nor is E a net of EGI's where it is one connector of nine.
    connectors = [f"{letter}{i}" for letter in "ABCDEFGHI" for i in range(1, 17)]
    assert chosen(raw_of(connectors)) == {} and "none of its channels" in unknown_montage(raw_of(connectors))
    # One bank of auxiliary inputs leaves the rest as it is.
    assert "A1" not in chosen(raw_of(["Fp1", "O1", *(f"A{i}" for i in range(1, 9))]))


@pytest.mark.parametrize(
    ("name", "electrode", "reference"),
    [
        ("C3A2", "C3", "A2"),
        ("O1M2", "O1", "M2"),
        ("Fp1_Ref", "FP1", "REF"),
        ("Fp1REF", "FP1", "REF"),
        ("FP1-CS2", "FP1", "CS2"),
        ("C3-(A1+A2)", "C3", "A1A2"),
        ("C3-(M1+M2)/2", "C3", "M1M2"),
        ("EEG C3-LE", "C3", "LE"),
        ("C3-LM", "C3", "LM"),
        ("C4 - RM", "C4", "RM"),
        ("C3/A2", "C3", "A2"),
        ("C3:M2", "C3", "M2"),
        ("C3 Avg", "C3", "AVG"),
        ("Fp1\u2013M2", "FP1", "M2"),
        ("EEG Fpz-Cz", "FPZ", "CZ"),
        ("T5-REF", "T5", "REF"),
        ("EEG Cz-0", "CZ", None),
        ("Fp1 [\u00b5V]", "FP1", None),
        ("FP1/F7", "FP1-F7", None),
        ("F7_T3", "F7-T7", None),
    ],
)
def test_separators_and_references(name, electrode, reference):
    channel = parse_channel(name)
    assert (VOCABULARY[channel.electrode], channel.reference) == (electrode, reference)


@pytest.mark.parametrize(
    "name", ["F7-Fp1", "T3-C3", "C3-T3", "P3-C3", "O1-P3", "Fp1-Fp2", "Cz-C3", "T7/F7", "A1-A2", "F7Fp1", "C30", "A10"]
)
def test_a_pair_is_no_electrode(name):
    assert electrode_id(name) is None


def test_bipolar_recordings_keep_their_pairs_and_tell_the_others():
    names = ["FP1-F7", "F7-T7", "P3-C3", "FZ-CZ", "CZ-PZ", "P7-T7"]
    got, left_out = choose_channels(raw_of(names))
    assert {name: VOCABULARY[e] for name, e in got.items()} == {"FP1-F7": "FP1-F7", "F7-T7": "F7-T7"}
    assert left_out["P3-C3"] == "a bipolar channel, P3 against C3, which the vocabulary does not have"
    assert all("bipolar" in left_out[name] for name in names[2:])
    # An electrode of the midline is a reference where nothing is bipolar.
    raw = raw_of(["Fp1-Cz", "C3-Cz", "O2-Cz"])
    assert chosen(raw) == {"Fp1-Cz": "FP1", "C3-Cz": "C3", "O2-Cz": "O2"}
    assert {channel.reference for channel in read_montage(raw).channels.values()} == {"CZ"}


def placed(kind, names, seed=0):
    """A recording whose channels have other names, at places of one of MNE's montages; and the truth."""
    places = _builtin(kind)
    truth = {f"ch{i:02d}": name for i, name in enumerate(names)}
    montage = mne.channels.make_standard_montage(kind)
    fiducials = {key: montage.get_positions()[key] for key in ("nasion", "lpa", "rpa")}
    frame = montage.get_positions()["coord_frame"]
    dig = mne.channels.make_dig_montage({ch: places[n] for ch, n in truth.items()}, coord_frame=frame, **fiducials)
    return raw_of(truth, seed).set_montage(dig, verbose="error"), {ch: name.upper() for ch, name in truth.items()}


@pytest.mark.parametrize("kind", ["biosemi64", "easycap-M1"])
def test_places_of_a_recording(kind):
    names = _builtin("biosemi64")
    raw, truth = placed(kind, names)
    assert chosen(raw) == truth and unknown_montage(raw) is None
    assert "none of its channels is a known electrode" in unknown_montage(raw.set_montage(None))


def test_places_of_another_head():
    """A real head, with its fiducials: every channel that is kept is right, and most are."""
    kind = "colin27_1005" if "colin27_1005" in mne.channels.get_builtin_montages() else "standard_1005"
    raw, truth = placed(kind, _builtin("biosemi32"))
    got = chosen(raw)
    assert len(got) > 20 and sum(truth[channel] != electrode for channel, electrode in got.items()) <= 2


def test_places_of_a_dense_cap_and_of_no_head():
    raw, _ = placed("biosemi256", _builtin("biosemi256"))
    got = chosen(raw)
    assert unknown_montage(raw) is None and len(got) == len(set(got.values())) > 60
    assert got["ch00"] == "CZ"
    box = np.random.default_rng(0).uniform(-0.1, 0.1, (64, 3))
    dig = mne.channels.make_dig_montage({f"ch{i:02d}": place for i, place in enumerate(box)}, coord_frame="head")
    assert chosen(raw_of(dig.ch_names).set_montage(dig, verbose="error")) == {}


def test_most_electrodes_must_be_known():
    few = [*(f"Ch{i}" for i in range(8)), "Cz", "Pz"]
    assert unknown_montage(raw_of(few)) == (
        "only 2 of its 10 EEG channels are known electrodes, not Ch0, Ch1, Ch2, Ch3 ...; tell which they are by"
        " --rename FILE, lines of NAME,ELECTRODE"
    )
    with pytest.raises(UserError, match="r: only 2 of its 10 EEG channels"):
        preprocess(raw_of(few), Preprocessing(), "r")
    # A night of sleep has many channels that are no EEG; a clinic's head box many inputs that are not in use.
    sleep = "EEG Fpz-Cz,EEG Pz-Oz,EOG horizontal,Resp oro-nasal,EMG submental,Temp rectal,Event marker,SaO2,Left leg"
    assert len(chosen(raw_of(sleep.split(",")))) == 2 and unknown_montage(raw_of(sleep.split(","))) is None
    clinic = "Fp1 Fp2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T3 T4 T5 T6 Fz Cz Pz".split()
    assert unknown_montage(raw_of([*clinic, *(f"EEG {i}-REF" for i in range(20, 120))])) is None


@pytest.mark.parametrize("text", ["EEG 001,Fp1\n# nothing\n\n2\tT5\n", '\ufeff"EEG 001", Fp1\r\n2,T5\r\n'])
def test_a_table_of_names(tmp_path, text):
    (tmp_path / "names.csv").write_text(text, newline="")
    table = read_renaming(tmp_path / "names.csv")
    assert table == {"EEG 001": "Fp1", "2": "T5"}
    raw = raw_of(["EEG 001", "2", "3"])
    raw.set_channel_types({"2": "eog"}, on_unit_change="ignore", verbose="error")
    assert chosen(rename(raw, table, "r")) == {"Fp1": "FP1", "T5": "T5"} and raw.ch_names[0] == "EEG 001"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 Fp1\n", "line 1: want a channel's name"),
        ("1,Fp1\n2,Fp77\n", "line 2: 'Fp77' is no electrode"),
        ("1,Fp1\n1,Fp2\n", "line 2: '1' is there twice"),
        ("# none\n", "holds no line"),
        (None, "cannot be read"),
    ],
)
def test_bad_tables_are_named(tmp_path, text, message):
    file = tmp_path / "names.csv"
    if text:
        file.write_text(text)
    with pytest.raises(UserError, match=message):
        read_renaming(file)


def test_two_channels_of_one_new_name():
    with pytest.raises(UserError, match="r: --rename calls 1 Cz, but there is another Cz"):
        rename(raw_of(["1", "Cz"]), {"1": "Cz"}, "r")
    assert rename(raw_of(["Fz", "Cz"]), {"Fz": "Cz", "Cz": "Fz"}, "r").ch_names == ["Cz", "Fz"]


def test_a_corpus_of_caps_and_tables(tmp_path):
    x = noise(0, channels=128)
    write_edf(tmp_path / "in" / "cap.edf", x, names=labels_of(128))
    write_edf(tmp_path / "in" / "numbers.edf", noise(1), names=("1", "2", "3", "4"))
    renaming = {"1": "Fp1", "2": "T5", "3": "Cz"}
    manifest = build([tmp_path / "in"], tmp_path / "out", SETTINGS, "c", renaming=renaming)
    cap, numbers = manifest["recordings"]
    assert dict(zip(cap["channels"], cap["electrodes"]))["D23"] == "T7" and cap["electrodes"][0] == "CZ"
    assert numbers["channels"] == ["Fp1", "T5", "Cz"] and numbers["electrodes"] == ["FP1", "T5", "CZ"]
    assert manifest["rename"] == renaming
    shards = open_shards(tmp_path / "out")
    record = decode(shards.source[0])
    assert [VOCABULARY[e] for e in record.electrodes] == cap["electrodes"]
    # The samples of D23 are at T7.
    index = labels_of(128).index("D23")
    expected = raw_of(labels_of(128))
    expected = mne.io.RawArray(x[index : index + 1] * 1e-6, mne.create_info(["T7"], 250, "eeg"), verbose="error")
    plain = preprocess(expected, SETTINGS, "r").samples[0]
    got = record.samples[cap["electrodes"].index("T7")]
    assert np.corrcoef(got[400:2800], plain[400:2800])[0, 1] > 0.999
    without = build([tmp_path / "in"], tmp_path / "plain", SETTINGS, "c")["recordings"][1]
    assert without["outcome"] == "skipped" and "--rename FILE" in without["reason"]


def test_a_task_of_caps_and_tables(tmp_path):
    raws = {"cap": raw_of(labels_of(16), 1), "numbers": raw_of(["1", "2", "3"], 2), "names": raw_of(["T3", "Cz"], 3)}

    def recordings(_):
        for number, (name, raw) in enumerate(raws.items()):
            open_it = functools.partial(Opened, raw, [Window(0, 2, "ab"[number % 2])])
            yield Recording(name, name, "train" if number else "test", open_it)

    plain = Preprocessing(low=None, high=None)
    task = Task("own", "Is it a?", {"a": "Yes", "b": "No"}, 2, plain, recordings, validation=0.0)
    renaming = {"1": "Fp1", "2": "T5", "3": "Cz"}
    with pytest.raises(UserError, match="numbers: none of its channels is a known electrode.*--rename FILE"):
        write_task(task, tmp_path, tmp_path / "none")
    write_task(task, tmp_path, tmp_path / "out", renaming=renaming)
    [cap] = read_manifest(tmp_path / "out" / "windows" / "test")["recordings"]
    assert cap["channels"] == labels_of(16) and cap["electrodes"][7] == "CZ"
    part = open_shards(tmp_path / "out" / "windows" / "train")
    found = [(r["name"], tuple(r["electrodes"])) for r in part.manifest["recordings"]]
    assert found == [("numbers", ("FP1", "T5", "CZ")), ("names", ("T3", "CZ"))]
    assert [tuple(VOCABULARY[e] for e in decode(part.source[i]).electrodes) for i in (0, 1)] == [e for _, e in found]
    # A folder is not taken for one that another table would give.
    folder = [tmp_path / "out" / "windows" / "train"]
    check_finished(tmp_path / "out", folder, Asked("task", source="own", way="published", renaming=renaming), NOTHING)
    with pytest.raises(UserError, match="prepared with another --rename"):
        check_finished(tmp_path / "out", folder, Asked("task", source="own", way="published"), NOTHING)


def bids(folder, places, system):
    """A recording of a BIDS tree without names that tell anything, and the places of its electrodes beside it."""
    eeg = folder / "sub-1" / "eeg"
    write_edf(eeg / "sub-1_task-rest_eeg.edf", noise(3, channels=len(places)), names=list(places))
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8"}')
    rows = ["name\tx\ty\tz\timpedance", *("\t".join([name, *map(str, p), "n/a"]) for name, p in places.items())]
    (eeg / "sub-1_space-x_electrodes.tsv").write_text("\n".join([*rows, "gone\tn/a\tn/a\tn/a\tn/a"]))
    (eeg / "sub-1_space-x_coordsystem.json").write_text(json.dumps(system))
    return eeg / "sub-1_task-rest_eeg.edf"


def test_electrodes_tsv(tmp_path):
    names = list(_builtin("biosemi16"))
    places = {f"ch{i}": 1000 * _builtin("biosemi16")[name] for i, name in enumerate(names)}
    truth = [name.upper() for name in names]
    manifest = read_manifest_of(tmp_path / "a", places, {"EEGCoordinateSystem": "CapTrak"})
    assert manifest["recordings"][0]["electrodes"] == truth
    # EEGLAB's axes point to the front, to the left and up; landmarks tell those of any system.
    turned = {name: (y, -x, z) for name, (x, y, z) in places.items()}
    assert (
        read_manifest_of(tmp_path / "b", turned, {"EEGCoordinateSystem": "EEGLAB"})["recordings"][0]["electrodes"]
        == truth
    )
    landmarks = {"NAS": (-90, 0, -40), "LPA": (0, -86, -40), "RPA": (0, 86, -40)}
    turned = {name: (-y, x, z) for name, (x, y, z) in places.items()}
    system = {"EEGCoordinateSystem": "Other", "AnatomicalLandmarkCoordinates": landmarks}
    recording = bids(tmp_path / "c", turned, system)
    found = read_places(recording, Sidecars())  # in metres
    for name, place in places.items():
        np.testing.assert_allclose(found[name], place / 1000, atol=1e-9)
    (recording.parent / "sub-1_space-x_coordsystem.json").write_text('{"EEGCoordinateSystem": "Other"}')
    assert read_places(recording, Sidecars()) == {}
    (recording.parent / "sub-1_space-x_electrodes.tsv").write_bytes(b"name\tx\xff")
    (recording.parent / "sub-1_space-y_electrodes.tsv").write_text("\n".join(
        ["name\tx\ty\tz", *("\t".join([name, *map(str, place)]) for name, place in places.items())]
    ))  # fmt: skip
    (recording.parent / "sub-1_space-y_coordsystem.json").write_text('{"EEGCoordinateSystem": "CapTrak"}')
    sidecars = Sidecars()
    assert read_places(recording, sidecars).keys() == places.keys()  # of the table whose axes are known
    assert [file.name for file in sidecars.faults] == ["sub-1_space-x_electrodes.tsv"]


def read_manifest_of(folder, places, system):
    bids(folder / "in", places, system)
    build([folder / "in"], folder / "out", SETTINGS, "c")
    return read_manifest(folder / "out")
