"""An ablation's table: means and ranges over seeds, and differences to the baseline of the same seed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neurolm_jax.studies.document import Table
from neurolm_jax.studies.measures import Row

SEEDS = 3  # from which on it is said whether they agree


class Difference(NamedTuple):
    """Of a variant to the baseline, over the seeds that both have: values [S] of the variant, differences [S']."""

    values: list[float]
    differences: list[float]

    @property
    def agrees(self) -> bool:
        """All seeds have it of one sign, and there are enough of them."""
        return len(self.differences) >= SEEDS and abs(sum(np.sign(self.differences))) == len(self.differences)


def compare(rows: Sequence[Row], metric: str, baseline: str) -> dict[str, Difference]:
    """Variants of a metric by name, the baseline first."""
    values: dict[str, dict[int, float]] = {}
    for row in sorted(rows, key=lambda row: row.name != baseline):
        if metric in row.metrics:
            values.setdefault(row.name, {})[row.seed] = row.metrics[metric]
    base = values.get(baseline, {})
    return {
        name: Difference(
            list(own.values()), [own[seed] - base[seed] for seed in own if seed in base and name != baseline]
        )
        for name, own in values.items()
    }


def report(stage: str, rows: Sequence[Row], baseline: str) -> tuple[list[str], list[Table], dict]:
    """Of finished runs: conclusions, the table, and what ``table.json`` has."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    lines, table, told = [], [], {}
    for metric in metrics:
        shown = metric.removeprefix("validation_").replace("_", " ")
        found = compare(rows, metric, baseline)
        told[metric] = {name: one._asdict() for name, one in found.items()}
        for name, one in found.items():
            table.append((shown, name, *_cells(one)))
            if one.differences:
                lines.append(f"{stage}, {shown}: {name} {_words(one, metric)}")
    head = ("", "", "mean", "of seeds", "difference to the baseline", "of seeds")
    return lines, [Table(f"{stage}, validation part", head, table)], told


def _cells(one):
    def cells(values):
        return (f"{np.mean(values):.4g}", f"{min(values):.4g} to {max(values):.4g}") if values else ("", "")

    return *cells(one.values), *cells(one.differences)


def _words(one, metric):
    mean = float(np.mean(one.differences))
    if not any(one.differences):
        return "changes nothing"
    if len(one.differences) < SEEDS:
        return f"differs by {mean:+.3g}; {len(one.differences)} seeds are too few to tell it from chance"
    if not one.agrees:
        return f"differs by {mean:+.3g}, which its seeds do not agree on"
    better = (mean < 0) == ("loss" in metric)
    chance = 2 ** (1 - len(one.differences))
    said = f"is {'better' if better else 'worse'} on every seed, by {abs(mean):.3g} on average"
    return f"{said} (that {len(one.differences)} seeds agree comes by chance in {chance:.1%})"
