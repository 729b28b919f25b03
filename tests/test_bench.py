"""The benchmarks run and count what they say; their speeds are no matter of a test."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from neurolm_jax import bench
from neurolm_jax.benchmarks import growth, peak_memory, steps
from neurolm_jax.benchmarks.rows import bench_data
from neurolm_jax.benchmarks.starts import bench_start


def test_plan(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "plan", "--hours", "400", "--json", str(tmp_path / "x.json")])
    bench.main()
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["tokens, billions"] == pytest.approx(400 * 3600 * 24 / 1e9, rel=0.2)  # 24 channels on average
    assert 0.85 < found["rows filled"] <= 1  # recordings of seconds fill rows less well
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())


def test_data():
    found = bench_data(0.2)
    assert found["valid tokens in a row"] > 0.9
    row_bytes = found["MB/second/core"] / found["rows/second/core"] * 1e6
    assert row_bytes == pytest.approx(1024 * (400 + 4 + 3 * 4))  # int16 patches, scale, three ids
    assert found["ratio"] == found["rows/second/core"] / found["a file for each sample, rows/second/core"]


@pytest.mark.parametrize("name", ["tokenizer", "pretrain", "instruct"])
def test_steps_are_of_the_rows_that_are_told(name):
    """EEG tokens without padding, and a step's arithmetic as the model's sizes have it."""
    stage = steps.build_stage(name, "debug")
    batch, valid = steps.make_batch(stage)
    assert valid == (4 * 23 * 5 if name == "instruct" else 2 * 23 * 44)
    rows = batch["dialogues"]["mixed"] if name == "instruct" else batch["eeg"]
    assert (rows["segment"] > 0).all() and batch["text"].shape == (1, 1025)
    made = jax.tree.map(lambda x: (x.shape, x.dtype), batch)
    want = {key: (row, size) for key, (row, size) in stage.empty_rows().items()}
    for key, (row, size) in want.items():
        found = jax.tree.map(lambda x, size=size: ((size, *np.shape(x)), np.asarray(x).dtype), row)
        assert made[key] == found


def test_peak_memory_is_of_this_process_alone():
    """Also where the process that started it holds, or held, far more."""
    held = np.ones(1 << 28, np.uint8)
    code = "from neurolm_jax.benchmarks import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.005 < float(done.stdout) < 0.2 and peak_memory() > len(held) / 2**30


@pytest.mark.slow
def test_growth_is_measured_and_drawn(tmp_path, monkeypatch):
    """Memory of attention grows no faster than the row."""
    monkeypatch.setattr(growth, "GRID", {"tokens": (2048, 4096), "layers": (1,), "width": (64,), "channels": (32,)})
    monkeypatch.setattr(growth, "BASE", growth.BASE | {"tokens": 256, "layers": 2, "width": 128})
    monkeypatch.setattr(growth, "STEPS", 1)
    found = growth.bench_grow(plot=tmp_path / "growth.png")
    assert found["tokens 4096: MB beside the state"] < 2.1 * found["tokens 2048: MB beside the state"]
    assert all(value > 0 for value in found.values()) and (tmp_path / "growth.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_start_from_compiled_programs_is_shorter():
    found = bench_start("debug")
    begin, end = (found[f"pretrain cached, to {moment}, seconds"] for moment in ("the first step's begin", "its end"))
    assert 0 < found["import, seconds"] < begin < end
    assert end < found["pretrain cold, to its end, seconds"]


@pytest.mark.slow
def test_train_is_timed():
    found = steps.bench_train("debug", stages=("instruct",))
    assert found["instruct: valid EEG tokens/second"] * found["instruct: seconds a step"] == pytest.approx(460)
    assert 0 < found["instruct: of the best matrix product"] < 1.5 and 0.1 < found["instruct: peak memory, GB"] < 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokenizer", "pretrain", "instruct"])
def test_the_twin_is_of_the_same_size(name):
    """As many trained parameters in PyTorch as here, but for what ours has beside them."""
    from neurolm_jax.benchmarks import twins

    stage = steps.build_stage(name, "debug")
    ours = jax.eval_shape(stage.create, jax.random.key(0)).params
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(ours))
    c = stage.config
    model = twins.Tokenizer(c.tokenizer) if name == "tokenizer" else twins.NeuroLM(c.tokenizer, c.language)
    theirs = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert theirs == pytest.approx(count, rel=0.01)
    assert twins.measure(name, "debug")["valid EEG tokens/second"] > 0
