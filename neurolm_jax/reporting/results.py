"""The figures of a whole run, collected from its folders."""

import json
import pathlib

from neurolm_jax import stages
from neurolm_jax.data.shards import read_manifest
from neurolm_jax.errors import UserError
from neurolm_jax.training import metrics


def collect(run: pathlib.Path) -> dict:
    """``results.json`` of a run folder that holds a folder for each stage.

    Raises:
      UserError: no such folder, or its instruct stage has not been evaluated.
    """
    file = run / "instruct" / "evaluation.json"
    if not file.is_file():
        raise UserError(f"{file}: missing; run 'python -m neurolm_jax.evaluate --checkpoint {run / 'instruct'}'")
    evaluation = json.loads(file.read_text())
    lines = {stage: metrics.read(run / stage) for stage in stages.NAMES}
    seconds = {
        "prepare": sum(_prepared(folder) for folder in (run / "data").iterdir()),
        **{stage: max((line.get("seconds", 0) for line in found), default=0) for stage, found in lines.items()},
        "evaluate": evaluation["seconds"],
    }
    return {
        "tasks": evaluation["tasks"],
        "codebook": evaluation["codebook"],
        "stages": {stage: final(found) for stage, found in lines.items()},
        "seconds": sum(seconds.values()),
        "seconds_by_part": seconds,
        "seed": evaluation["seed"],
    }


def _prepared(folder):
    """Seconds that writing a folder of shards took, up to its last part."""
    return max((read_manifest(path.parent)["seconds"] for path in folder.rglob("manifest.json")), default=0)


def final(lines: list[dict]) -> dict[str, float]:
    """The last value of every metric of a stage."""
    last: dict[str, float] = {}
    for line in lines:
        last |= line
    last.pop("stage", None)
    return last


def table_rows(tasks: dict) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of results: a method a row, a task a column, balanced accuracy (AUROC)."""
    names = list(tasks)
    header = ["balanced accuracy (AUROC)", *(name if tasks[name]["scored"] else f"{name}*" for name in names)]
    rows = [["NeuroLM, scored answers", *(_figures(tasks[name]) for name in names)]]
    if all("generation" in task for task in tasks.values()):
        rows.append(["NeuroLM, in words", *(f"{tasks[name]['generation']['balanced_accuracy']:.3f}" for name in names)])
        rows.append(["  unreadable answers", *(f"{tasks[name]['unreadable']:.1%}" for name in names)])
    baselines = list(tasks[names[0]].get("baselines", {}))
    rows += [[f"baseline: {b}", *(_figures(tasks[name]["baselines"][b]) for name in names)] for b in baselines]
    rows.append(["windows", *(str(tasks[name]["n_test"]) for name in names)])
    return header, rows


def footnote(tasks: dict) -> str:
    unscored = [name for name, task in tasks.items() if not task["scored"]]
    return f"* {', '.join(unscored)}: too small a set for a score, shown as a check of its montage" if unscored else ""


def _figures(task):
    auroc = "one class" if task["auroc"] is None else f"{task['auroc']:.3f}"
    return f"{task['balanced_accuracy']:.3f} ({auroc})"
