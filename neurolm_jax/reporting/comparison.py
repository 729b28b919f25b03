"""Several runs beside each other: what differs in their configs, their curves, what they ended with."""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from neurolm_jax.configuration import STAGES, flat
from neurolm_jax.errors import UserError
from neurolm_jax.inference import findings
from neurolm_jax.outputs import appearing_file
from neurolm_jax.reporting import html
from neurolm_jax.reporting.results import FIGURES, final, footnote
from neurolm_jax.training import checkpoint, metrics

LEFT_OUT = ("skipped_in_a_row", "data_wait", "damaged_records", "learning_rate", "gradient_norm")  # of final values


class Run(NamedTuple):
    """name: what tells it from the others. lines, configs: of each stage that it has; a config only once it has a
    checkpoint. tasks: of its evaluation, {} before it."""

    name: str
    lines: dict[str, list[dict]]
    configs: dict[str, ConfigDict]
    tasks: dict[str, dict]


class Table(NamedTuple):
    """heads: a title for the first column, and the runs' names. rows: a name and a text for each run. note: below
    them, and in place of them where there are none."""

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""


def read(folders: Sequence[pathlib.Path]) -> list[Run]:
    """Runs of folders that are workdirs of a stage, or hold one for each stage.

    Raises:
      UserError: a folder that is there twice, or has no metrics of a run.
    """
    return [_read(folder, name) for folder, name in zip(folders, names(folders))]


def names(folders: Sequence[pathlib.Path]) -> list[str]:
    """The parts of the paths that tell them apart.

    Raises:
      UserError: a folder is there twice.
    """
    whole = [folder.resolve().parts for folder in folders]
    for i, parts in enumerate(whole):
        if parts in whole[:i]:
            raise UserError(f"{folders[i]}: is there twice; give each run once")
    begin = len(os.path.commonprefix(whole))
    rest = [parts[begin:] or parts[-1:] for parts in whole]
    end = min(len(os.path.commonprefix([parts[::-1] for parts in rest])), min(map(len, rest)) - 1)
    return ["/".join(parts[: len(parts) - end]) for parts in rest]


def _read(folder, name):
    workdirs = [folder] if (folder / metrics.FILE).is_file() else [folder / stage for stage in STAGES]
    lines, configs, tasks = {}, {}, {}
    for workdir in workdirs:
        if not (found := metrics.read(workdir)):
            continue
        stage = found[0]["stage"]
        lines[stage] = found
        if checkpoint.steps(workdir):
            configs[stage] = checkpoint.read_config(workdir)
        if (file := workdir / "evaluation.json").is_file():
            tasks = findings.read(file)["tasks"]
    if not lines:
        raise UserError(f"{folder}: no {metrics.FILE} in it, nor in a folder of a stage below; want a workdir of train")
    return Run(name, lines, configs, tasks)


def tables(runs: Sequence[Run]) -> list[Table]:
    """Fields that differ and final values, stage by stage; then the results of evaluations."""
    found = []
    for stage in STAGES:
        if not any(stage in run.lines for run in runs):
            continue
        heads = tuple(run.name for run in runs)
        rows = _differences(runs, stage)
        note = "" if rows else "The configs have the same fields."
        found.append(Table(f"{stage}: fields that differ", ("config", *heads), rows, note))
        last = [final(run.lines[stage]) if stage in run.lines else {} for run in runs]
        keys = sorted({key for values in last for key in values} - set(LEFT_OUT) - {"step"})
        rows = [("step", *(_number(values.get("step")) for values in last))]
        rows += [(key, *(_number(values.get(key)) for values in last)) for key in keys]
        found.append(Table(f"{stage}: last values", ("metric", *heads), rows, f"Names as in {metrics.FILE}."))
    if rows := _results(runs):
        tasks = {name: task for run in runs for name, task in run.tasks.items()}
        found.append(Table("answers to held-out EEG", ("task", *(run.name for run in runs)), rows, footnote(tasks)))
    return found


def _differences(runs, stage):
    fields = [dict(flat(run.configs[stage])) if stage in run.configs else None for run in runs]
    if any(found is None for found in fields):
        missing = tuple("no checkpoint" if stage in run.lines else "no such stage" for run in runs)
        said = tuple(why if found is None else "" for why, found in zip(missing, fields))
        return [("(known when all have one)", *said)]
    keys = sorted({key for found in fields for key in found})
    rows = [(key, *(_text(found[key]) if key in found else "" for found in fields)) for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def _results(runs):
    rows = []
    for task in dict.fromkeys(name for run in runs for name in run.tasks):
        for key, title in FIGURES.items():
            values = [run.tasks.get(task, {}).get(key) for run in runs]
            if any(value is not None for value in values):
                star = "" if all(run.tasks[task]["scored"] for run in runs if task in run.tasks) else "*"
                rows.append((f"{task}{star}: {title}", *(_number(value) for value in values)))
    return rows


def _text(value):
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(str, value))})"
    return str(value) or '""'


def _number(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.4g}"


def write_page(runs: Sequence[Run], file: pathlib.Path) -> list[Table]:
    """One page that needs nothing else: results, curves over each other, tables; returns the tables."""
    import mne

    from neurolm_jax.reporting import figures

    found = tables(runs)
    page = mne.Report(title=f"NeuroLM: {len(runs)} runs", verbose="error")
    for table in found:
        if table.heads[0] == "task":
            page.add_html(_html(table), title=table.title, tags=("results",))
    for stage in STAGES:
        lines = {run.name: run.lines[stage] for run in runs if stage in run.lines}
        if lines:
            title, caption = f"{stage}: curves", "Over steps. Solid: training. Dashed: validation."
            figure = figures.curves(lines)
            page.add_figure(figure, title=title, caption=caption, tags=("curves",), image_format="svg")
        for table in found:
            if table.title.startswith(f"{stage}: "):
                page.add_html(_html(table), title=table.title, tags=("tables",))
    with appearing_file(file) as unfinished:
        page.save(unfinished, open_browser=False, overwrite=True, verbose="error")
    return found


def _html(table):
    return (html.table(table.heads, table.rows) if table.rows else "") + html.paragraph(*filter(None, [table.note]))


def print_tables(found: Sequence[Table]) -> None:
    """The same tables in a terminal, each below its title."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Printed

    console = Console(markup=False)  # names of files are no markup
    for table in found:
        console.print(table.title, style="italic", highlight=False)
        printed = Printed(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for i, head in enumerate(table.heads):
            printed.add_column(head, justify="right" if i else "left", overflow="fold")
        for row in table.rows:
            printed.add_row(*row)
        if table.rows:
            console.print(printed)
        if table.note:
            console.print(table.note, highlight=False)
        console.print()
