"""All seven sets in one model: what is planted is learnt, and of noise nothing."""

import importlib

import numpy as np
import pytest
import small_sets

from neurolm_jax import prepare, train
from neurolm_jax.eeg.tasks import load_task
from neurolm_jax.inference.evaluation import Options, evaluate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optimised")]
SETS = tuple(small_sets.WRITERS)
FIELDS = {
    "language": {"steps": 2, "warmup_steps": 1},
    "tokenizer": {"steps": 80, "batch_size": 4, "row_length": 256},
    "pretrain": {"steps": 20, "batch_size": 4, "row_length": 256},
    "instruct": {
        "steps": 400,
        "batch_size": 16,
        "learning_rate": 1e-2,
        "warmup_steps": 20,
        "beta2": 0.99,
        "text_loss_weight": 0.1,
        "eeg_length": 256,
        "row_length": 296,
        "answer_length": 12,
        "summary": {"reads": ("spectrum", "rhythms")},
    },
}


def config(stage, root):
    c = importlib.import_module(f"configs.{stage}").get_config("debug")
    c.data.root = str(root / "data")
    c.compilation_cache = str(root / "cache")
    c.update(text_batch_size=1, text_length=16, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-4)
    c.update(evaluate_every=0, checkpoint_every=1000)
    if "train" in c.data:
        c.data.train = tuple(f"{name}/recordings/train" for name in SETS)
        c.data.validation = tuple(f"{name}/recordings/validation" for name in SETS)
    for name in c.initial:
        if name != "gpt2":
            c.initial[name] = str(root / name)
    c.update(FIELDS[stage])
    return c


def run_all(root, signal, small_data, options, **fields):
    """From bytes to figures."""
    with pytest.MonkeyPatch.context() as patch:
        small_sets.shorten_schedule(patch)
        for name, write in small_sets.WRITERS.items():
            prepare.prepare_task(load_task(name), write(root / "in" / name, signal(name)), root / "data" / name)
    (root / "data" / "text").symlink_to(small_data / "text")
    for stage in FIELDS:
        c = config(stage, root)
        c.update(fields if stage == "instruct" else {})
        train.train(c, root / stage)
    return evaluate(root / "instruct", options=options)["tasks"]


def test_what_is_planted_is_learnt_in_all_seven_at_once(tmp_path, small_data):
    found = run_all(tmp_path, small_sets.planted, small_data, Options())
    assert set(found) == set(SETS)
    for name, task in found.items():
        assert task["balanced_accuracy"] >= 0.9, name
        assert task["generation"]["balanced_accuracy"] >= 0.9 and task["unreadable"] <= 0.05, name
        assert min(task["recall"].values()) > 0.7 and task["auroc"] > 0.95, name
        chance, found_by = 1 / len(task["classes"]), task["baselines"]
        assert found_by["majority class"]["balanced_accuracy"] == pytest.approx(chance)
        assert found_by["frozen features"]["balanced_accuracy"] >= 0.9, name
        assert found_by["band power"]["balanced_accuracy"] > 1.5 * chance, name  # some rhythms share a band


def test_of_noise_nothing_is_learnt(tmp_path, small_data):
    found = run_all(tmp_path, small_sets.noise, small_data, Options(quick=True), steps=200)
    for name, task in found.items():
        chance = 1 / len(task["classes"])
        counts = np.sum(task["confusion"], axis=1) / (2 if name == "workload" else 1)  # whose windows overlap by half
        deviation = np.sqrt(chance * (1 - chance) * np.sum(1 / counts)) * chance
        assert abs(task["balanced_accuracy"] - chance) <= 4 * deviation, name
