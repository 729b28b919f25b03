"""Sweeps: their runs, what is read of them, and the pages; runs themselves are ``train``'s, tested elsewhere."""

import csv
import dataclasses
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from small_data import NAMES

from neurolm_jax import scaling
from neurolm_jax.errors import JobError, UserError
from neurolm_jax.studies import ablations, execution
from neurolm_jax.studies.grids import PRETRAIN_LANGUAGE, Amount, ablation, chain, everywhere, grid
from neurolm_jax.studies.law import Law
from neurolm_jax.studies.measures import Row, operations, rows_of
from neurolm_jax.studies.sweep import Point, Run, Sweep, in_order, load, read_sweep, settled
from neurolm_jax.training.preemption import Notice

ROOT = pathlib.Path(__file__).parents[1]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.py"))
SMALL = {"text_length": 16, "text_batch_size": 2, "batch_size": 2}


def tokenizer(width=32, layers=2, **fields):
    """A debug-size run that starts from a language model of its width."""
    language = Run("language", "configs/language.py:debug", {"language.width": width, "steps": 2, **SMALL})
    model = {f"tokenizer.encoder.{name}": value for name, value in (("width", width), ("layers", layers))}
    parts = {
        "data.train": tuple(f"{name}/recordings/train" for name in NAMES),
        "data.validation": tuple(f"{name}/recordings/validation" for name in NAMES),
        "row_length": 128,
        "evaluate_every": 2,
    }
    return Run("tokenizer", "configs/tokenizer.py:debug", {**model, **parts, **SMALL, **fields}, {"language": language})


SIZES = {"s": tokenizer(16, 1), "m": tokenizer(32, 1), "l": tokenizer(64, 2), "xl": tokenizer(128, 2)}


def law_sweep(compute=3e11, seeds=(0, 1)):
    amounts = [Amount(share, share * compute) for share in (0.25, 0.5, 1.0)]
    metrics = {"tokenizer": ("validation_frequency_loss", "validation_raw_loss")}
    return Sweep("a study", "law", grid(SIZES, amounts, seeds), metrics)


@pytest.fixture(scope="module")
def study(small_data):
    return settled(law_sweep(), {"data.root": str(small_data)})


def test_points_of_a_budget_cost_the_same(study):
    """Within half a step, by the number of steps and what a step costs; warm-up keeps its share of them."""
    budgets = {}
    for point in study.points:
        [run] = point.runs.values()
        config = load(run)
        budgets.setdefault(point.budget, []).append(config.steps * operations(config))
        each = operations(config)
        assert abs(config.steps * each - float(point.budget)) <= each / 2 + 0.01 * float(point.budget)
        plain = load(SIZES[point.name])
        assert abs(config.warmup_steps / config.steps - plain.warmup_steps / plain.steps) <= 1 / config.steps
    assert len(budgets) == 3 and all(len(found) == 8 for found in budgets.values())
    steps = {point.name: load(point.runs["tokenizer"]).steps for point in study.points if point.budget == "3e+11"}
    assert steps["s"] > steps["m"] > steps["l"] > steps["xl"] > 1


def test_what_is_measured_of_a_point(study, tmp_path):
    rows = rows_of(study, tmp_path)
    assert all(row.loss is None and row.seconds is None for row in rows)
    assert len({row.parameters for row in rows}) == 4
    by_share = {row.budget: row.tokens_distinct for row in rows}
    assert sorted(by_share.values()) == [by_share[f"{share * 3e11:.3g}"] for share in (0.25, 0.5, 1.0)]
    # By hand, of one layer of width 16: convolutions 1 -> 16 -> 16 -> 16, kernels of 15, 3 and 3, their norms ...
    w, mlp = 16, 4
    embedding = (15 * 16 + 16) + 2 * (3 * 16 * 16 + 16) + 3 * 2 * 16 + (25 * 16 + 2) * w + w
    found = next(row for row in rows if row.name == "s").parameters
    blocks = 3 * (3 * w * w + w * w + 2 * mlp * w * w)  # encoder and two decoders, kernels alone
    heads = (w * w + w * 16) + 2 * 16 * w + (w * w + w * 100) + (w * w + w * 200) + w * 256 + 256 * 2
    assert embedding + blocks + heads < found < 1.1 * (embedding + blocks + heads)


