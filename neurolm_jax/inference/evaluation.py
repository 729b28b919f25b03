"""What a model is worth on its tasks, beside simple methods on the same windows."""

import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from neurolm_jax.configuration import use_compilation_cache
from neurolm_jax.data.trained_on import contamination
from neurolm_jax.eeg.tasks import prompts
from neurolm_jax.errors import UserError
from neurolm_jax.inference import baselines
from neurolm_jax.inference.features import encode_windows, pooling
from neurolm_jax.inference.findings import codebook_use
from neurolm_jax.inference.finetuning import finetune
from neurolm_jax.inference.generation import generate_answers
from neurolm_jax.inference.measures import (
    calibration_error,
    fit_temperature,
    measure,
    measure_units,
    measure_words,
    with_temperature,
)
from neurolm_jax.inference.model import load_trained, trusted_tasks
from neurolm_jax.inference.scoring import answer_probabilities, question_size
from neurolm_jax.inference.windows import read_windows
from neurolm_jax.stages import corpora
from neurolm_jax.training import processes
from neurolm_jax.training.checkpoint import read_trained_on

CALIBRATION = 5000  # validation windows that a temperature is fitted to


class Options(NamedTuple):
    """split: test or validation. quick: scored answers alone. varied: ask in other words too. finetune: epochs of the
    encoder with a head, 0 for none. trust_code: run the task files that the checkpoint names."""

    split: str = "test"
    quick: bool = False
    varied: bool = False
    finetune: int = 0
    trust_code: bool = False


def evaluate(
    workdir: str | pathlib.Path,
    data: str | None = None,
    names: Sequence[str] | None = None,
    options: Options = Options(),
    keep: Callable[[dict], None] = lambda found: None,
) -> dict:
    """Figures of every task: ``{"tasks": {name: {...}}, "codebook": {...}, "seconds", "seed", "split", "step",
    "checkpoint"}``.

    Every process goes over its own share of the windows; the baselines are fitted by the first alone, while the others
    wait. ``keep`` is called there with what is found, before the baselines and again with them.

    Raises:
      UserError: a part without windows; figures of windows that were learnt from, or chosen on, are asked for.
    """
    from tqdm import tqdm

    begin = time.perf_counter()
    model = load_trained(workdir)
    config = model.stage.config
    if data:
        config.data.root = data
    config.data.tasks = tuple(names) if names else trusted_tasks(workdir, config, options.trust_code)
    use_compilation_cache(config)
    _refuse(workdir, config, options)
    opened = functools.cache(lambda *splits: read_windows(corpora.tasks(config, *splits)))
    parts = _parts(opened, config, options)
    # One size of row for all tasks, so that one compiled program serves them.
    among = [size for windows in parts.values() for size in _sizes(windows, options.varied)]
    found, fits = {}, {}
    overlaps = _contamination(read_trained_on(workdir, model.step), opened, config, options, parts)
    with tqdm(parts.items(), desc="evaluate", unit=" tasks", dynamic_ncols=True, disable=None) as bar:
        for name, windows in bar:
            bar.set_postfix_str(name)
            found[name], fits[name] = _evaluate_task(model, windows, options, among, opened)
            found[name]["contamination"] = overlaps[name]
        # A converted NeuroLM checkpoint may come without its tokenizer's codebook.
        has_codebook = bool(model.weights.extra["state"].codebook.initialised)
        everything = {
            "tasks": found,
            "codebook": codebook_use(found) if has_codebook else None,
            "split": options.split,
            "seed": config.seed,
            "step": model.step,
            "checkpoint": model.written,
            "seconds": time.perf_counter() - begin,
        }
        try:
            if not jax.process_index():
                keep(everything)
                for name, fit in fits.items():
                    if fit:
                        bar.set_postfix_str(f"{name}, baselines")
                        found[name]["baselines"] = fit() | found[name].get("baselines", {})
                everything["seconds"] = time.perf_counter() - begin
                keep(everything)
        finally:
            processes.meet("evaluated")  # whatever becomes of it: nobody waits for one that has failed
    return everything


