"""Sweeps: their points, the runs these share, and what is refused before any starts."""

import dataclasses
import sys

import pytest
from small_sweeps import ROOT, SIZES, law_sweep, tokenizer

from neurolm_jax import scaling
from neurolm_jax.errors import UserError
from neurolm_jax.studies.grids import PRETRAIN_LANGUAGE, Amount, chain, grid
from neurolm_jax.studies.measures import operations, rows_of
from neurolm_jax.studies.sweep import Point, Run, Sweep, in_order, load, read_sweep, settled
from neurolm_jax.training import schedule

SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.py"))


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
        assert abs(config.warmup_steps / config.steps - schedule.warmup_fraction(plain)) <= 1 / config.steps
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
    for written in ("steps=7", "evaluate_every=77", "validation_rows=777", "seed=7777"):
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


def test_validations_that_are_never_made_are_refused_before_anything_runs(small_data):
    for fields, said in (({"evaluate_every": 0}, "evaluate_every=0"), ({"steps": 0}, "steps=0")):
        points = [Point("x", 0, {"tokenizer": tokenizer(**fields)})]
        sweep = Sweep("x", "law", points, {"tokenizer": ("loss", "validation_raw_loss")})
        with pytest.raises(UserError, match=f"{said}, so the tokenizer stage has no validation_raw_loss"):
            settled(sweep, {"data.root": str(small_data)})
        settled(dataclasses.replace(sweep, metrics={"tokenizer": ("loss",)}), {"data.root": str(small_data)})


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
        settled(read_sweep(f"{name}:b,gpt2"), {"steps": "1000"})  # else they follow from the data
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
