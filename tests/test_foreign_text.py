"""Text from outside: in Latin-1, not text at all, or made to deceive a terminal or a page."""

import os
import pathlib
import re
import subprocess
import sys

import edfio
import mne
import numpy as np
import pytest
from small_corpora import SETTINGS, noise, outcomes, write_edf
from test_trees import brainvision

from neurolm_jax.corpus import build
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.opening import open_raw
from neurolm_jax.eeg.records import decode
from neurolm_jax.eeg.tasks.readers import read_raw
from neurolm_jax.escaping import escape, escape_all
from neurolm_jax.reporting import html
from neurolm_jax.reporting.console import print_recordings

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Müller 脳波 мозг", "Müller 脳波 мозг"),
        (os.fsdecode(b"\xff\xe4.edf"), r"\xff\xe4.edf"),
        ("a\x1b[31mred\x07", r"a\x1b[31mred\x07"),
        ("two\nlines\r\t\0", r"two\nlines\r\t\x00"),
        ("abc\u202egpj.exe\u200b\ud800", r"abc\u202egpj.exe\u200b\ud800"),
    ],
)
def test_texts_are_escaped_where_they_cannot_be_shown(text, shown):
    assert escape(text) == shown == escape(shown)
    assert escape(text).encode("utf-8") and escape(text).isprintable()
    assert escape_all({text: [text, 1, None, (text,)]}) == {shown: [shown, 1, None, [shown]]}


def test_pages_show_foreign_text():
    page = html.table(("", "x"), [("<b>\x1b\udcff", 1.5)]) + html.paragraph("a\nb\x00") + html.heading("\ud800")
    assert r"&lt;b&gt;\x1b\xff" in page and "a\nb\\x00" in page
    page.encode("utf-8")


def annotated_edf(path, x):
    """An EDF+ file with a byte of Latin-1 in an annotation."""
    named = zip(x, ("Fp1", "C3", "T3", "O1"))
    signals = [edfio.EdfSignal(s, 250, label=n, physical_dimension="uV", physical_range=(-200, 200)) for s, n in named]
    path.parent.mkdir(exist_ok=True)
    told = [edfio.EdfAnnotation(1, 2, "MXller"), edfio.EdfAnnotation(3, 1, "plain")]
    edfio.Edf(signals, annotations=told).write(path)
    path.write_bytes(path.read_bytes().replace(b"MXller", b"M\xfcller"))
    return path


def test_latin_1_in_an_annotation_costs_nothing(tmp_path):
    path = annotated_edf(tmp_path / "in" / "a.edf", noise(0, 20))
    plain = tmp_path / "plain.edf"
    plain.write_bytes(path.read_bytes().replace(b"M\xfcller", b"Muller"))
    raw = read_raw(path)
    assert list(raw.annotations.description) == ["Müller", "plain"]
    np.testing.assert_array_equal(raw.get_data(), mne.io.read_raw_edf(plain, verbose="error").get_data())
    assert outcomes(build.build([tmp_path / "in"], tmp_path / "out", SETTINGS, "c")) == {"a.edf": None}


@pytest.mark.parametrize("where", ["header", "markers", "both", "ansi"])
def test_latin_1_in_brainvision_files_costs_nothing(tmp_path, where):
    path = brainvision(tmp_path, "a", marker="Müller" if where != "header" else "x")
    if where in ("header", "both", "ansi"):
        text = path.read_text()
        text = text.replace("UTF-8", "ANSI") if where == "ansi" else text
        path.write_bytes(text.encode("cp1252"))
    raw = open_raw(path)
    assert raw.annotations.description[0] == ("Comment/Müller" if where != "header" else "Comment/x")
    np.testing.assert_allclose(raw.get_data() * 1e6, np.rint(noise(0, 8) * 10) / 10, atol=1e-9)


def test_names_in_sidecars_and_headers_are_escaped_before_they_are_packed(tmp_path, capsys):
    root = tmp_path / "in"
    root.mkdir()
    (root / "dataset_description.json").write_text('{"Name": "Re\\u001b[31mst"}')
    (root / "participants.tsv").write_text("participant_id\tnote\nsub-\x1b1\tone\x07\n", encoding="utf-8")
    names = ("Fp1", "C3", "T3", "X\x1b[2J")
    write_edf(root / "sub-\x1b1" / "eeg" / "sub-\x1b1_eeg.edf", noise(0, 8), names=("Fp1", "C3", "T3", "X"))
    file = root / "sub-\x1b1" / "eeg" / "sub-\x1b1_eeg.edf"
    data = bytearray(file.read_bytes())
    data[256 + 48 : 256 + 64] = names[3].encode("latin-1").ljust(16)
    file.write_bytes(data)
    manifest = build.build([root], tmp_path / "out", SETTINGS, "c\x1b")
    [recording] = manifest["recordings"]
    assert (
        recording["outcome"] == "used" and recording["subject"] == r"\x1b1" and recording["cohort"] == r"Re\x1b[31mst"
    )
    assert recording["participant"]["note"] == r"one\x07" and r"X\x1b[2J" in recording["left_out"]
    assert "\\u001b" not in (tmp_path / "out" / "manifest.json").read_text().replace(r'"source": "c\u001b"', "")
    record = decode(open_shards(tmp_path / "out").source[0])
    assert (record.subject, record.source) == (r"\x1b1", r"c\x1b") and record.recording == recording["name"]
    print_recordings(manifest | {"warnings": ["\x1b[2J"]}, "\x1b")
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX"}])
def test_a_terminal_that_is_ascii_shows_escapes(tmp_path, environment):
    folder = tmp_path / "in"
    annotated_edf(folder / "Müller.edf", noise(0, 8))
    (folder / "leer_ü.edf").write_bytes(b"")
    os.rename(annotated_edf(folder / "x.edf", noise(1, 8)), os.fsencode(folder) + b"/\xe4.edf")
    command = [sys.executable, "-m", "neurolm_jax.prepare", "eeg", folder, "--out", tmp_path / "out"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHONIO"))}
    done = subprocess.run(command, cwd=ROOT, env=kept | environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(rb"left out leer_(\\xfc|\xc3\xbc).edf", done.stdout) and b"2 recordings" in done.stdout
    if environment.get("PYTHONIOENCODING"):
        assert done.stdout.isascii()
