"""Evaluation as a whole: over processes, in other words, calibrated, and against a fine-tuned encoder."""

import dataclasses
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from test_inference import Few

from neurolm_jax import evaluate as command
from neurolm_jax.data import shards
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.tasks import load_task, prompts
from neurolm_jax.errors import UserError
from neurolm_jax.inference import findings
from neurolm_jax.inference.evaluation import Options, evaluate
from neurolm_jax.inference.finetuning import _row, _Rows, finetune
from neurolm_jax.inference.measures import calibration_error, fit_temperature, with_temperature
from neurolm_jax.inference.model import load_trained
from neurolm_jax.inference.scoring import answer_probabilities
from neurolm_jax.inference.windows import read_windows
from neurolm_jax.stages import corpora

PROCESS = """
import sys, jax
jax.distributed.initialize(f"localhost:{sys.argv[1]}", 2, int(sys.argv[2]))
sys.argv = ["evaluate", "--checkpoint", sys.argv[3]]
import numpy as np
from jax.sharding import Mesh
from neurolm_jax.command import run
from neurolm_jax.evaluate import main
from neurolm_jax.inference import model
# As on slices of TPUs, whose devices are not in the order of their processes.
devices = np.array(jax.devices())[[2, 0, 3, 1]]
assert [d.process_index for d in devices] == [1, 0, 1, 0]
model.make_mesh = lambda: Mesh(devices.reshape(4, 1, 1, 1), ("data", "fsdp", "tensor", "sequence"))
run(main)
"""


def copy_of(runs, folder):
    """A workdir with the same checkpoint."""
    folder.mkdir()
    (folder / "checkpoints").symlink_to(runs / "instruct" / "checkpoints")
    return folder


@pytest.mark.slow
def test_two_processes_find_what_one_finds(runs, tmp_path):
    workdir = copy_of(runs, tmp_path / "w")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    root = pathlib.Path(__file__).parents[1]
    lines = [[sys.executable, "-c", PROCESS, str(port), str(i), str(workdir)] for i in range(2)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment["PJRT_NPROC"] = "128"  # threads: a device that waits for others keeps one or more
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(line, cwd=root, env=environment, **pipes) for line in lines]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said[0][1][-2000:] + said[1][1][-2000:]
    assert "balanced" in said[0][0] and "balanced" not in said[1][0]  # the first alone prints and writes
    two = findings.read(workdir / "evaluation.json")
    one = evaluate(runs / "instruct")
    assert two["codebook"]["counts"] == one["codebook"]["counts"]  # nothing twice, nothing left out
    for name, task in one["tasks"].items():
        other = two["tasks"][name]
        assert (other["n_test"], other["confusion"]) == (task["n_test"], task["confusion"])
        assert other["calibration_error"] == pytest.approx(task["calibration_error"], rel=1e-4)
        assert other["generation"] == task["generation"]
        for baseline, found in task["baselines"].items():
            assert other["baselines"][baseline]["balanced_accuracy"] == pytest.approx(found["balanced_accuracy"])


def test_other_words_and_calibration(runs):
    found = evaluate(runs / "instruct", names=["blink", "eyes"], options=Options(quick=True, varied=True))
    model = load_trained(runs / "instruct")
    parts = {s: read_windows(corpora.tasks(model.stage.config, s)) for s in ("validation", "test")}
    for name, task in found["tasks"].items():
        windows, asked = parts["test"][name], prompts.variants(parts["test"][name].task)
        assert task["prompts"]["questions"] == [prompt.question for prompt in asked] and len(asked) == 3
        each = [answer_probabilities(model, windows, prompt).argmax(1) for prompt in asked]
        want = [balanced_accuracy_score(windows.labels, answered) for answered in each]
        assert task["prompts"]["balanced_accuracy"] == pytest.approx(want)
        assert task["prompts"]["lowest"] == pytest.approx(min(want))
        assert task["prompts"]["agreement"] == np.mean([len(set(answers)) == 1 for answers in zip(*each)])
        validation = parts["validation"][name]
        temperature = fit_temperature(validation.labels, answer_probabilities(model, validation))
        softened = with_temperature(answer_probabilities(model, windows), temperature)
        assert task["calibration"]["temperature"] == pytest.approx(temperature, rel=1e-3)
        error = calibration_error(windows.labels, softened)
        assert task["calibration"]["calibration_error"] == pytest.approx(error, abs=1e-3)


