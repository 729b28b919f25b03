"""What a study says: its report in two forms, its points as CSV, its law or table as JSON."""

import pathlib
from collections.abc import Sequence

from neurolm_jax.outputs import write_json
from neurolm_jax.studies import ablations, document, law_report
from neurolm_jax.studies.document import Part, Table, Text
from neurolm_jax.studies.measures import Row, write_csv
from neurolm_jax.studies.sweep import Sweep


def write(sweep: Sweep, rows: Sequence[Row], targets: Sequence[tuple[float, float]], folder: pathlib.Path) -> list[str]:
    """All files of a sweep's folder; returns the conclusions.

    Args:
      rows: of all points, finished or not; targets: N and D to predict the loss of.
    """
    parts: list[Part] = []
    conclusions: list[str] = []
    told = {}
    for stage in sweep.metrics:
        here = [row for row in rows if row.stage == stage]
        if not here:
            continue
        done = [row for row in here if (row.metrics if sweep.kind == "ablation" else row.loss is not None)]
        lines = [*_unfinished(stage, here), *_lacking(stage, sweep, here)]
        if done:
            if sweep.kind == "law":
                said, more, told[stage] = law_report.report(stage, done, sweep, targets)
            else:
                said, more, told[stage] = ablations.report(stage, done, sweep.baseline)
            lines += said
            parts += more
        conclusions += lines
    seconds = sum({row.folder: row.seconds or 0 for row in rows}.values())
    parts = [Text("Conclusions", conclusions), *parts, _setting(sweep, rows, seconds)]
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(rows, folder / "points.csv")
    write_json(folder / ("law.json" if sweep.kind == "law" else "table.json"), told)
    document.write_markdown(sweep.title, parts, folder / "report.md")
    document.write_html(sweep.title, parts, folder / "report.html")
    return conclusions


def _unfinished(stage, rows):
    if (count := sum(row.finished for row in rows)) < len(rows):
        yield f"{stage}: {count} of {len(rows)} runs are finished"


def _lacking(stage, sweep, rows):
    """Metrics that finished runs do not have, so that nothing is said of these runs."""
    finished = [row for row in rows if row.finished]
    where = "in any validation" if sweep.value == "lowest" else "at the last step"
    for name in sweep.metrics[stage]:
        if without := [row.folder for row in finished if name not in row.metrics]:
            yield (
                f"{stage}: {len(without)} of {len(finished)} finished runs lack {name} {where}, {without[0]}"
                f"{' and others' * (len(without) > 1)}: it was not finite, or the stage measures nothing of that name"
            )


def _setting(sweep, rows, seconds):
    """What the figures are of: the smallest and the largest of each column."""
    columns = {
        "parameters": [row.parameters for row in rows],
        "EEG tokens seen": [row.tokens_seen for row in rows],
        "distinct EEG tokens": [row.tokens_distinct for row in rows],
        "steps": [row.steps for row in rows],
        "operations": [row.operations for row in rows],
    }
    lines = [(name, f"{min(values):.3g}", f"{max(values):.3g}") for name, values in columns.items()]
    lines.append(("seeds", ", ".join(map(str, sorted({row.seed for row in rows}))), ""))
    lines.append(("hours of training, measured runs", f"{seconds / 3600:.2f}", ""))
    return Table("Setting", ("", "from", "to"), lines)
