"""The figures of a whole run, collected from its folders."""

import pathlib
from typing import NamedTuple

from neurolm_jax.configuration import STAGES
from neurolm_jax.data.shards import read_manifest
from neurolm_jax.errors import UserError
from neurolm_jax.inference import findings
from neurolm_jax.training import metrics


def collect(run: pathlib.Path) -> dict:
    """``results.json`` of a run folder that holds a folder for each stage.

    Its seconds have those of preparing the data only if these lie in the folder too, and their manifests tell.

    Raises:
      UserError: no such folder, or its instruct stage has not been evaluated.
    """
    file = run / "instruct" / "evaluation.json"
    if not file.is_file():
        raise UserError(f"{file}: missing; run 'python -m neurolm_jax.evaluate --checkpoint {run / 'instruct'}'")
    evaluation = findings.read(file)
    lines = {stage: metrics.read(run / stage) for stage in STAGES}
    prepared = _prepared(run / "data")
    seconds = {
        **({} if prepared is None else {"prepare": prepared}),
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


def _prepared(data):
    """Seconds that writing the folders of shards below took, each up to its last part; None where nothing tells."""
    found = []
    for folder in data.iterdir() if data.is_dir() else ():
        manifests = [read_manifest(path.parent) for path in folder.rglob("manifest.json")]
        if told := [manifest["seconds"] for manifest in manifests if "seconds" in manifest]:
            found.append(max(told))
    return sum(found) if found else None


def final(lines: list[dict]) -> dict[str, float]:
    """The last value of every metric of a stage."""
    last: dict[str, float] = {}
    for line in lines:
        last |= line
    last.pop("stage", None)
    return last


FIGURES = {  # of an evaluated task, and what they are called in tables
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "auc_pr": "AUC-PR",
    "kappa": "kappa",
    "weighted_f1": "weighted F1",
}
COLUMNS = ("balanced accuracy", "95% interval", *list(FIGURES.values())[1:])


class Section(NamedTuple):
    """Of the table of results, one task: a title, rows of a method and its figures, and lines below them."""

    title: str
    rows: list[tuple[str, ...]]
    notes: list[str]


def sections(tasks: dict) -> list[Section]:
    """The table of results, task by task."""
    return [_section(name, task) for name, task in tasks.items()]


def _section(name, task):
    star = "" if task["scored"] else "*"
    rows = [("NeuroLM, scored", *_figures(task))]
    if "generation" in task:
        rows.append(("NeuroLM, in words", *_figures(task["generation"])))
    rows += [(method, *_figures(found)) for method, found in task.get("baselines", {}).items()]
    rows += [(f"published {model}", *_figures(found)) for model, found in task["published"].items()]
    recalls = {label: "none" if value is None else f"{value:.2f}" for label, value in task["recall"].items()}
    recall = ", ".join(f"{label} {value}" for label, value in recalls.items())
    notes = [f"recall: {recall}", f"calibration error {task['calibration_error']:.3f}"]
    if calibration := task["calibration"]:
        notes[1] += f"; {calibration['calibration_error']:.3f} at temperature {calibration['temperature']:.2f}"
    if "unreadable" in task:
        notes[1] += f"; unreadable {task['unreadable']:.1%}"
    if asked := task.get("prompts"):
        notes.append(
            f"asked in {len(asked['questions'])} ways: {asked['mean']:.3f} on average, {asked['lowest']:.3f} at worst,"
            f" the same answer to {asked['agreement']:.0%}"
        )
    if task["published"]:
        notes.append(f"the set's usual figures: {', '.join(FIGURES[name] for name in task['figures'])}")
    return Section(f"{name}{star}: {task['n_test']:,} windows, {task['groups']:,} subjects or recordings", rows, notes)


def footnote(tasks: dict) -> str:
    """What the stars behind names of tasks mean; "" if there are none."""
    unscored = [name for name, task in tasks.items() if not task["scored"]]
    return f"* {', '.join(unscored)}: too small a set for a score, shown as a check of its montage" if unscored else ""


def _figures(found):
    interval = found.get("interval")
    numbers = [found.get(name) for name in FIGURES]
    first, *rest = ["" if number is None else f"{number:.3f}" for number in numbers]
    return first, "{:.2f}-{:.2f}".format(*interval) if interval else "", *rest