def test_shared_runs_are_trained_once(study):
    runs = in_order(study)
    assert [run.stage for run in runs.values()].count("language") == 4
    assert [run.stage for run in runs.values()].count("tokenizer") == 24
    names = list(runs)
    for name, run in runs.items():
        assert all(names.index(earlier.name) < names.index(name) for earlier in run.initial.values())
    baseline, scratch = (chain("quickstart", changes, 0) for changes in ({}, {PRETRAIN_LANGUAGE: {"steps": 0}}))
    assert [baseline[s].name == scratch[s].name for s in baseline] == [True, True, False, False]
    assert baseline["tokenizer"].name != chain("quickstart", {}, 1)["tokenizer"].name


def test_fields_of_the_command_line(small_data):
    sweep = law_sweep(seeds=(0,))
    found = settled(sweep, {"data.root": str(small_data), "log_every": "7"})
    assert {load(run).log_every for run in in_order(found).values()} == {7}
    assert {load(run).data.root for run in in_order(found).values()} == {str(small_data)}
    for fields, said in (
        ({"nonsense": "1"}, "--set nonsense: no config"),
        ({"batch_size": "4"}, "or the sweep sets it itself"),
        ({"log_every": "often"}, "log_every"),
        ({"log_every": "0"}, "config.log_every: must lie between"),
    ):
        with pytest.raises(UserError, match=said):
            settled(sweep, fields)


def write_run(folder, steps, lines):
    (folder / "checkpoints" / str(steps)).mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_commands_that_can_start_now(study, tmp_path):
    lines, waiting = execution.ready(study, tmp_path)
    assert (len(lines), waiting) == (4, 24)
    languages = [run for run in in_order(study).values() if run.stage == "language"]
    for run, line in zip(languages, lines):
        words = shlex.split(line)
        assert words[:3] == [sys.executable, "-m", "neurolm_jax.train"]
        assert words[words.index("--workdir") + 1] == str(tmp_path / run.name)
    write_run(tmp_path / languages[0].name, 2, [])
    write_run(tmp_path / languages[1].name, 1, [])  # on its way: one of two steps
    lines, waiting = execution.ready(study, tmp_path)
    assert (len(lines), waiting) == (3 + 6, 18)
    started = shlex.split(lines[1])
    assert f"--config.initial.language={tmp_path / languages[0].name}" in started
    assert "--config.data.train=('blink/recordings/train', 'scp1/recordings/train', 'eyes/recordings/train')" in started
    assert any(str(tmp_path / languages[1].name) in shlex.split(line) for line in lines)  # which goes on
    for run in languages:
        write_run(tmp_path / f"{run.name}x", 2, [])  # others' folders do not count
    assert execution.ready(study, tmp_path) == (lines, waiting)


def test_answers_are_evaluated_with_the_task_files_of_their_own_run(tmp_path):
    """What the sweep names is trusted, and nothing is where no file is named."""
    for tasks, trusted in ((("blink", "mine.py"), True), (("blink", "eyes"), False)):
        run = chain("quickstart", {"instruct": {"data.tasks": tasks}}, 0)["instruct"]
        point = Point("baseline", 0, {"instruct": run})
        metrics = {"instruct": ("validation_answer_loss",)}
        sweep = Sweep("t", "ablation", [point], metrics, baseline="baseline", evaluate=True)
        runs = tmp_path / str(trusted)
        for one in in_order(sweep).values():
            write_run(runs / one.name, load(one).steps, [])
        [line], _ = execution.ready(sweep, runs)
        words = shlex.split(line)
        assert words[1:3] == ["-m", "neurolm_jax.evaluate"] and words[words.index("--split") + 1] == "validation"
        assert words[words.index("--checkpoint") + 1] == str(runs / run.name)
        assert ("--trust_code" in words) == trusted


CONFIG = """
from configs import tokenizer

def get_config():
    c = tokenizer.get_config("debug")
    c.update({})
    return c
"""


