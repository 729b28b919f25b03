"""What evaluations found, as ``evaluation.json`` has it."""

import json
import pathlib

import numpy as np

from neurolm_jax.errors import UserError
from neurolm_jax.models.quantizer import used_and_perplexity


def evaluation_file(workdir: pathlib.Path, split: str) -> pathlib.Path:
    """Where ``evaluate`` writes the figures of a part."""
    return workdir / ("evaluation.json" if split == "test" else f"evaluation_{split}.json")


def read(file: pathlib.Path) -> dict:
    """The figures in a file that ``evaluate`` wrote.

    Raises:
      UserError: it holds anything else.
    """
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}); remove it, and run evaluate again") from error
    if not isinstance(found, dict) or not {"tasks", "split", "step"} <= found.keys():
        raise UserError(f"{file}: holds no figures of this version's evaluate; remove it, and run evaluate again")
    return found


def merge(old: dict, new: dict) -> dict:
    """``new``, and what ``old`` has beside it of the same checkpoint and part: other tasks, and other figures of the
    same windows."""
    if any(old.get(key) != new[key] for key in ("checkpoint", "split")):
        return new
    tasks = dict(old["tasks"])
    for name, task in new["tasks"].items():
        before = tasks.get(name)
        if before and before["windows_hash"] == task["windows_hash"]:
            methods = before.get("baselines", {}) | task.get("baselines", {})
            task = before | task | ({"baselines": methods} if methods else {})
        tasks[name] = task
    return new | {"tasks": tasks, "codebook": new["codebook"] and codebook_use(tasks)}


def codebook_use(tasks: dict) -> dict:
    """Use of the codes by the EEG of all windows of some tasks."""
    counts = np.sum([task["code_counts"] for task in tasks.values()], axis=0)
    used, perplexity = used_and_perplexity(counts)
    return {"used_fraction": float(used), "perplexity": float(perplexity), "counts": counts.tolist()}
