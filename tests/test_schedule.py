"""How long a run is: steps, or epochs and a fraction that are resolved where the data are opened."""

import math

import pytest
import yaml
from small_data import config
from test_command_line import command, refused

from configs import instruct, language, pretrain, tokenizer
from neurolm_jax import configuration, stages, train
from neurolm_jax.errors import UserError
from neurolm_jax.studies import sweep
from neurolm_jax.training import checkpoint, metrics, schedule


def test_the_presets_take_the_papers_epochs_and_warm_up():
    """Official code: 50 epochs (5 of warm-up), 20 (2), 5 (10% of steps), and 3 for XL."""
    want = {tokenizer: 50, pretrain: 20, instruct: 5}
    for preset, epochs in want.items():
        c = preset.get_config("b")
        assert (c.steps, c.epochs, c.warmup_steps, c.warmup) == (-1, epochs, -1, 0.1)
    assert instruct.get_config("xl").epochs == instruct.get_config("official_xl").epochs == 3
    assert instruct.get_config("l").epochs == 5
    # 24,700 hours of 23 channels fill about 2.05 million rows of 1,024 tokens.
    rows, size = 2_050_000, {tokenizer: 512, pretrain: 480}
    found = {preset: schedule.resolved(preset.get_config("b"), rows, size[preset]) for preset in size}
    assert [(c.steps, c.warmup_steps) for c in found.values()] == [(200_196, 20_020), (85_417, 8_542)]
    c = schedule.resolved(language.get_config("b"))
    assert (c.steps, c.warmup_steps) == (100_000, 1000)


def test_a_step_too_many_rather_than_rows_that_are_never_read():
    c = tokenizer.get_config("debug")
    c.update(epochs=1.5, warmup=0.25)
    got = schedule.resolved(c, rows=11, size=4)
    assert got.steps == math.ceil(1.5 * 11 / 4) == 5 and got.warmup_steps == round(0.25 * 5)
    assert (c.steps, c.warmup_steps) == (-1, -1)  # the given config stays as it is
    assert schedule.resolved(c, rows=1, size=1000).steps == 1
    c.update(steps=0)
    assert (schedule.resolved(c).steps, schedule.resolved(c).warmup_steps) == (0, 0)


def test_a_warm_up_longer_than_the_run_is_refused():
    c = pretrain.get_config("debug")
    c.update(steps=40, warmup_steps=1000)
    with pytest.raises(UserError, match="config.warmup_steps: 1,000 steps of warm-up in a run of 40"):
        configuration.check(c)
    c.update(steps=-1, epochs=2.0)
    configuration.check(c)  # how many steps that is, is not known yet
    with pytest.raises(UserError, match="1,000 steps of warm-up in a run of 50"):
        schedule.resolved(c, rows=100, size=4)
    c.update(epochs=0.0)
    with pytest.raises(UserError, match="config.steps: -1 follows config.epochs, which is 0"):
        configuration.check(c)
    c.update(steps=0)
    configuration.check(c)  # weights are taken over, no step is taken


def test_the_field_that_a_user_gives_decides():
    c = pretrain.get_config("debug")
    configuration.follow(c, {"steps"})
    assert (c.steps, c.epochs) == (-1, 20)  # given as -1: it follows
    c.steps = 40
    configuration.follow(c, {"steps"})
    assert (c.steps, c.epochs, c.warmup) == (40, 0, 0.1)
    c.update(epochs=3.0, warmup=0.5, warmup_steps=7)
    configuration.follow(c, {"epochs", "warmup"})
    assert (c.steps, c.epochs, c.warmup_steps, c.warmup) == (-1, 3, -1, 0.5)
    c.steps = 40
    with pytest.raises(UserError, match="config.epochs: config.steps is given too"):
        configuration.follow(c, {"steps", "epochs"})


def test_a_sweep_tells_its_runs_steps_alone():
    """The command that trains a run is given one length, or it would be refused."""
    overrides = {"epochs": 2.0, "warmup": 0.5, "seed": 1}
    assert sweep._with_length(overrides, {"steps": 7, "warmup_steps": 3}) == {"seed": 1, "steps": 7, "warmup_steps": 3}
    assert sweep._with_length(overrides, {}) == overrides
    run = sweep.Run("pretrain", "configs/pretrain.py:debug", {"epochs": 2.0, "warmup_steps": 3})
    assert (sweep.load(run).steps, sweep.load(run).epochs, sweep.load(run).warmup_steps) == (-1, 2, 3)


def test_a_run_of_epochs_is_known_by_its_steps(small_data, tmp_path, capsys):
    c = config("language", small_data, tmp_path, steps=-1, warmup_steps=-1, warmup=0.5, text_length=1024)
    rows = len(stages.build(c).sources(train=True)["text"][0])
    c.epochs = 5 / rows  # few rows of text have hundreds
    stage, _, sources, _ = train.plan(c)
    assert stage.config.steps == math.ceil(c.epochs * len(sources["text"][0]) / 2) == 3
    assert stage.config.warmup_steps == 2
    train.train(c, tmp_path / "w")
    assert [line["step"] for line in metrics.read(tmp_path / "w")] == [1, 2, 3]
    saved = checkpoint.read_config(tmp_path / "w")
    assert (saved.steps, saved.warmup_steps, saved.epochs) == (3, 2, c.epochs)
    capsys.readouterr()
    train.train(c, tmp_path / "w")
    assert "is trained already, 3 steps" in capsys.readouterr().out
    assert sweep._steps_of_epochs(c) == {"steps": 3, "warmup_steps": 2}


def test_steps_are_shown_where_the_data_are(small_data, tmp_path):
    line = ("neurolm_jax.train", "--config", "configs/language.py:debug", "--print", "--config.text_length=1024")
    done = command(*line, f"--config.data.root={small_data}", "--config.epochs=2")
    rows = len(stages.build(config("language", small_data, tmp_path, text_length=1024)).sources(train=True)["text"][0])
    found = yaml.safe_load(done.stdout)
    steps = math.ceil(2 * rows / 16)
    assert (found["steps"], found["warmup_steps"]) == (steps, round(0.01 * steps)), done.stderr
    done = command(*line, f"--config.data.root={tmp_path}/none", "--config.epochs=2")
    assert yaml.safe_load(done.stdout)["steps"] == -1
    assert done.stderr == f"config.steps: follows from 2 epochs of what is in {tmp_path}/none, which is not there\n"
    refused(*line, "--config.epochs=2", "--config.steps=9", names="config.epochs: config.steps is given too")