def test_a_runs_folder_is_of_what_its_config_holds(tmp_path):
    """Not of the names of files: what has been edited is another run, what comes to the same is the same."""
    file = tmp_path / "mine.py"

    def named(written="", **run):
        file.write_text(CONFIG.format(written))
        return Run("tokenizer", str(file), **run).name

    plain = named()
    assert plain == named() == Run("tokenizer", "configs/tokenizer.py:debug").name
    assert named("learning_rate=0.0125") == named(overrides={"learning_rate": 0.0125}) != plain
    for written in ("steps=7", "evaluate_every=77", "validation_batches=777", "seed=7777"):
        assert named(written) != plain
    for field, value in (("data.root", "elsewhere"), ("data.validation", ("eeg",)), ("data.share", 0.5)):
        assert named(overrides={field: value}) != plain
    for field, value in (("log_every", 3), ("compilation_cache", "c"), ("mesh.fsdp", 2), ("patience.step", 9.0)):
        assert named(overrides={field: value}) == plain
    languages = [Run("language", "configs/language.py:debug", {"steps": steps}) for steps in (1, 2)]
    names = {named(initial={"language": language}) for language in languages}
    assert len(names | {plain}) == 3
    same = Run("tokenizer", str(file), {"initial.language": "w"}, {"language": languages[0]})
    assert same.name in names


def test_what_is_left_open_is_told_from_what_is_set(small_data):
    """Two runs that come to the same until the command line has a field that one of them sets itself."""
    given = load(tokenizer()).learning_rate
    sizes = {"open": tokenizer(), "set": tokenizer(learning_rate=given)}
    sweep = Sweep("x", "law", grid(sizes, [Amount(1.0, 0.0)], (0,)), {"tokenizer": ("validation_raw_loss",)})
    found = settled(sweep, {"data.root": str(small_data), "learning_rate": "0.25"})
    rates = {point.name: load(point.runs["tokenizer"]).learning_rate for point in found.points}
    assert rates == {"open": 0.25, "set": given}


def finish(study, folder, loss):
    """Folders as ``train`` leaves them, with a known loss for each point, in two terms."""
    for number, row in enumerate(rows_of(study, folder)):
        if not (folder / row.folder).exists():
            value = loss(row, number)
            parts = {"validation_frequency_loss": 0.4 * value, "validation_raw_loss": 0.6 * value}
            first = {"step": 1, "stage": row.stage, "seconds": 1.0} | {name: 2 * part for name, part in parts.items()}
            last = {"step": row.steps, "stage": row.stage, "seconds": 9.0} | parts
            write_run(folder / row.folder, row.steps, [first, last])


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


TRUTH = Law(0.5, 20.0, 40.0, 0.35, 0.45)


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


def test_a_run_that_diverged_has_no_loss(typed, study, monkeypatch, capsys, tmp_path):
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


def test_validations_that_are_never_made_are_refused_before_anything_runs(small_data):
    for fields, said in (({"evaluate_every": 0}, "evaluate_every=0"), ({"steps": 0}, "steps=0")):
        points = [Point("x", 0, {"tokenizer": tokenizer(**fields)})]
        sweep = Sweep("x", "law", points, {"tokenizer": ("loss", "validation_raw_loss")})
        with pytest.raises(UserError, match=f"{said}, so the tokenizer stage has no validation_raw_loss"):
            settled(sweep, {"data.root": str(small_data)})
        settled(dataclasses.replace(sweep, metrics={"tokenizer": ("loss",)}), {"data.root": str(small_data)})


def test_shares_of_the_recordings_at_one_compute(typed, small_data, monkeypatch, capsys, tmp_path):
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


def row(name, seed, codes="t0", stage="pretrain", **metrics):
    known = {"budget": "", "share": 1.0, "parameters": 1, "tokens_seen": 1.0, "tokens_distinct": 1, "steps": 1}
    known |= {"operations": 1.0, "seconds": 1.0, "finished": True, "loss": None, "folder": f"{name}{seed}"}
    return Row(name=name, seed=seed, stage=stage, codes=codes, metrics=metrics, **known)