def with_fields(monkeypatch, **fields):
    """Checkpoints are loaded as if they had been trained with such ``config.data``."""
    from neurolm_jax.inference import evaluation

    def load(workdir):
        model = load_trained(workdir)
        model.stage.config.data.update(fields)
        return model

    monkeypatch.setattr(evaluation, "load_trained", load)


def test_a_part_that_was_trained_on_tells_and_calibrates_nothing(runs, monkeypatch):
    on_validation = evaluate(runs / "instruct", names=["eyes"], options=Options("validation", quick=True))
    assert on_validation["split"] == "validation" and on_validation["tasks"]["eyes"]["calibration"] is None
    with pytest.raises(UserError, match="--finetune chooses its epoch on the validation part"):
        evaluate(runs / "instruct", names=["eyes"], options=Options("validation", finetune=1))
    with_fields(monkeypatch, splits=("train", "validation"))
    found = evaluate(runs / "instruct", names=["eyes"], options=Options(quick=True))
    assert found["tasks"]["eyes"]["calibration"] is None
    with pytest.raises(UserError, match="--split validation: .* has learnt from it.*; test would say"):
        evaluate(runs / "instruct", names=["eyes"], options=Options("validation", quick=True))
    with_fields(monkeypatch, splits=("train", "test"))  # by hand: training refuses it
    with pytest.raises(UserError, match="--split test: .* has learnt from it.*; validation would say"):
        evaluate(runs / "instruct", names=["eyes"], options=Options(quick=True))


def test_figures_are_kept_before_the_regressions_and_after(runs):
    kept = []
    found = evaluate(runs / "instruct", names=["eyes"], keep=lambda found: kept.append(json.loads(json.dumps(found))))
    assert ["baselines" in found["tasks"]["eyes"] for found in kept] == [False, True]
    assert kept[0]["tasks"]["eyes"]["confusion"] == kept[1]["tasks"]["eyes"]["confusion"]
    assert kept[1] == json.loads(json.dumps(found))


def test_processes_meet_even_where_the_first_fails(runs, monkeypatch):
    """The others would wait for it until JAX gives up."""
    from neurolm_jax.training import processes

    met = []
    monkeypatch.setattr(processes, "meet", met.append)

    def full(found):
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        evaluate(runs / "instruct", names=["eyes"], options=Options(quick=True), keep=full)
    assert met == ["evaluated"]


def test_a_checkpoint_tells_when_it_was_written_without_a_word(runs, tmp_path, caplog):
    from neurolm_jax.training import checkpoint

    written = checkpoint.written_at(runs / "instruct")
    assert written != checkpoint.written_at(runs / "pretrain") and not caplog.records
    shutil.copytree(runs / "instruct" / "checkpoints", tmp_path / "checkpoints")
    assert checkpoint.written_at(tmp_path) == written
    for file in (tmp_path / "checkpoints").glob("*/_CHECKPOINT_METADATA"):
        file.write_text('{"commit_timestamp_nsecs": null}')
    with pytest.raises(UserError, match="does not tell when the checkpoint was written"):
        checkpoint.written_at(tmp_path)


def test_the_test_part_is_not_learnt_from(runs):
    stage = load_trained(runs / "instruct").stage
    stage.config.data.splits = ("train", "test")
    with pytest.raises(UserError, match="config.data.splits: the test part is not learnt from"):
        stage.sources(train=True)


def without_windows(small_data, folder, task, split):
    """The data with one part of a task emptied."""
    shutil.copytree(small_data, folder)
    part = folder / task / "windows" / split
    manifest = open_shards(part).manifest
    shutil.rmtree(part)
    shards.write(part, [], {key: manifest[key] for key in ("kind", "split", "recordings")})
    return folder


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("test", Options(quick=True), "blink: no window in its test part; leave the task out"),
        ("train", Options(), "blink: no window in its train part; baselines need it; see --quick"),
        ("validation", Options(quick=True, finetune=1), "blink: no window in its validation part; --finetune needs it"),
    ],
)
def test_an_empty_part_is_named(runs, small_data, tmp_path, split, options, message):
    data = without_windows(small_data, tmp_path / "data", "blink", split)
    with pytest.raises(UserError, match=message):
        evaluate(runs / "instruct", str(data), options=options)


