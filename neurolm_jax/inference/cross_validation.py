"""Configs of cross-validation's runs, and means and deviations of their metrics."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from neurolm_jax.errors import UserError
from neurolm_jax.training.checkpoint import read_config

UNITS = ("windows", "recordings", "people")


def fold_config(
    workdir: str | pathlib.Path, folds: int, fold: int, seed: int, tasks: Sequence[str] | None = None
) -> ConfigDict:
    """The config of an instruct run, to be trained anew with a fold's people left out, on all or some of its tasks.

    Raises:
      UserError: the run is of another stage; an earlier stage of it has learnt from a set whose people are to be dealt,
        so that nothing could be said about people who were never seen.
    """
    config = read_config(workdir)
    if config.stage != "instruct":
        raise UserError(f"--folds trains instruct runs anew; {workdir} is of stage {config.stage}")
    with config.unlocked():
        config.data.tasks = tuple(tasks or config.data.tasks)
    for earlier, learnt in _learnt_from(config).items():
        if seen := sorted(set(config.data.tasks) & {name.partition("/")[0] for name in learnt}):
            raise UserError(
                f"--folds: {earlier} has learnt from {', '.join(seen)}, so its people are known to the encoder; train"
                " tokenizer and pretrain on other sets (config.data.train), or leave the task out with --tasks"
            )
    with config.unlocked():
        config.seed = seed
        config.data.folds, config.data.fold = folds, fold
        config.keep_checkpoints = 1
    return config


def _learnt_from(config: ConfigDict) -> dict[str, Sequence[str]]:
    """The folders of EEG that each earlier stage of a run was trained on, by its workdir."""
    found: dict[str, Sequence[str]] = {}
    for stage, workdir in config.initial.items():
        if stage in ("pretrain", "tokenizer") and workdir:
            before = read_config(workdir)
            found |= {str(workdir): before.data.get("train", ())} | _learnt_from(before)
    return found


def summarise(runs: Iterable[Mapping]) -> dict:
    """Mean and deviation over runs of the balanced accuracy of each task's methods.

    ``runs`` are the figures that ``evaluate`` found of each fold and seed. Returns ``{task: {method: {unit: {"mean",
    "deviation", "each"}}}}`` for the model's own scored answers ("answers") and every baseline; the units are windows,
    recordings and people, where each of those has one label.
    """
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for run in runs:
        for name, task in run["tasks"].items():
            methods = {"answers": task, **task.get("baselines", {})}
            for method, figures in methods.items():
                of_unit = {"windows": figures, **figures.get("units", {})}
                for unit, one in of_unit.items():
                    place = values.setdefault(name, {}).setdefault(method, {})
                    place.setdefault(unit, []).append(one["balanced_accuracy"])
    return {
        name: {method: {unit: _statistics(each) for unit, each in units.items()} for method, units in methods.items()}
        for name, methods in values.items()
    }


def _statistics(each):
    return {"mean": float(np.mean(each)), "deviation": float(np.std(each, ddof=len(each) > 1)), "each": list(each)}
