import functools
import json
import re
import time

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from small_data import config

from neurolm_jax import inspect, stages, train
from neurolm_jax.errors import UserError
from neurolm_jax.stages import restore
from neurolm_jax.training import checkpoint, loop, metrics, optimizer, saving, sinks
from neurolm_jax.training.mesh import make_mesh


@pytest.mark.parametrize("stage", ["language", "tokenizer", "pretrain", "instruct"])
def test_every_stage_trains_and_reports(runs, stage):
    lines = metrics.read(runs / stage)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        assert line["stage"] == stage and np.isfinite(list(v for k, v in line.items() if k != "stage")).all()
        assert line["tokens_per_second"] > 0 and 0 <= line["data_wait"] <= 1
    assert [line["step"] for line in lines if "validation_loss" in line] == [2, 4]
    assert list((runs / stage / "tensorboard").glob("events*"))
    if stage in ("tokenizer", "pretrain"):
        assert 0 < lines[-1]["validation_codes_used"] <= 1 <= lines[-1]["validation_codes_perplexity"]
    # Untrained, each loss is about the log of the number of its classes.
    first = lines[0]
    if stage == "language":
        np.testing.assert_allclose(first["loss"], np.log(50304), rtol=0.02)
    if stage == "pretrain":
        np.testing.assert_allclose(first["eeg_loss"], np.log(50304 + 64), rtol=0.05)


