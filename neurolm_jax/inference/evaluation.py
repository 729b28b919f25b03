"""What a model is worth on its tasks, beside simple methods on the same windows."""

import functools
import pathlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from neurolm_jax.configuration import use_compilation_cache
from neurolm_jax.eeg.tasks import prompts
from neurolm_jax.errors import UserError
from neurolm_jax.inference import baselines
from neurolm_jax.inference.features import encode_windows
from neurolm_jax.inference.finetuning import finetune
from neurolm_jax.inference.generation import generate_answers
from neurolm_jax.inference.measures import (
    calibration_error,
    fit_temperature,
    measure,
    measure_words,
    with_temperature,
)
from neurolm_jax.inference.model import load_trained
from neurolm_jax.inference.scoring import answer_probabilities, question_size
from neurolm_jax.inference.windows import read_windows
from neurolm_jax.models.quantizer import used_and_perplexity
from neurolm_jax.stages import corpora

CALIBRATION = 5000  # validation windows that a temperature is fitted to


class Options(NamedTuple):
    """split: test or validation. quick: scored answers alone. varied: ask in other words too. finetune: epochs of the
    encoder with a head, 0 for none."""

    split: str = "test"
    quick: bool = False
    varied: bool = False
    finetune: int = 0


def evaluate(
    workdir: str | pathlib.Path, data: str | None = None, names: Sequence[str] | None = None, options=Options()
) -> dict:
    """Figures of every task: ``{"tasks": {name: {...}}, "codebook": {...}, "seconds", "seed", "split"}``.

    Every process goes over its own share of the windows; the baselines are fitted by the first alone.
    """
    from tqdm import tqdm

    begin = time.perf_counter()
    model = load_trained(workdir)
    config = model.stage.config
    if data:
        config.data.root = data
    if names:
        config.data.tasks = tuple(names)
    use_compilation_cache(config)
    opened = functools.cache(lambda *splits: read_windows(corpora.tasks(config, *splits)))
    parts = opened(options.split)
    # One size of row for all tasks, so that one compiled program serves them.
    among = [size for windows in parts.values() for size in _sizes(windows)]
    found, counts = {}, np.zeros(config.tokenizer.codes, int)
    with tqdm(parts.items(), desc="evaluate", unit=" tasks", dynamic_ncols=True, disable=None) as bar:
        for name, windows in bar:
            bar.set_postfix_str(name)
            if not len(windows):
                raise UserError(f"{name}: no window in its {options.split} part")
            found[name], codes = _evaluate_task(model, windows, options, among, opened)
            counts += codes
    # A converted NeuroLM checkpoint may come without its tokenizer's codebook.
    has_codebook = bool(model.weights.extra["state"].codebook.initialised)
    return {
        "tasks": found,
        "codebook": _codebook(counts) if has_codebook else None,
        "split": options.split,
        "seed": config.seed,
        "seconds": time.perf_counter() - begin,
    }


def _evaluate_task(model, windows, options, among, opened):
    task = windows.task
    probabilities = answer_probabilities(model, windows, among=among)
    found = _measure(windows, probabilities)
    found |= {"classes": task.labels, "scored": task.scored, "groups": len(set(windows.groups.tolist()))}
    found["figures"] = list(task.figures)
    found["published"] = {name: dict(figures) for name, figures in task.published.items()}
    found["calibration"] = _calibrate(model, windows, probabilities, options, among, opened)
    features, codes = encode_windows(model, windows, among)
    if options.varied:
        found["prompts"] = _ask_otherwise(model, windows, probabilities, among)
    if not options.quick:
        words = measure_words(windows.labels, generate_answers(model, windows, among), len(task.answers))
        found |= {"unreadable": words["unreadable"], "generation": words}
        training = opened(*model.stage.config.data.splits)[task.name].at_most(baselines.MOST)
        trained, _ = encode_windows(model, training, among)
        found["baselines"] = {} if jax.process_index() else _baselines(training, trained, windows, features)
    if options.finetune:
        training, validation = (opened(split)[task.name] for split in ("train", "validation"))
        tuned = finetune(model, training, validation, windows, options.finetune)
        found.setdefault("baselines", {})["fine-tuned encoder"] = _measure(windows, tuned)
    return found, codes


def _sizes(windows):
    task = windows.task
    return {question_size(task, prompts.prompt(task), int(channels)) for channels in set(windows.channels.tolist())}


def _measure(windows, probabilities):
    task = windows.task
    positive = task.labels.index(task.positive) if task.positive else 1
    return measure(windows.labels, probabilities, task.labels, windows.groups, positive)


def _calibrate(model, windows, probabilities, options, among, opened):
    """The temperature that suits the validation part, and the calibration error with it; None where there is no such
    part, or the model has learnt from it."""
    if options.split != "test" or "validation" in model.stage.config.data.splits:
        return None
    validation = opened("validation")[windows.task.name].at_most(CALIBRATION)
    if not len(validation):
        return None
    temperature = fit_temperature(validation.labels, answer_probabilities(model, validation, among=among))
    softened = with_temperature(probabilities, temperature)
    return {"temperature": temperature, "calibration_error": calibration_error(windows.labels, softened)}


def _ask_otherwise(model, windows, own, among):
    """How answers hold when the same is asked otherwise: figures by question, and the share of windows that get the
    same answer each time."""
    asked = prompts.variants(windows.task)
    found = [own] + [answer_probabilities(model, windows, prompt, among) for prompt in asked[1:]]
    answers = np.stack([p.argmax(axis=1) for p in found])
    accuracy = [_measure(windows, p)["balanced_accuracy"] for p in found]
    return {
        "questions": [prompt.question for prompt in asked],
        "balanced_accuracy": accuracy,
        "mean": float(np.mean(accuracy)),
        "lowest": float(np.min(accuracy)),
        "agreement": float((answers == answers[0]).all(axis=0).mean()),
    }


def _baselines(training, trained_features, windows, features):
    classes = len(windows.task.answers)
    share = np.bincount(training.labels, minlength=classes) / len(training)
    found = {"majority class": _measure(windows, np.tile(share, (len(windows), 1)))}
    train, test = (baselines.simple_features(w, training.electrodes) for w in (training, windows))
    kinds = {
        "band power": (train.band_power, test.band_power),
        "slow wave": (train.slow_wave, test.slow_wave),
        "frozen features": (trained_features, features),
    }
    for name, (x, y) in kinds.items():
        found[name] = _measure(windows, baselines.probe(x, training.labels, training.groups, y, classes))
    return found


def _codebook(counts):
    """Use of the codes by the EEG of all windows."""
    used, perplexity = used_and_perplexity(counts)
    return {"used_fraction": float(used), "perplexity": float(perplexity), "counts": counts.tolist()}