def test_an_ablations_differences_are_of_one_seed():
    base, other = {0: 1.0, 1: 2.0, 2: 4.0}, {0: 1.5, 1: 2.25, 2: 4.125, 7: 99.0}
    rows = [row("baseline", s, validation_eeg_loss=x) for s, x in base.items()]
    rows = [row("new", s, validation_eeg_loss=x) for s, x in other.items()] + rows
    found = ablations.compare(rows, "validation_eeg_loss", "baseline")
    assert list(found) == ["baseline", "new"] and not found["baseline"].differences
    assert found["new"].differences == [0.5, 0.25, 0.125] and found["new"].agrees
    [said], [table], told = ablations.report("pretrain", rows, "baseline")
    assert "new is worse on every seed, by 0.292 on average (that 3 seeds agree comes by chance in 25.0%)" in said
    assert table.rows[0][2] == "2.333" and told["validation_eeg_loss"]["baseline"]["values"] == [1.0, 2.0, 4.0]
    rows.append(row("mixed", 0, validation_eeg_loss=0.5))
    rows += [row("mixed", s, validation_eeg_loss=base[s] + 1) for s in (1, 2)]
    rows += [row("few", s, validation_eeg_loss=base[s] - 1) for s in (0, 1)]
    rows += [row("same", s, validation_eeg_loss=base[s]) for s in base]
    said = " ".join(ablations.report("pretrain", rows, "baseline")[0])
    assert "mixed differs by +0.5, which its seeds do not agree on" in said
    assert "few differs by -1; 2 seeds are too few" in said and "same changes nothing" in said


def test_nothing_is_concluded_from_losses_over_other_codes():
    """Pre-training's are over the tokenizer's codes: their difference says nothing, that of answers and text does."""
    measured = {"validation_eeg_loss": 1.0, "validation_loss": 2.0, "validation_text_loss": 3.0}
    better = {name: value / 2 for name, value in measured.items()}
    rows = [row("baseline", seed, f"t{seed}", **measured) for seed in range(3)]
    rows += [row("other", seed, f"other{seed}", **better) for seed in range(3)]
    rows += [row("same", seed, f"t{seed}", **better) for seed in range(3)]
    said, [table], told = ablations.report("pretrain", rows, "baseline")
    assert [line for line in said if "eeg loss" in line] == [
        "pretrain, eeg loss: same is better on every seed, by 0.5 on average"
        " (that 3 seeds agree comes by chance in 25.0%)",
        "pretrain, eeg loss: over other codes than the baseline's, nothing to compare: other",
    ]
    assert sum("other is better" in line for line in said) == 1  # text
    assert told["validation_eeg_loss"]["other"]["differences"] == []
    assert ("eeg loss", "other", "0.5", "0.5 to 0.5", "", "") in table.rows
    rows = [row("baseline", 0, "256", "tokenizer", validation_codes_used=0.5, validation_raw_loss=1.0)]
    rows += [row("small", 0, "64", "tokenizer", validation_codes_used=1.0, validation_raw_loss=2.0)]
    said = ablations.report("tokenizer", rows, "baseline")[0]
    assert "codes used: over other codes" in said[0] and "raw loss: small differs by +1" in said[1]


def test_what_a_loss_is_over_is_read_of_the_runs(study, small_data, tmp_path):
    """Codes of one number are not the same ones: another tokenizer's differ."""
    variants = {"other": {"tokenizer": {"raw_loss_weight": 0.0}}, "scratch": {PRETRAIN_LANGUAGE: {"steps": 0}}}
    sweep = settled(ablation("x", "quickstart", variants, ("pretrain",), (0,)), {"data.root": str(small_data)})
    rows = {row.name: row for row in rows_of(sweep, tmp_path)}
    assert rows["baseline"].codes == rows["scratch"].codes != rows["other"].codes
    assert {row.codes for row in rows_of(study, tmp_path)} == {str(load(SIZES["s"]).tokenizer.codes)}


