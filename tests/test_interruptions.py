"""Runs that are told to end, that hang, or that are started again otherwise."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from small_data import config

from neurolm_jax import train
from neurolm_jax.errors import UserError
from neurolm_jax.outputs import locked
from neurolm_jax.training import checkpoint, metrics, provenance
from neurolm_jax.training.watchdog import Watchdog

ROOT = pathlib.Path(__file__).parents[1]
CHILD = """
import os, pathlib, sys, time
from absl import flags
from small_data import config
from neurolm_jax import train
from neurolm_jax.command import run
from neurolm_jax.errors import GO_ON_LATER
from neurolm_jax.training import preemption
flags.FLAGS.mark_as_parsed()
c = config("language", pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), steps=400, checkpoint_every=400)
c.evaluate_every, c.data.workers = 0, 1
exec(sys.argv[4])
with preemption.noticed() as notice:
    run(lambda: None if train.train(c, pathlib.Path(sys.argv[3]), notice=notice) else GO_ON_LATER)
"""


def start(small_data, runs, workdir, change="", **options):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CHILD, small_data, runs, workdir, change]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([str(part) for part in command], env=environment, **pipes | options)


def wait_for(process, condition, seconds=120):
    begin = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begin < seconds
        time.sleep(0.01)


@pytest.mark.slow
def test_a_run_that_is_asked_to_end_saves_and_goes_on_later(small_data, runs, tmp_path):
    """As a cluster asks: the whole group, reading workers too."""
    job = start(small_data, runs, tmp_path / "w", start_new_session=True)
    wait_for(job, lambda: len(metrics.read(tmp_path / "w")) > 20)
    begin = time.monotonic()
    os.killpg(job.pid, signal.SIGTERM)
    said, errors = job.communicate(timeout=60)
    assert job.returncode == 75 and time.monotonic() - begin < 30, errors
    step = checkpoint.newest_step(tmp_path / "w", checkpoint.ALL)
    assert 20 < step < 400 and metrics.read(tmp_path / "w")[-1]["step"] == step
    assert f"asked to end, saved at step {step} of 400; the same command goes on" in said

    said, errors = start(small_data, runs, tmp_path / "w", f"c.steps = {step + 10}").communicate(timeout=200)
    assert f"goes on with config.steps: 400 -> {step + 10}" in said and f"{step + 10} steps, loss" in said, errors
    assert [line["step"] for line in metrics.read(tmp_path / "w")] == list(range(1, step + 11))


def test_one_that_has_nothing_to_save_ends_at_once(small_data, runs, tmp_path):
    """Even while the compiler works, which here is a C function that does not come back."""
    hang = "import ctypes; from neurolm_jax.training import loop\n"
    hang += "loop.memory_told = lambda: (print('compiling', flush=True), ctypes.CDLL(None).sleep(100))"
    job = start(small_data, runs, tmp_path / "w", hang)
    assert job.stdout.readline() == "compiling\n"
    time.sleep(0.5)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=20) == 75
    assert not checkpoint.steps(tmp_path / "w")


def test_a_hang_is_named_and_ended(small_data, runs, tmp_path):
    hang = "from neurolm_jax.data import streams; c.patience.data = 2.0; c.data.workers = 0\n"
    hang += "streams.Steps.__getitem__ = lambda *_: time.sleep(600)"
    job = start(small_data, runs, tmp_path / "w", hang)
    errors = job.communicate(timeout=120)[1]
    assert job.returncode == 1
    assert re.search(r"error: step 1 has waited \d s for data \(config.patience.data\); ended", errors), errors
    assert "in _steps" in errors and "loop.py" in errors  # where it stands


def test_a_watchdog_waits_as_long_as_it_is_told(capfd):
    ended = []
    dog = Watchdog({"step": 1.2, "data": 0.0}, (3, 16), ended.append)
    with dog.phase("step", 7):
        time.sleep(0.3)
    with dog.phase("data", 8):
        time.sleep(2.5)
    assert not ended
    with dog.phase("step", 9):
        time.sleep(3.5)
    assert ended == [1]
    assert "error: process 3 of 16: step 9 has waited" in capfd.readouterr().err
    dog.close()


@pytest.mark.slow
def test_another_config_is_refused_and_harmless_differences_are_told(small_data, runs, tmp_path, capsys):
    workdir = tmp_path / "w"
    shutil.copytree(runs / "pretrain", workdir)
    before = sorted(str(path) for path in workdir.rglob("*"))
    c = config("pretrain", small_data, runs, learning_rate=2e-3, batch_size=4, steps=6)
    with pytest.raises(UserError) as error:
        train.train(c, workdir)
    told = "(batch_size: 2 -> 4, learning_rate: 0.001 -> 0.002)"
    assert f"{workdir}: was begun with another config {told}" in str(error.value)
    c = config("pretrain", small_data, runs, steps=6)
    c.language.dropout = 0.5
    with pytest.raises(UserError, match=r"language.dropout: 0.0 -> 0.5"):
        train.train(c, workdir)
    assert sorted(str(path) for path in workdir.rglob("*")) == before

    # The same fields, but other records under them.
    other = tmp_path / "data"
    shutil.copytree(small_data, other)
    shutil.rmtree(other / "blink" / "recordings" / "train")
    shutil.copytree(other / "scp1" / "recordings" / "train", other / "blink" / "recordings" / "train")
    with pytest.raises(UserError, match=r"was begun with other data \(eeg\)"):
        train.train(config("pretrain", other, runs, steps=6), workdir)
    assert sorted(str(path) for path in workdir.rglob("*")) == before

    c = config("pretrain", small_data, runs, steps=5, log_every=2)
    c.data.threads = 2
    train.train(c, workdir)
    said = capsys.readouterr().out
    for line in ("config.steps: 4 -> 5", "config.log_every: 1 -> 2", "config.data.threads: 4 -> 2"):
        assert f"{workdir}: goes on with {line}\n" in said
    assert checkpoint.newest_step(workdir) == 5


def test_a_checkpoint_tells_what_it_was_made_with(runs):
    import importlib.metadata

    meta = checkpoint.read_meta(runs / "pretrain")
    assert meta["versions"] == {name: importlib.metadata.version(name) for name in provenance.PACKAGES}
    found = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True)
    assert found.returncode or meta["git"].removesuffix("+changes") == found.stdout.strip()
    assert meta["config"]["batch_size"] == 2 and meta["position"] == meta["step"] == 4
    losses = {line["step"]: line.get("validation_loss", 1e9) for line in metrics.read(runs / "pretrain")}
    best = min(losses, key=losses.get)
    assert meta["best"] == {"step": best, "validation_loss": losses[best]}
    old = meta | {"versions": meta["versions"] | {"jax": "0.1"}, "git": "abc"}
    c = config("pretrain", runs / "data", runs)
    lines = provenance.check("w", old, c, meta["data"])
    assert [line.split(" -> ")[0] for line in lines] == ["jax: 0.1", "code: abc"]


def test_two_processes_do_not_train_in_one_workdir(small_data, runs, tmp_path):
    with locked(tmp_path / "w"):
        job = start(small_data, runs, tmp_path / "w")
        errors = job.communicate(timeout=120)[1]
    assert job.returncode == 2 and f"error: {tmp_path}/w: another process works in it" in errors
    with locked(tmp_path / "w"):
        pass


def test_a_stage_from_weights_on_their_way_is_told(small_data, runs, tmp_path, caplog):
    shutil.copytree(runs / "language", tmp_path / "language")
    shutil.rmtree(tmp_path / "language" / "checkpoints" / "4")
    c = config("tokenizer", small_data, runs)
    c.initial.language = str(tmp_path / "language")
    train.plan(c)
    assert f"config.initial.language: {tmp_path}/language is at step 2 of 4; what starts from it now" in caplog.text
