"""The benchmarks run and count what they say; their speeds are no matter of a test."""

import json
import sys

import pytest

from neurolm_jax import bench
from neurolm_jax.benchmarks.rows import bench_data


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
