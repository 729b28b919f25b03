"""The command ``scaling``: what it reads of finished runs, the law it fits, and its pages."""

import csv
import dataclasses
import functools
import json
import re
import sys

import numpy as np
import pytest
from small_sweeps import SIZES, finish, law_sweep

from neurolm_jax import scaling
from neurolm_jax.studies import law_report
from neurolm_jax.studies.grids import Amount, grid
from neurolm_jax.studies.law import Law
from neurolm_jax.studies.measures import rows_of
from neurolm_jax.studies.sweep import in_order, settled


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["scaling", *map(str, arguments)])
    scaling.main()
    return capsys.readouterr()


@pytest.fixture
def typed(monkeypatch, small_data):
    """The sweep of this file as if it stood in a file of its own."""

    def named(sweep):
        monkeypatch.setattr("neurolm_jax.studies.sweep.read_sweep", lambda name: sweep)
        return "--sweep", "configs/sweeps/mine.py:x", "--set", f"data.root={small_data}"

    return named


@pytest.fixture
def few_draws(monkeypatch):
    """Laws without a close look at their intervals, where those are not the point."""
    monkeypatch.setattr(law_report, "fit", functools.partial(law_report.fit, resamples=20))


TRUTH = Law(0.5, 20.0, 40.0, 0.35, 0.45)


@pytest.mark.slow
def test_a_study_is_read_and_its_law_found(typed, study, monkeypatch, capsys, tmp_path):
    rng = np.random.default_rng(0)
    finish(
        study,
        tmp_path / "runs",
        lambda row, _: float(TRUTH(row.parameters, row.tokens_seen) * np.exp(5e-4 * rng.standard_normal())),
    )
    line = *typed(law_sweep()), "--workdir", tmp_path, "--fit_only", "--predict=1e5,1e6", "--predict=1e12,1e6"
    said = command(monkeypatch, capsys, *line).out
    folder = tmp_path / "mine-x"
    assert {f.name for f in folder.iterdir()} >= {"report.html", "report.md", "points.csv", "law.json", "sweep.json"}
    found = json.loads((folder / "law.json").read_text())["tokenizer"]
    np.testing.assert_allclose([found["law"]["a"], found["law"]["b"]], [0.35, 0.45], rtol=0.1)
    low, high = found["intervals"]["a"]
    assert found["runs"] == 24 and low <= 0.35 <= high
    rows = list(csv.DictReader((folder / "points.csv").open()))
    assert len(rows) == 24
    for row in rows:
        total = float(row["validation_frequency_loss"]) + float(row["validation_raw_loss"])
        np.testing.assert_allclose(float(row["loss"]), total)
        np.testing.assert_allclose(total, TRUTH(float(row["parameters"]), float(row["tokens_seen"])), rtol=3e-3)
    assert "this is a law of training longer rather than of having more EEG" in said
    assert "N = 1e+12, D = 1e+06: not predicted, N = 1e+12 is more than 10 times beyond" in said
    assert not found["reasons_not_to_extrapolate"] and "N = 1e+05, D = 1e+06: 0.93" in said
    one = found["predictions"]["N = 1e+05, D = 1e+06"]
    assert one["low"] <= TRUTH(1e5, 1e6) <= one["high"] and not one["reasons"]
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    assert "Matched compute: tokenizer" in page and 'src="http' not in page
    for picture in ("tokenizer-n.png", "tokenizer-d.png", "tokenizer-compute.png"):
        assert f"({picture})" in text and (folder / picture).stat().st_size > 5000


def test_an_unfinished_study_says_how_far_it_is(typed, study, monkeypatch, capsys, tmp_path):
    rows = rows_of(study, tmp_path / "runs")
    some = dataclasses.replace(study, points=[p for p in study.points if p.name == "s"])
    finish(some, tmp_path / "runs", lambda row, _: 1.0)
    said = command(monkeypatch, capsys, *typed(law_sweep()), "--workdir", tmp_path, "--fit_only").out
    assert f"6 of {len(rows)} runs are finished" in said and "no law: 3 different pairs of N and D" in said
    said = command(monkeypatch, capsys, *typed(law_sweep()), "--workdir", tmp_path, "--list")
    assert "3 can start, 18 wait" in said.err  # nothing is left that needs the smallest language model


