"""Evaluation as a whole: over processes, in other words, calibrated, and against a fine-tuned encoder."""

import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from test_inference import Few

from neurolm_jax.eeg.tasks import prompts
from neurolm_jax.inference.evaluation import Options, evaluate
from neurolm_jax.inference.finetuning import finetune
from neurolm_jax.inference.measures import calibration_error, fit_temperature, with_temperature
from neurolm_jax.inference.model import load_trained
from neurolm_jax.inference.scoring import answer_probabilities
from neurolm_jax.inference.windows import read_windows
from neurolm_jax.stages import corpora

PROCESS = """
import sys, jax
jax.distributed.initialize(f"localhost:{sys.argv[1]}", 2, int(sys.argv[2]))
sys.argv = ["evaluate", "--checkpoint", sys.argv[3]]
from neurolm_jax.command import run
from neurolm_jax.evaluate import main
assert jax.process_count() == 2
run(main)
"""


def copy_of(runs, folder):
    """A workdir with the same checkpoint."""
    folder.mkdir()
    (folder / "checkpoints").symlink_to(runs / "instruct" / "checkpoints")
    return folder


def test_two_processes_find_what_one_finds(runs, tmp_path):
    workdir = copy_of(runs, tmp_path / "w")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    root = pathlib.Path(__file__).parents[1]
    lines = [[sys.executable, "-c", PROCESS, str(port), str(i), str(workdir)] for i in range(2)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(line, cwd=root, env=environment, **pipes) for line in lines]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said[0][1][-2000:] + said[1][1][-2000:]
    assert "balanced" in said[0][0] and "balanced" not in said[1][0]  # the first alone prints and writes
    two = json.loads((workdir / "evaluation.json").read_text())
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


def test_a_part_that_was_trained_on_calibrates_nothing(runs, monkeypatch):
    from neurolm_jax.inference import evaluation

    def load(workdir):
        model = load_trained(workdir)
        model.stage.config.data.splits = ("train", "validation")
        return model

    monkeypatch.setattr(evaluation, "load_trained", load)
    found = evaluate(runs / "instruct", names=["eyes"], options=Options(quick=True))
    assert found["tasks"]["eyes"]["calibration"] is None
    on_validation = evaluate(runs / "instruct", names=["eyes"], options=Options("validation", quick=True))
    assert on_validation["split"] == "validation" and on_validation["tasks"]["eyes"]["calibration"] is None


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
