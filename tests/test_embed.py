"""Features of many recordings in one file: what encoding each gives, resumed, bounded, in both formats."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import warnings

import mne
import numpy as np
import pytest
from small_corpora import NAMES, noise, write_edf

import neurolm_jax
from neurolm_jax import embed as command
from neurolm_jax.errors import UserError
from neurolm_jax.inference import embedding
from neurolm_jax.inference.embedding import Options, embed
from neurolm_jax.inference.encoder import Encoder

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def encoder(runs):
    return Encoder(runs / "tokenizer")


@pytest.fixture
def tree(tmp_path):
    """Three recordings, one of them of a BIDS tree with a bad channel and one with fewer channels; two of no use."""
    root = tmp_path / "in"
    write_edf(root / "a.edf", noise(0, 25))
    write_edf(root / "deep" / "b.edf", noise(1, 12, channels=2), names=NAMES[:2])
    bids = root / "bids" / "sub-07" / "eeg"
    write_edf(bids / "sub-07_task-rest_eeg.edf", noise(2, 21))
    (root / "bids" / "dataset_description.json").write_text('{"Name": "set"}')
    (bids / "sub-07_task-rest_channels.tsv").write_text("name\ttype\tstatus\nEEG C3-REF\tEEG\tbad\n")
    write_edf(root / "short.edf", noise(3, 3))
    (root / "broken.edf").write_bytes(b"0" * 900)
    return root


def read_parquet(file):
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(file)
    about = json.loads(table.schema.metadata[b"neurolm_jax"])
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}, about


def read_npz(file):
    with np.load(file) as arrays:
        columns = dict(arrays)
    return columns, json.loads(str(columns.pop("about")))


@pytest.mark.parametrize("pool", ["none", "channel", "window"])
def test_rows_are_what_encoding_each_recording_gives(encoder, tree, tmp_path, pool):
    options = Options(pool=pool, seconds=4, every=5.0)
    embed([tree], tmp_path / "x.npz", encoder, options)
    columns, about = read_npz(tmp_path / "x.npz")
    if importlib.util.find_spec("pyarrow"):
        embed([tree], tmp_path / "x.parquet", encoder, options)
        others, other_about = read_parquet(tmp_path / "x.parquet")
        assert about == other_about and columns.keys() == others.keys()
        others["subject"] = np.array([name or "" for name in others["subject"]])
        for name, values in columns.items():
            np.testing.assert_array_equal(others[name], values, err_msg=name)
        (tmp_path / "x.parquet").unlink()
    told = {r["name"]: r for r in about["recordings"]}
    assert told["short.edf"]["reason"].endswith("short.edf: too short, 3.0 s; a window has 4 s")
    assert "cannot be read" in told["broken.edf"]["reason"]
    place = 0
    for name, subject in (("a.edf", ""), ("bids/sub-07/eeg/sub-07_task-rest_eeg.edf", "07"), ("deep/b.edf", "")):
        raw = mne.io.read_raw(tree / name, verbose="error")
        raw.info["bads"] = ["EEG C3-REF"] if subject else []
        found = encoder.encode(raw, pool=pool, seconds=4, every=5)
        windows, seconds, channels = found.codes.shape
        count = windows * {"none": seconds * channels, "channel": channels, "window": 1}[pool]
        here = {key: values[place : place + count] for key, values in columns.items()}
        place += count
        np.testing.assert_allclose(here["feature"], found.values.reshape(count, -1), atol=1e-5)
        assert set(here["recording"]) == {name} and set(here["subject"]) == {subject}
        each = count // windows
        np.testing.assert_array_equal(here["window"], np.repeat(np.arange(windows), each))
        np.testing.assert_allclose(here["onset"], np.repeat(found.onsets, each))
        assert not here["bad"].any()
        if pool != "window":
            np.testing.assert_array_equal(here["channel"], np.tile(found.channels, count // channels))
            np.testing.assert_array_equal(here["electrode"], np.tile(found.electrodes, count // channels))
        if pool == "none":
            np.testing.assert_array_equal(here["code"], found.codes.ravel())
            np.testing.assert_array_equal(here["second"], np.tile(np.repeat(np.arange(4), channels), windows))
        elif pool == "channel":
            np.testing.assert_array_equal(here["code"].reshape(windows, channels, 4), found.codes.swapaxes(1, 2))
    assert place == len(columns["window"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "x.npz"]


def test_reasons_are_the_same_whatever_is_done_with_warnings(encoder, tree, tmp_path, caplog):
    """Recordings are read in threads, which share the filters of warnings."""
    reasons = []
    for number, action in enumerate(("error", "ignore")):
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            about = embed([tree], tmp_path / f"{number}.npz", encoder, Options(seconds=4, pool="window"))
        reasons.append([recording["reason"] for recording in about["recordings"]])
    assert reasons[0] == reasons[1] and "cannot be read" in " ".join(filter(None, reasons[0]))
    assert "Invalid measurement date" in caplog.text  # of broken.edf, as MNE says


def test_bad_seconds_are_a_fraction_of_what_a_row_covers(encoder, tmp_path):
    x = noise(0, 20)
    x[1, 250 * 3 : 250 * 5] = 7.0  # flat
    write_edf(tmp_path / "a.edf", x)
    for pool, want in (("none", 2 / 60), ("channel", 0.2 / 6), ("window", 2 / 60)):
        embed([tmp_path / "a.edf"], tmp_path / f"{pool}.npz", encoder, Options(pool=pool))
        columns, _ = read_npz(tmp_path / f"{pool}.npz")
        assert columns["bad"].mean() == pytest.approx(want)
        assert np.isfinite(columns["feature"]).all()


def test_stopped_it_goes_on_with_what_is_not_done(encoder, tree, tmp_path, monkeypatch):
    """Whatever stops it, in whatever recording, the file that comes at last is that of a run never stopped."""
    embed([tree], tmp_path / "whole.npz", encoder, Options(seconds=4, workers=1))
    want, about = read_npz(tmp_path / "whole.npz")
    written, write = [], embedding._write_rows

    def stopping(raw, source, *arguments):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(source.name)
        return write(raw, source, *arguments)

    out = tmp_path / "x.npz"
    monkeypatch.setattr(embedding, "_write_rows", stopping)
    with pytest.raises(KeyboardInterrupt):
        embed([tree], out, encoder, Options(seconds=4, workers=1))
    assert not out.exists() and len(written) == 1
    with pytest.raises(UserError, match="x.npz.unfinished: unfinished work with other settings"):
        embed([tree], out, encoder, Options(seconds=5))

    def counting(raw, source, *arguments):
        written.append(source.name)
        return write(raw, source, *arguments)

    monkeypatch.setattr(embedding, "_write_rows", counting)
    assert embed([tree], out, encoder, Options(seconds=4, workers=3, batch_size=2)) == about
    assert sorted(written) == sorted(
        ["a.edf", "deep/b.edf", "bids/sub-07/eeg/sub-07_task-rest_eeg.edf", "short.edf"]
    )  # none twice
    found, _ = read_npz(out)
    for name, values in want.items():
        if name == "feature":
            np.testing.assert_allclose(found[name], values, atol=1e-5)
        else:
            np.testing.assert_array_equal(found[name], values)
    before = out.stat().st_mtime_ns
    assert embed([tree], out, encoder, Options(seconds=4)) == about and out.stat().st_mtime_ns == before
    assert len(written) == 4
    for options, inputs in ((Options(seconds=5), [tree]), (Options(seconds=4), [tree / "deep"])):
        with pytest.raises(UserError, match="x.npz: holds features of other recordings or settings; remove it"):
            embed(inputs, out, encoder, options)
    assert not list(tmp_path.glob(".*"))


def test_killed_while_it_writes_it_leaves_no_half_file(encoder, tree, tmp_path, monkeypatch):
    from neurolm_jax.inference import feature_file

    def full(*arguments):
        (arguments[0]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(feature_file, "write", full)
        with pytest.raises(OSError):
            embed([tree], tmp_path / "x.npz", encoder, Options(seconds=4))
    assert [path.name for path in tmp_path.glob("*x.npz*")] == [".x.npz.unfinished"]
    embed([tree], tmp_path / "x.npz", encoder, Options(seconds=4))
    assert read_npz(tmp_path / "x.npz")[1]["settings"]["seconds"] == 4


def test_a_file_is_named_once_and_never_like_another(encoder, tmp_path):
    for folder in ("one", "two"):
        write_edf(tmp_path / folder / "a.edf", noise(len(folder), 10))
    write_edf(tmp_path / "two" / "b.edf", noise(9, 10))
    about = embed([tmp_path / "one", tmp_path / "two", tmp_path / "two" / "b.edf"], tmp_path / "x.npz", encoder)
    names = [r["name"] for r in about["recordings"]]
    assert names == [str(tmp_path / "one" / "a.edf"), str(tmp_path / "two" / "a.edf"), "b.edf"]


def test_what_cannot_be_is_named(encoder, tree, tmp_path):
    with pytest.raises(UserError, match="short.edf: too short, 3.0 s; a window has 10 s$"):
        embed([tree / "short.edf"], tmp_path / "x.npz", encoder)
    with pytest.raises(UserError, match="nor is any of 1 others of use"):
        embed([tree / "short.edf", tree / "broken.edf"], tmp_path / "x.npz", encoder)
    with pytest.raises(UserError, match="x.csv: features are written as .npz or .parquet"):
        embed([tree], tmp_path / "x.csv", encoder)
    with pytest.raises(UserError, match="no/x.npz: its folder does not exist"):
        embed([tree], tmp_path / "no" / "x.npz", encoder)
    (tmp_path / "mine.npz").write_bytes(b"mine")
    with pytest.raises(UserError, match="mine.npz: cannot be read"):
        embed([tree], tmp_path / "mine.npz", encoder)
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(UserError, match="other.npz: exists and was not made by embed"):
        embed([tree], tmp_path / "other.npz", encoder)
    for options, message in (
        (Options(layer="language"), "layer: a checkpoint of stage tokenizer has"),
        (Options(seconds=0), "seconds: must be whole seconds"),
        (Options(every=0.0), "every: want 0.005 s or more"),
        (Options(workers=0), "workers: want 1 or more"),
    ):
        with pytest.raises(UserError, match=message):
            embed([tree], tmp_path / "x.npz", encoder, options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "mine.npz", "other.npz"]


def test_parquet_without_its_package_is_told_before_anything_else(runs, tree, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setattr(sys, "argv", ["embed", str(tree), "--checkpoint", "none", "--out", str(tmp_path / "x.parquet")])
    with pytest.raises(UserError, match="x.parquet: needs pyarrow: pip install pyarrow"):
        command.main()


def test_the_command(runs, tree, tmp_path, monkeypatch, capsys):
    # pytest gives MNE's logger a file, and with a file MNE prints its warnings too.
    monkeypatch.setattr(mne.utils.logger, "handlers", [])

    def run(*arguments):
        line = ["embed", *map(str, arguments), "--checkpoint", str(runs / "instruct")]
        monkeypatch.setattr(sys, "argv", line)
        command.main()
        return capsys.readouterr().out

    out = tmp_path / "x.npz"
    options = "--seconds 4 --every 8 --pool channel --layer language.1 --low none --workers 2".split()
    said = run(tree, "--out", out, *options)
    assert said.startswith(f"{out}: 8 windows of 3 recordings\n") and "left out short.edf" in said
    assert run(tree, "--out", out, *options) == said  # again: nothing is done
    columns, about = read_npz(out)
    assert about["settings"]["preprocessing"] == {"low": None, "high": 75.0, "mains": None}
    raw = mne.io.read_raw(tree / "a.edf", verbose="error")
    from neurolm_jax.eeg.preprocessing import Preprocessing

    options = {"layer": "language.1", "pool": "channel", "seconds": 4, "every": 8}
    want = neurolm_jax.load(runs / "instruct").encode(raw, **options, preprocessing=Preprocessing(low=None))
    np.testing.assert_allclose(columns["feature"][:9], want.values.reshape(9, -1), atol=1e-5)
    with pytest.raises(UserError, match="nothing.edf: no such file or folder"):
        run("nothing.edf", "--out", tmp_path / "y.npz")
    with pytest.raises(SystemExit) as left:
        run(tree, "--out", tmp_path / "y.npz", "--low", "x")
    assert left.value.code == 2 and "want Hz or none, not 'x'" in capsys.readouterr().err


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(runs, tmp_path):
    """Eight hours take little more than two."""
    code = (
        "import sys, pathlib\n"
        "from neurolm_jax.inference.embedding import Options, embed\n"
        "from neurolm_jax.inference.encoder import Encoder\n"
        "embed([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]), Encoder(sys.argv[3]), Options(seconds=8))\n"
        "print(pathlib.Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )  # kB: what getrusage says holds the parent's too
    # With as many arenas as threads ask for, the allocator itself takes more and more.
    peaks, environment = [], os.environ | {"MALLOC_ARENA_MAX": "2"}
    for hours in (2, 8):
        file = write_edf(tmp_path / f"{hours}.edf", noise(0, 3600 * hours, channels=3), names=NAMES[:3])
        line = [sys.executable, "-c", code, file, tmp_path / f"{hours}.npz", runs / "tokenizer"]
        done = subprocess.run(
            list(map(str, line)), cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        peaks.append(float(done.stdout) / 1e3)
    # The samples of six more hours are 133 MB (float64); as much of the rest as 60 MB differs from run to run.
    assert peaks[1] < peaks[0] + 100, peaks


BLOCK = re.compile(r'^```(\w+) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_page_does_what_it_says(runs, tmp_path):
    """docs/features.md, block by block, on small models in place of the quickstart's."""
    blocks = BLOCK.findall((ROOT / "docs" / "features.md").read_text())
    assert len(blocks) == 5
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(runs)
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    printed = {}
    for language, title, text in blocks:
        command = [sys.executable, title]
        if language == "python":
            (tmp_path / title).write_text(text)
        if title == "runs/recordings.py":
            continue  # the next block runs it
        if language == "bash":
            assert text.startswith("source .venv/bin/activate\n")
            command = ["bash", "-euo", "pipefail", "-c", text.partition("\n")[2]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (title, done.stderr)
        printed[title] = done.stdout
    assert printed["embed"] == "runs/features.npz: 950 windows of 19 recordings\n"
    assert printed["runs/read.py"].startswith("10_short.edf (200, 32) ['AF7', 'AF8', 'TP10', 'TP9']")
    assert [line.split(")")[0] for line in printed["runs/encode.py"].splitlines()] == [
        "(50, 4, 32",
        "(50, 2, 4, 32",
        "(50, 2, 4",
    ]
    assert 0 <= float(printed["runs/classify.py"].split()[1]) <= 1  # of models of four steps