def test_without_validation_there_is_no_calibration(runs, small_data, tmp_path):
    data = without_windows(small_data, tmp_path / "data", "blink", "validation")
    found = evaluate(runs / "instruct", str(data), ["blink", "eyes"], Options(quick=True))
    assert found["tasks"]["blink"]["calibration"] is None and found["tasks"]["eyes"]["calibration"]


def test_a_task_named_twice_or_of_windows_too_long_is_refused(runs, monkeypatch):
    with pytest.raises(UserError, match="eyes is there more than once"):
        evaluate(runs / "instruct", names=["eyes", "eyes"])
    long = dataclasses.replace(load_task("eyes"), seconds=65)
    monkeypatch.setattr(corpora, "load_task", lambda name: long)
    with pytest.raises(UserError, match="eyes has windows of 65 s, the encoder reads 64 at most"):
        evaluate(runs / "instruct", names=["eyes"])


@pytest.mark.slow
def test_figures_of_one_checkpoint_are_put_together(runs, tmp_path, monkeypatch):
    workdir = copy_of(runs, tmp_path / "w")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["evaluate", "--checkpoint", str(workdir), *arguments])
        command.main()
        return findings.read(workdir / "evaluation.json")

    eyes = run("--tasks", "eyes")["tasks"]["eyes"]
    both = run("--tasks", "blink", "--quick")
    assert both["tasks"]["eyes"] == eyes and "baselines" not in both["tasks"]["blink"]
    assert sum(both["codebook"]["counts"]) == 12 * 14 + 12 * 8  # of both tasks' windows
    again = run("--tasks", "eyes", "--quick")["tasks"]["eyes"]
    assert again["baselines"] == eyes["baselines"] and again["generation"] == eyes["generation"]
    # Of an older checkpoint nothing is kept, and no temperature is used.
    file = workdir / "evaluation.json"
    file.write_text(json.dumps(both | {"checkpoint": "1"}))
    assert set(run("--tasks", "blink", "--quick")["tasks"]) == {"blink"}
    for text in ("{", "[]", '{"tasks": {}}'):
        file.write_text(text)
        with pytest.raises(UserError, match="evaluation.json: .*remove it, and run evaluate again"):
            run("--quick")


@pytest.mark.parametrize("alone", [False, True])
def test_windows_share_rows_of_fine_tuning_unless_the_norm_runs_over_the_row(runs, alone, monkeypatch):
    stage = load_trained(runs / "instruct").stage
    monkeypatch.setattr(type(stage), "alone", alone)
    windows = read_windows(corpora.tasks(stage.config, "test"))["blink"]
    size, slots = _row(stage, windows, windows)
    rows = _Rows(windows, size, slots, None)
    assert (size, slots, len(rows)) == ((64, 1, 12) if alone else (512, 64, 1))
    assert all((rows[i]["labels"] >= 0).sum() == (1 if alone else 12) for i in range(len(rows)))


@pytest.mark.slow
def test_a_fine_tuned_encoder_learns_what_is_planted(runs):
    model = load_trained(runs / "instruct")
    windows = read_windows(corpora.tasks(model.stage.config, "test"))["blink"]
    rng, record, time = np.random.default_rng(0), windows[0], np.arange(400) / 200
    labels = np.arange(120) % 2
    records = [
        dataclasses.replace(
            record, samples=(20 * rng.standard_normal((4, 400)) + 40 * np.sin(2 * np.pi * (5 + 15 * k) * time))
        )
        for k in labels
    ]
    parts = [Few(windows.task, records[i : i + 40], labels[i : i + 40]) for i in (0, 40, 80)]
    found = finetune(model, *parts, epochs=12)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert balanced_accuracy_score(labels[80:], found.argmax(1)) > 0.9
    np.testing.assert_allclose(found, finetune(model, *parts, epochs=12))  # the same again
