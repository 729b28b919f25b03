"""Commands as a user types them: bad input is one line on standard error and exit code 2, nothing half-written."""

import json
import os
import pathlib
import subprocess
import sys

import mne
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]


def command(*arguments, **environment):
    line = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=os.environ | environment, timeout=300)


def refused(*arguments, names):
    found = command(*arguments)
    assert found.returncode == 2, found.stderr
    lines = [line for line in found.stderr.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("error: "), found.stderr
    for name in names if isinstance(names, tuple) else (names,):
        assert str(name) in lines[0]


TRAIN = ("neurolm_jax.train", "--config", "configs/quickstart.py:tokenizer")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--config.nonsense=1",), "nonsense"),
        (("--config.steps=many",), ("steps", "many")),
        (("--config.tokenizer.encoder.layer=2",), "layer"),
        (("--config.data.root=nowhere/at/all",), "nowhere/at/all"),
        (("--config.steps=-3",), "config.steps"),
        (("surplus",), "surplus"),
        (("--nonsense",), "nonsense"),
    ],
)
def test_train_refuses(arguments, names, tmp_path):
    refused(*TRAIN, "--workdir", tmp_path / "w", *arguments, names=names)
    assert not (tmp_path / "w").exists()


def test_train_refuses_other_configs(tmp_path):
    refused("neurolm_jax.train", "--workdir", tmp_path, names="--config is missing")
    refused("neurolm_jax.train", "--config", "configs/none.py:b", "--workdir", tmp_path, names="configs/none.py")
    refused("neurolm_jax.train", "--config", "configs/tokenizer.py:huge", "--workdir", tmp_path, names="huge")
    refused("neurolm_jax.train", "--config", "configs/quickstart.py:sleep", "--workdir", tmp_path, names="sleep")


def test_a_truncated_shard_is_named(small_data, tmp_path):
    import shutil

    shutil.copytree(small_data, tmp_path / "data")
    [shard] = (tmp_path / "data" / "blink" / "recordings" / "train").glob("*.array_record")
    shard.write_bytes(shard.read_bytes()[:-100])
    refused(*TRAIN, "--workdir", tmp_path / "w", f"--config.data.root={tmp_path / 'data'}", names=shard)
    refused("neurolm_jax.inspect", shard.parent, names=shard)
    assert not (tmp_path / "w").exists()


def raw_file(path, samples):
    info = mne.create_info(["Fp1", "Cz"], 256.0, "eeg", verbose="error")
    mne.io.RawArray(samples, info, verbose="error").save(path, verbose="error")
    return path


def test_prepare_refuses(tmp_path):
    samples = 2e-5 * np.random.default_rng(0).standard_normal((2, 256 * 10))
    samples[1] = np.nan
    samples[0, ::200] = np.nan
    bad = raw_file(tmp_path / "bad_raw.fif", samples)
    out = tmp_path / "out"
    refused(
        "neurolm_jax.prepare",
        "eeg",
        bad,
        "--out",
        out,
        names=(bad, "no 2 seconds in a row are fit for use (missing 20"),
    )
    refused("neurolm_jax.prepare", "eeg", tmp_path / "none", "--out", out, names=tmp_path / "none")
    refused("neurolm_jax.prepare", "task", "blink", tmp_path / "none", "--out", out, names=tmp_path / "none")
    refused("neurolm_jax.prepare", "task", "sleep", tmp_path, "--out", out, names="sleep")
    refused("neurolm_jax.prepare", "text", tmp_path / "none", "--out", out, names=tmp_path / "none")
    (tmp_path / "broken.edf").write_bytes(b"0       " * 100)
    refused("neurolm_jax.prepare", "eeg", tmp_path / "broken.edf", "--out", out, names="broken.edf")
    refused("neurolm_jax.prepare", "eeg", bad, "--out", tmp_path, names="was not made by prepare")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad_raw.fif", "broken.edf"]


def test_prepare_eeg_and_inspect(tmp_path):
    samples = 2e-5 * np.random.default_rng(0).standard_normal((2, 256 * 10))
    raw_file(tmp_path / "one_raw.fif", samples)
    raw_file(tmp_path / "copy_raw.fif", samples)
    found = command("neurolm_jax.prepare", "eeg", tmp_path, "--out", tmp_path / "out", "--mains", "50")
    assert found.returncode == 0, found.stderr
    assert "one_raw.fif: a copy of" in found.stdout
    found = command("neurolm_jax.inspect", tmp_path / "out")
    assert found.returncode == 0 and "records 1 in 1 shards" in found.stdout
    found = command("neurolm_jax.prepare", "eeg", tmp_path, "--out", tmp_path / "out")
    assert found.returncode == 0 and "already prepared" in found.stdout


@pytest.mark.slow
def test_what_is_tested_on_is_left_out_of_a_corpus_beside_it(tmp_path):
    for i, subject in enumerate(("aaaaaaaa", "aaaaaaab", "aaaaaaac")):
        folder = tmp_path / "tueg" / subject / "s001_2015" / "02_tcp_le"
        folder.mkdir(parents=True)
        raw_file(folder / f"{i}_raw.fif", 2e-5 * np.random.default_rng(i).standard_normal((2, 256 * 10)))
    for name, subject in (("tuab", "aaaaaaaa"), ("elsewhere/tuev", "aaaaaaac")):
        manifest = {
            "format": 1,
            "split": "test",
            "cohort": "tuh",
            "content_hash": name,
            "recordings": [{"hash": "h", "subject": subject}],
        }
        (tmp_path / name / "windows" / "test").mkdir(parents=True)
        (tmp_path / name / "windows" / "test" / "manifest.json").write_text(json.dumps(manifest))
    line = ("neurolm_jax.prepare", "eeg", tmp_path / "tueg", "--out", tmp_path / "eeg")
    refused(*line, "--exclude", f"tuev={tmp_path / 'nowhere'}", names="want NAME=FOLDER")
    refused(*line, "--workers", "-1", names="--workers")
    found = command(*line, "--exclude", f"tuev={tmp_path / 'elsewhere'}", "--workers", "1")
    assert found.returncode == 0, found.stderr
    assert "2 recordings, 0.01 h, are of subjects or recordings tested on" in found.stdout
    assert "subject aaaaaaaa is in tuab" in found.stdout and "subject aaaaaaac is in tuev" in found.stdout
    found = command("neurolm_jax.inspect", tmp_path / "eeg", "--verify")
    assert found.returncode == 0 and "montages LE (1)" in found.stdout, found.stderr
    refused("neurolm_jax.inspect", tmp_path, "--verify", names="no manifest.json")


def test_other_commands_refuse(tmp_path):
    refused("neurolm_jax.inspect", tmp_path / "none", names=tmp_path / "none")
    refused("neurolm_jax.inspect", tmp_path, names="no checkpoint in it")
    refused("neurolm_jax.evaluate", "--checkpoint", tmp_path / "none", names="no checkpoint in it")
    refused("neurolm_jax.report", tmp_path / "none", names="evaluation.json")
    refused("neurolm_jax.evaluate", names="--checkpoint")


def test_importing_the_package_is_light():
    code = "import neurolm_jax, sys; sys.exit(any(m in sys.modules for m in ('jax', 'mne', 'sklearn', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