def test_waiting_counts_where_nothing_is_computed_meanwhile(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    clock = metrics.Clock()
    clock.batch(1.0, 50, idle=False)  # the step before went on
    clock.batch(2.0, 30, idle=True)
    now[0] += 8
    assert clock.read() == {"tokens_per_second": 10.0, "data_wait": 0.25}
    now[0] += 1
    assert clock.read() == {"tokens_per_second": 0.0, "data_wait": 0.0}
    clock.batch(0.0, 60, idle=False)
    now[0] += 2
    with clock.paused():
        now[0] += 100
    now[0] += 1
    assert clock.read()["tokens_per_second"] == 20
    clock.batch(0.0, 60, idle=False)
    now[0] += 3
    assert clock.read()["tokens_per_second"] == 20


def test_later_stages_hold_what_earlier_ones_left(runs):
    mesh = make_mesh()
    language, tokenizer, pretrain, instruct = (
        restore.restore_weights(runs / s, mesh) for s in ("language", "tokenizer", "pretrain", "instruct")
    )
    np.testing.assert_array_equal(tokenizer.extra["text"], language.params["token_embedding"]["table"])
    for later in (pretrain, instruct):
        for part in ("encoder", "code_projection"):
            jax.tree.map(np.testing.assert_array_equal, later.extra["tokenizer"][part], tokenizer.params[part])
        jax.tree.map(np.testing.assert_array_equal, later.extra["state"], tokenizer.extra["state"])
    assert tokenizer.extra["state"].codebook.initialised


def test_speed_is_that_of_steps_without_validations_and_saves(runs, small_data, tmp_path, monkeypatch):
    """Each takes two seconds here, a step of 32 tokens some milliseconds."""

    def slowly(function):
        def slow(*arguments):
            time.sleep(2)
            return function(*arguments)

        return slow

    monkeypatch.setattr(loop.Loop, "_validate", slowly(loop.Loop._validate))
    monkeypatch.setattr(saving.Checkpoints, "save", slowly(saving.Checkpoints.save))
    c = config("language", small_data, runs, steps=5)
    train.train(c, tmp_path)
    lines = metrics.read(tmp_path)
    # Steps 2 and 4 are followed by a validation and a save, in the time until the next line.
    assert all(lines[step - 1]["tokens_per_second"] > 32 / 3 for step in (3, 5)), lines
    assert lines[4]["seconds"] > 8


@pytest.mark.parametrize(
    "stage, earlier, other",
    [
        ("tokenizer", "language", "pretrain"),
        ("pretrain", "language", "instruct"),
        ("pretrain", "tokenizer", "pretrain"),
        ("instruct", "pretrain", "tokenizer"),
    ],
)
def test_a_workdir_of_another_stage_is_refused(runs, small_data, stage, earlier, other):
    """Also where it has the fields that are compared."""
    c = config(stage, small_data, runs)
    c.initial[earlier] = str(runs / other)
    want = f"config.initial.{earlier}: {runs / other} was trained by the stage {other}; name the workdir of a {earlier}"
    with pytest.raises(UserError, match=re.escape(want)):
        train.plan(c)


def test_an_instruct_stage_may_build_on_another(runs, small_data):
    c = config("instruct", small_data, runs)
    c.initial.pretrain = str(runs / "instruct")
    train.plan(c)


def test_a_run_takes_over_the_weights_before_its_first_step(runs, small_data, tmp_path):
    train.train(config("pretrain", small_data, runs, steps=0), tmp_path / "w")
    found = checkpoint.read_arrays(tmp_path / "w")
    language = checkpoint.read_arrays(runs / "language")
    np.testing.assert_array_equal(found["params/language/output"][:50304], language["params/token_embedding/table"])
    for name, array in language.items():
        np.testing.assert_array_equal(found[name.replace("params/", "params/language/")], array)


SLOW = [pytest.param(stage, marks=pytest.mark.slow) for stage in ("tokenizer", "pretrain")]


@pytest.mark.parametrize("stage", ["language", *SLOW, "instruct"])
def test_an_interrupted_run_ends_bit_identical(runs, small_data, tmp_path, stage, monkeypatch):
    c = config(stage, small_data, runs)

    class Killed(Exception):
        pass

    real = sinks.Writer.write

    def write_then_die(writer, step, scalars):
        real(writer, step, scalars)
        if step == 3:  # a step after the last save
            raise Killed

    monkeypatch.setattr(sinks.Writer, "write", write_then_die)
    with pytest.raises(Killed):
        train.train(c, tmp_path)
    monkeypatch.setattr(sinks.Writer, "write", real)
    assert checkpoint.newest_step(tmp_path) == 2
    train.train(c, tmp_path)
    assert checkpoint.digest(checkpoint.read_arrays(tmp_path)) == checkpoint.digest(
        checkpoint.read_arrays(runs / stage)
    )
    assert [line["step"] for line in metrics.read(tmp_path)] == [1, 2, 3, 4]
    losses = [[line["loss"] for line in metrics.read(w)] for w in (tmp_path, runs / stage)]
    assert losses[0] == losses[1]


def test_inspect_prints_step_and_digest(runs, small_data, capsys):
    inspect.inspect_checkpoint(runs / "tokenizer")
    printed = capsys.readouterr().out
    assert "step 4\n" in printed
    assert f"digest {checkpoint.digest(checkpoint.read_arrays(runs / 'tokenizer'))}" in printed
    inspect.inspect_shards(small_data / "blink" / "windows" / "test")
    assert "records 12 in 1 shards" in capsys.readouterr().out


def test_a_finished_run_is_left_alone(runs, small_data, capsys):
    before = checkpoint.digest(checkpoint.read_arrays(runs / "tokenizer"))
    train.train(config("tokenizer", small_data, runs), runs / "tokenizer")
    assert "trained already" in capsys.readouterr().out
    assert checkpoint.digest(checkpoint.read_arrays(runs / "tokenizer")) == before


def test_training_refuses_test_recordings(small_data, runs, tmp_path):
    c = config("tokenizer", small_data, runs)
    c.data.train = ("blink/windows/test",)
    with pytest.raises(UserError, match="is a test part"):
        train.train(c, tmp_path / "w")
    assert not (tmp_path / "w").exists()

    # A test part copied under another name and split is known by its content.
    import shutil

    root = tmp_path / "data"
    shutil.copytree(small_data, root)
    shutil.rmtree(root / "blink" / "recordings" / "train")
    shutil.copytree(root / "blink" / "windows" / "test", root / "blink" / "recordings" / "train")
    file = root / "blink" / "recordings" / "train" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"split": "train"}))
    with pytest.raises(UserError, match="of the test part"):
        train.train(config("tokenizer", root, runs), tmp_path / "w")


