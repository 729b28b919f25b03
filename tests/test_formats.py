"""Formats: whose reader lacks a package, what MNE says of others, and options of readers."""

import importlib.util
import sys

import mne
import numpy as np
import pytest
from small_corpora import SETTINGS, noise, outcomes, write_edf

from neurolm_jax import prepare
from neurolm_jax.corpus import build
from neurolm_jax.eeg import opening
from neurolm_jax.eeg.tasks.readers import read_raw
from neurolm_jax.errors import UserError

LACKING = {
    "a.cnt": (b"RIFF\0\0\0\0CNT " + bytes(100), "antio"),
    "b.set": (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(600), "pymatreader"),
    "c.mff": (None, "mffpy"),
    "d.cdt": (bytes(4000), "curryreader"),
}


@pytest.mark.parametrize("name", LACKING)
def test_the_package_that_a_reader_lacks_is_named(tmp_path, monkeypatch, name):
    content, package = LACKING[name]
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    folder = tmp_path / "in"
    if content is None:
        (folder / name).mkdir(parents=True)
    else:
        folder.mkdir()
        (folder / name).write_bytes(content)
    if name == "d.cdt":
        (folder / "d.cdt.dpo").write_text("SampleTimeUsec = 4000\nSampleFreqHz = 250\n")
    write_edf(folder / "good.edf", noise(0, 8))
    reason = outcomes(build.build([folder], tmp_path / "out", SETTINGS, "c"))[name]
    assert f"needs the package {package}: 'pip install {package}'" in reason and "neurolm_jax[formats]" in reason
    with pytest.raises(UserError, match=f"{name}: its reader needs the package {package}"):
        read_raw(folder / name)


def neuroscan(path, x, bits=32):
    """A continuous Neuroscan file at 250 Hz, as far as MNE's reader looks, units of a tenth of a microvolt."""
    header = bytearray(900 + 75 * len(x))
    header[:11] = b"Version 3.0"
    put(header, 225, b"01/02/20"), put(header, 235, b"10:00:00")
    put(header, 370, np.uint16(len(x)).tobytes()), put(header, 376, np.uint16(250).tobytes())
    put(header, 864, np.int32(x.shape[1]).tobytes())
    for i, name in enumerate(("Fp1", "C3", "T3", "O1")):
        at = 900 + 75 * i
        put(header, at, name.encode())
        put(header, at + 19, np.array([100 * i, 30 * i * i], "<f4").tobytes())
        put(header, at + 59, np.float32(204.8).tobytes()), put(header, at + 71, np.float32(0.1).tobytes())
    samples = np.rint(x * 10).astype(f"<i{bits // 8}").T.tobytes()
    put(header, 886, np.int32(len(header) + len(samples)).tobytes())
    path.write_bytes(bytes(header) + samples + bytes([1]) + np.int32(0).tobytes() * 2)
    return path


def put(header, at, data):
    header[at : at + len(data)] = data


def test_options_reach_the_reader_that_takes_them(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    x = noise(0, 8)
    path = neuroscan(folder / "a.cnt", x)
    write_edf(folder / "b.edf", noise(1, 8))
    raw = read_raw(path, data_format="int32")
    np.testing.assert_allclose(raw.get_data("C3")[0] * 1e6, np.rint(x[1] * 10) / 10, atol=0.01)
    with pytest.raises(UserError, match="a.cnt: data_fromat is no option of its reader; did you mean data_format"):
        read_raw(path, data_fromat="int32")

    def command(*arguments):
        line = ["prepare", "eeg", str(folder), "--out", str(tmp_path / "out"), *arguments]
        monkeypatch.setattr(sys, "argv", line)
        prepare.main()
        return capsys.readouterr().out

    command("--reader_options", "data_format=int32", "date_format=dd/mm/yy")
    from neurolm_jax.data import shards

    manifest = shards.read_manifest(tmp_path / "out")
    assert manifest["reader_options"] == {"data_format": "int32", "date_format": "dd/mm/yy"}
    assert outcomes(manifest) == {"a.cnt": None, "b.edf": None}
    assert [r["rate"] for r in manifest["recordings"]] == [250, 250]
    assert "already prepared" in command("--reader_options", "data_format=int32", "date_format=dd/mm/yy")
    with pytest.raises(UserError, match="prepared with --reader_options data_format=int32 date_format=dd/mm/yy"):
        command()
    for option, message in {
        "data_format": "want NAME=VALUE",
        "data_fromat=int32": "no reader has an option data_fromat; did you mean data_format",
        "preload=True": "no reader has an option preload",
    }.items():
        with pytest.raises(UserError, match=message):
            command("--reader_options", option)


def test_an_option_that_no_recordings_reader_takes_is_refused(tmp_path):
    write_edf(tmp_path / "in" / "b.edf", noise(1, 8))
    with pytest.raises(UserError, match="data_format: the reader of none of these recordings has such an option"):
        build.build([tmp_path / "in"], tmp_path / "out", SETTINGS, "c", reader_options={"data_format": "int32"})
    assert not (tmp_path / "out").exists()


def test_mnes_own_reason_is_passed_on(tmp_path):
    path = tmp_path / "a.cnt"
    path.write_bytes(b"strange" + bytes(2000))
    with pytest.raises(UserError) as told:
        read_raw(path)
    text = str(told.value)
    assert "read_raw_cnt: " in text and "any of the possible readers" not in text
    with pytest.raises(Exception) as own:
        mne.io.read_raw_cnt(path, verbose="error")
    assert " ".join(str(own.value).split())[:80] in text or importlib.util.find_spec("antio") is None


@pytest.mark.parametrize(
    ("text", "value"), [("eog=['EOG 1']", ["EOG 1"]), ("encoding=latin1", "latin1"), ("eog=auto", "auto")]
)
def test_values_of_options_are_literals_or_texts(text, value):
    assert list(opening.parse_options([text]).values()) == [value]