def last_line(file, change):
    """Rewrite the last line of a run's metrics."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in [*lines[:-1], change(lines[-1])]))


def test_a_run_that_diverged_has_no_loss(typed, study, few_draws, monkeypatch, capsys, tmp_path):
    """Its last line lacks what was not finite; the finite values of an earlier one are not its loss."""
    finish(study, tmp_path / "runs", lambda row, _: float(TRUTH(row.parameters, row.tokens_seen)))
    bad = rows_of(study, tmp_path / "runs")[5].folder
    last_line(
        tmp_path / "runs" / bad / "metrics.jsonl",
        lambda line: {key: value for key, value in line.items() if key != "validation_raw_loss"},
    )
    [row] = [row for row in rows_of(study, tmp_path / "runs") if row.loss is None]
    assert row.folder == bad and row.finished and list(row.metrics) == ["validation_frequency_loss"]
    said = command(monkeypatch, capsys, *typed(law_sweep()), "--workdir", tmp_path, "--fit_only").out
    assert f"1 of 24 finished runs lack validation_raw_loss at the last step, {bad}: it was not finite" in said
    assert "runs are finished" not in said
    assert json.loads((tmp_path / "mine-x" / "law.json").read_text())["tokenizer"]["runs"] == 23


def test_a_metric_that_no_run_has_is_named(typed, study, monkeypatch, capsys, tmp_path):
    finish(study, tmp_path / "runs", lambda row, _: 1.0)
    sweep = dataclasses.replace(law_sweep(), metrics={"tokenizer": ("validation_raw_los",)})
    said = command(monkeypatch, capsys, *typed(sweep), "--workdir", tmp_path, "--fit_only").out
    assert "24 of 24 finished runs lack validation_raw_los at the last step" in said
    assert "runs are finished" not in said


def test_shares_of_the_recordings_at_one_compute(typed, small_data, few_draws, monkeypatch, capsys, tmp_path):
    """The design that tells more EEG from longer training: by 0.125 lower a loss, whatever the size."""
    amounts = [Amount(share, 3e11) for share in (0.25, 1.0)]
    sweep = dataclasses.replace(law_sweep(), points=grid(SIZES, amounts, (0, 1)))
    known = settled(sweep, {"data.root": str(small_data)})
    assert len({run.name for run in in_order(known).values() if run.stage == "tokenizer"}) == 16
    finish(known, tmp_path / "runs", lambda row, _: 1.5 + row.parameters / 1e6 - 0.125 * (row.share == 1))
    said = command(monkeypatch, capsys, *typed(sweep), "--workdir", tmp_path, "--fit_only").out
    change = "1 of the recordings instead of 0.25 change the loss by -0.125 (-0.125 to -0.125 over 4 sizes)"
    assert f"at 3e+11 operations, {change}" in said
    for share in ("0.25", "1"):
        assert f"at 3e+11 operations and {share} of the recordings, s has the lowest loss, the smallest tried" in said
    rows = list(csv.DictReader((tmp_path / "mine-x" / "points.csv").open()))
    assert sorted(row["share"] for row in rows) == ["0.25"] * 8 + ["1.0"] * 8
    distinct = {row["share"]: int(row["tokens_distinct"]) for row in rows}
    assert distinct["0.25"] < distinct["1.0"]
    [table] = re.findall(r"^\| s \|.*$", (tmp_path / "mine-x" / "report.md").read_text(), re.M)[:1]
    assert f"{distinct['0.25']:,}" in table


def test_the_lowest_of_all_validations(small_data, tmp_path):
    sweep = settled(dataclasses.replace(law_sweep(seeds=(0,)), value="lowest"), {"data.root": str(small_data)})
    finish(sweep, tmp_path, lambda row, number: 1.0 + number)
    row = rows_of(sweep, tmp_path)[0]
    file = tmp_path / row.folder / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines.insert(1, lines[0] | {"step": 2, "validation_frequency_loss": 0.1, "validation_raw_loss": 0.2})
    lines.insert(2, {"step": 3, "stage": "tokenizer", "loss": 0.0})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    np.testing.assert_allclose(rows_of(sweep, tmp_path)[0].loss, 0.3)
    np.testing.assert_allclose(rows_of(dataclasses.replace(sweep, value="last"), tmp_path)[0].loss, 1.0)