def _contamination(trained_on, opened, config, options, parts):
    """Of each task and split that is looked at, what of it the model was trained on."""
    splits = [options.split]
    if options.split == "test" and "validation" not in config.data.splits:
        splits.append("validation")  # which calibrates, and chose the model
    overlaps: dict[str, dict] = {name: {} for name in parts}
    for split in splits:
        windows = opened(split)
        for name in parts:
            overlaps[name][split] = contamination(trained_on, windows[name].manifests if name in windows else [])
    return overlaps


def _refuse(workdir, config, options):
    if options.split in config.data.splits:
        others = " and ".join(split for split in ("test", "validation") if split not in config.data.splits) or "no part"
        raise UserError(
            f"--split {options.split}: {workdir} has learnt from it (its config.data.splits); {others} would say how"
            " good this model is"
        )
    if options.split == "validation" and options.finetune:
        raise UserError("--finetune chooses its epoch on the validation part; only --split test says how good it is")


def _parts(opened, config, options):
    """Windows by task, of the part that is evaluated; the others that will be wanted have windows too."""
    parts = opened(options.split)
    wanted = [(options.split, parts, "leave the task out with --tasks")]
    if not options.quick:
        wanted.append((" and ".join(config.data.splits), opened(*config.data.splits), "baselines need it; see --quick"))
    if options.finetune:
        wanted += [(split, opened(split), "--finetune needs it") for split in ("train", "validation")]
    for split, found, remedy in wanted:
        if empty := [name for name in parts if not len(found[name])]:
            raise UserError(f"{', '.join(empty)}: no window in its {split} part; {remedy}")
    return parts


def _evaluate_task(model, windows, options, among, opened):
    """Figures of a task, and a function that gives those of its baselines, None for none."""
    task = windows.task
    probabilities = answer_probabilities(model, windows, among=among)
    found = _measure(windows, probabilities)
    found |= {"classes": task.labels, "scored": task.scored, "groups": len(set(windows.groups.tolist()))}
    found["windows_hash"] = windows.content_hash
    found["figures"] = list(task.figures)
    found["published"] = {name: dict(figures) for name, figures in task.published.items()}
    found["calibration"] = _calibrate(model, windows, probabilities, options, among, opened)
    training = None if options.quick else opened(*model.stage.config.data.splits)[task.name].at_most(baselines.MOST)
    pool = pooling(model, windows, *([training] if training else []))
    features, codes = encode_windows(model, windows, pool, among)
    found["code_counts"] = codes.tolist()
    if options.varied:
        found["prompts"] = _ask_otherwise(model, windows, probabilities, among)
    if not options.quick:
        words = measure_words(windows.labels, generate_answers(model, windows, among))
        found |= {"unreadable": words["unreadable"], "generation": words}
    if options.finetune:
        parts = (opened(split)[task.name] for split in ("train", "validation"))
        tuned = finetune(model, *parts, windows, options.finetune)
        found["baselines"] = {"fine-tuned encoder": _measure(windows, tuned)}
    if not training:
        return found, None
    trained, _ = encode_windows(model, training, pool, among)
    return found, functools.partial(_baselines, training, trained, windows, features)


def _sizes(windows, varied):
    task, channels = windows.task, set(windows.channels.tolist())
    asked = prompts.variants(task) if varied else [prompts.prompt(task)]
    return {question_size(task, prompt, count) for prompt in asked for count in channels}


def _measure(windows, probabilities):
    task = windows.task
    positive = task.labels.index(task.positive) if task.positive else 1
    units = {"recordings": windows.recordings, "people": windows.groups}
    whole = {name: measure_units(windows.labels, probabilities, unit) for name, unit in units.items()}
    found = measure(windows.labels, probabilities, task.labels, windows.groups, positive)
    return found | {"units": {name: figures for name, figures in whole.items() if figures}}


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
        "covariance": (train.covariance, test.covariance),
        "frozen features": (trained_features, features),
    }
    for name, (x, y) in kinds.items():
        found[name] = _measure(windows, baselines.probe(x, training.labels, training.groups, y, classes))
    return found