def test_a_change_of_the_tokenizer_goes_into_every_later_config():
    runs = chain("quickstart", everywhere({"tokenizer.encoder.causal": False}), 2)
    assert [load(runs[stage]).tokenizer.encoder.causal for stage in ("tokenizer", "pretrain", "instruct")] == [
        False
    ] * 3
    assert [load(runs[stage]).seed for stage in runs] == [0, 2, 2, 2]
    b = chain("b,weights/gpt2", {}, 0)
    assert load(b["language"]).initial.gpt2 == "weights/gpt2" and load(b["language"]).steps == 0
    for wrong in ("huge", "b", ""):
        with pytest.raises(UserError, match="must be quickstart, or b,FOLDER"):
            ablation("x", wrong, {})


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_of_the_project_can_be_read(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    name = f"configs/sweeps/{file.name}"
    assert f"--sweep {name}" in file.read_text()
    sweep = settled(read_sweep(name), {"log_every": "25"})
    if sweep.kind == "ablation":
        base = [point for point in sweep.points if point.name == sweep.baseline]
        for point in sweep.points:
            for stage, run in point.runs.items():
                [same] = [p.runs[stage] for p in base if p.seed == point.seed]
                assert (run.name == same.name) == (point.name == sweep.baseline)
                if stage == "pretrain":  # whose losses are over codes
                    assert run.initial["tokenizer"].name == same.initial["tokenizer"].name
        settled(read_sweep(f"{name}:b,gpt2"), {})
    else:
        pairs = {(point.name, point.budget) for point in sweep.points}
        assert len(pairs) >= 12 and len(sweep.points) == 2 * len(pairs)


def test_sweeps_of_the_project_are_found_from_anywhere(monkeypatch, tmp_path):
    """As config files are: by the same name in any folder, unless a file of that name lies there."""
    monkeypatch.chdir(ROOT)
    here = settled(read_sweep("configs/sweeps/codebook.py"), {})
    monkeypatch.chdir(tmp_path)
    there = settled(read_sweep("configs/sweeps/codebook.py"), {})
    assert list(in_order(there)) == list(in_order(here))
    with pytest.raises(UserError, match="--sweep configs/sweeps/none.py: no such file.* configs/sweeps/codebook.py"):
        read_sweep("configs/sweeps/none.py")
    own = tmp_path / "configs" / "sweeps" / "codebook.py"
    own.parent.mkdir(parents=True)
    own.write_text("def get_config():\n    return 3\n")
    with pytest.raises(UserError, match="gives no Sweep"):
        read_sweep("configs/sweeps/codebook.py")


def test_what_is_no_sweep_is_refused(tmp_path, monkeypatch):
    point = Point("x", 0, {"tokenizer": tokenizer()})
    good = {"title": "t", "kind": "law", "points": [point], "metrics": {"tokenizer": ("loss",)}}
    for wrong, said in (
        ({"kind": "table"}, "kind must be one of"),
        ({"points": [point, point]}, "points must differ"),
        ({"points": []}, "there must be one"),
        ({"metrics": {}}, "no metrics of tokenizer"),
        ({"points": [Point("x", 0, {"language": tokenizer()})]}, "the language stage reads no EEG"),
        ({"kind": "ablation", "baseline": "y"}, "no point is named as its baseline"),
        ({"kind": "ablation", "baseline": "x", "value": "lowest"}, "value='lowest' is a law's alone"),
    ):
        with pytest.raises(UserError, match=said):
            Sweep(**good | wrong)
    file = tmp_path / "mine.py"
    for text, said in (
        ("def get_config():\n    return 3\n", "gives no Sweep"),
        ("x = 1\n", "get_config"),
        ("(", "mine.py"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=said):
            read_sweep(str(file))
    with pytest.raises(UserError, match="none.py"):
        read_sweep(str(tmp_path / "none.py"))
    with pytest.raises(UserError, match="is of stage 'pretrain', not tokenizer"):
        load(Run("tokenizer", "configs/pretrain.py:debug"))
    for words, said in (
        (["--predict", "3"], "--predict 3: want N,D"),
        (["--predict", "3,x"], "want two numbers above 0"),
        (["--predict", "0,1"], "want two numbers above 0"),
        (["--set", "steps"], "--set steps: want FIELD=VALUE"),
    ):
        monkeypatch.setattr(sys, "argv", ["scaling", "--sweep", "x.py", "--workdir", "w", *words])
        with pytest.raises(UserError, match=said):
            scaling.main()


def commands(monkeypatch, *programs):
    steps = [(f"run-{i}", [sys.executable, "-c", program]) for i, program in enumerate(programs)]
    monkeypatch.setattr(execution, "_open_steps", lambda sweep, runs: steps)


def test_runs_that_fail_end_the_sweep_with_their_reason(monkeypatch, tmp_path, capsys):
    armed = Notice()
    armed.armed = True
    mark = f"import pathlib; pathlib.Path({str(tmp_path)!r}, 'ran').touch()"
    commands(monkeypatch, "print('error: config.x: is bad'); raise SystemExit(2)", mark)
    with pytest.raises(UserError, match="run-0.log: config.x: is bad"):
        execution.run_all(None, tmp_path, armed)
    commands(monkeypatch, "raise SystemExit(7)", mark)
    with pytest.raises(JobError, match="run-0.log: it ended with code 7"):
        execution.run_all(None, tmp_path, armed)
    assert not (tmp_path / "ran").exists()
    commands(monkeypatch, "print(1)", mark)
    assert execution.run_all(None, tmp_path, armed) and (tmp_path / "ran").exists()
    assert "2 of 2: run-1" in capsys.readouterr().out


def test_a_sweep_that_is_asked_to_end_hands_it_on(tmp_path):
    """The command in a process of its own; the run at hand has time to save."""
    child = (
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n    pathlib.Path('saved').touch(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\npathlib.Path('started').touch()\ntime.sleep(60)\n"
    )
    program = (
        "import pathlib, sys\nfrom neurolm_jax.studies import execution\nfrom neurolm_jax.training import preemption\n"
        f"steps = [(name, [sys.executable, '-c', {child!r}]) for name in 'ab']\n"
        "execution._open_steps = lambda *_: steps\n"
        "with preemption.noticed() as notice:\n    notice.armed = True\n"
        "    print(execution.run_all(None, pathlib.Path('.'), notice))\n"
    )
    line = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
    job = subprocess.Popen(line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "started").exists():
        assert job.poll() is None
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 0 and said.endswith("False\n") and "asked to end" in said
    assert (tmp_path / "saved").exists() and not (tmp_path / "b.log").exists()


def sweep_command(*arguments):
    return [sys.executable, "-m", "neurolm_jax.scaling", *map(str, arguments)]


@pytest.mark.slow
def test_a_sweep_runs_resumes_and_shares(small_data, tmp_path):
    """Two sizes by the command itself, asked to end in the second of four runs; what is finished is not run again."""
    file, runs = tmp_path / "two.py", tmp_path / "w" / "runs"
    sizes = {"s": tokenizer(16, 1), "m": tokenizer(32, 1)}
    file.write_text(
        "from neurolm_jax.studies.grids import Amount, grid\nfrom neurolm_jax.studies.sweep import Run, Sweep\n"
        f"def get_config():\n    points = grid({sizes!r}, [Amount(1.0, 0.0)], (0,))\n"
        "    return Sweep('two', 'law', points, {'tokenizer': ('validation_raw_loss',)})\n"
    )
    line = sweep_command("--sweep", file, "--workdir", tmp_path / "w")
    line += ["--set", f"data.root={small_data}", "--set", "steps=4"]
    job = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    begun = {}
    while "2" not in begun:
        said = job.stdout.readline()
        assert said, f"ended with {job.wait()}"
        if found := re.match(r"(\d) of 4: (\S+)", said):
            begun[found[1]] = found[2]
    job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=300)
    assert job.returncode == 0 and "asked to end, the same command goes on" in said and "3 of 4" not in said
    first, second = begun["1"], begun["2"]
    [saved] = (runs / first / "checkpoints").iterdir()
    before = saved.stat().st_mtime_ns
    assert first.startswith("language-") and saved.name == "2"
    assert not (runs / second / "checkpoints" / "4").exists()

    def go_on(*more):
        return subprocess.run([*line, *more], cwd=ROOT, capture_output=True, text=True, timeout=900)

    left = go_on("--list")
    folders = [
        pathlib.Path(words[words.index("--workdir") + 1]).name for words in map(shlex.split, left.stdout.splitlines())
    ]
    assert "2 can start, 1 wait for them" in left.stderr and len(folders) == 2
    assert second in folders and first not in folders
    rest = go_on()
    assert rest.returncode == 0, rest.stderr
    assert f"1 of 3: {second}" in rest.stdout and "3 of 3: tokenizer-" in rest.stdout and first not in rest.stdout
    assert "no law: 2 different pairs" in rest.stdout and saved.stat().st_mtime_ns == before
    rows = list(csv.DictReader((tmp_path / "w" / "two" / "points.csv").open()))
    assert len(rows) == 2 and all(float(row["loss"]) > 0 and row["steps"] == "4" for row in rows)
    for row in rows:
        steps = [json.loads(one)["step"] for one in (runs / row["folder"] / "metrics.jsonl").read_text().splitlines()]
        assert steps == sorted(set(steps)) and steps[-1] == 4
    again = go_on()
    assert again.returncode == 0 and " of " not in again.stdout.split("no law")[0]