def test_fields_are_checked_before_anything_is_made(small_data, runs, tmp_path):
    cases = {"steps": -1, "batch_size": 0, "learning_rate": 0.0, "stage": "x"}
    for field, value in cases.items():
        with pytest.raises(UserError, match=field):
            train.train(config("tokenizer", small_data, runs, **{field: value}), tmp_path / "w")
    c = config("pretrain", small_data, runs)
    for weights in (("blink",) * 3, (float("nan"), 1.0, 1.0), (1.0, 1.0)):
        c.data.weights = weights
        with pytest.raises(UserError, match="config.data.weights: want a weight for each of"):
            train.train(c, tmp_path / "w")
    c = config("instruct", small_data, runs)
    for tasks, said in (((), "want one or more"), (("x",), "unknown task 'x'")):
        c.data.tasks = tasks
        with pytest.raises(UserError, match=f"config.data.tasks: {said}"):
            train.train(c, tmp_path / "w")
    c = config("pretrain", small_data, runs)
    c.language.heads = 5
    with pytest.raises(UserError, match="width 32 is not divisible by 5 heads"):
        train.train(c, tmp_path / "w")
    c = config("pretrain", small_data, runs)
    c.initial.tokenizer = str(tmp_path / "none")
    with pytest.raises(UserError, match="none: no checkpoint in it"):
        train.train(c, tmp_path / "w")
    c = config("pretrain", small_data, runs)
    c.data.root = str(tmp_path / "none")
    with pytest.raises(UserError, match="data.root: .*none: no such folder"):
        train.train(c, tmp_path / "w")
    c = config("pretrain", small_data, runs)
    c.mesh.data = 3
    with pytest.raises(UserError, match="does not match 1 devices"):
        train.train(c, tmp_path / "w")
    c.mesh.update(data=-1, fsdp=0)
    with pytest.raises(UserError, match="'fsdp': 0.* does not match 1 devices"):
        train.train(c, tmp_path / "w")
    assert not (tmp_path / "w" / "checkpoints").exists()


def test_a_run_does_not_go_on_with_another_optimizers_checkpoint(small_data, runs, tmp_path, monkeypatch):
    c = config("language", small_data, runs, steps=2)
    with monkeypatch.context() as patch:
        patch.setattr("neurolm_jax.training.state.make_optimizer", lambda config: optax.scale_by_adam())
        train.train(c, tmp_path / "w")
    c.steps = 4
    with pytest.raises(UserError, match="checkpoints/2: its optimizer is not this run's.*give another --workdir"):
        train.train(c, tmp_path / "w")
    assert checkpoint.steps(tmp_path / "w") == [2]


def test_weight_decay_spares_vectors(runs):
    stage, weights = restore.restore_stage(runs / "instruct", make_mesh())
    for path, decays in jax.tree_util.tree_leaves_with_path(optimizer.decayed(weights.params)):
        name = jax.tree_util.keystr(path)
        assert decays == any(word in name for word in ("kernel", "table", "['output']", "['summary']")), name


def test_learning_rate_equals_the_formula(small_data, runs):
    c = config("language", small_data, runs, steps=100, warmup_steps=10, learning_rate=1e-2, final_learning_rate=1e-3)
    rate = optimizer.learning_rate(c)
    for step in (0, 5, 10, 40, 100):
        if step < 10:
            want = 1e-2 * step / 10
        else:
            want = 1e-3 + 0.5 * (1e-2 - 1e-3) * (1 + np.cos(np.pi * (step - 10) / 90))
        np.testing.assert_allclose(rate(step), want, rtol=1e-5, atol=1e-9)


def test_feature_statistics_cover_valid_patches_only(small_data, runs):
    from neurolm_jax.data.eeg_rows import float_patches
    from neurolm_jax.data.streams import Steps
    from neurolm_jax.models.tokenizer import Tokenizer

    c = config("tokenizer", small_data, runs)
    stage = stages.build(c)
    weights = jax.jit(stage.create)(jax.random.key(0))
    weights = nn.unbox(weights)
    batch = Steps(stage.sources(True), 1)[0]
    extra = jax.jit(stage.prepare)(weights, batch, jax.random.key(0)).extra
    eeg = batch["eeg"]
    ids = eeg["channel"], eeg["second"], eeg["segment"]
    encode = jax.jit(functools.partial(Tokenizer(stage.model_config).apply, method="encode"))
    features = encode({"params": weights.params}, float_patches(eeg), *ids).features
    valid = np.asarray(features)[eeg["segment"] > 0]
    np.testing.assert_allclose(extra["state"].feature_mean, valid.mean(0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(extra["state"].feature_variance, valid.var(0), rtol=1e-3, atol=1e-4)
