"""An ablation's table: means and ranges over seeds, and differences to the baseline of the same seed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neurolm_jax.studies.document import Table
from neurolm_jax.studies.measures import Row

SEEDS = 3  # from which on it is said whether they agree
OF_CODES = ("eeg_", "codes_", "loss")  # how metrics begin that are over codes, the whole loss of pretrain among them


class Difference(NamedTuple):
    """A variant beside the baseline. values: of the variant, a seed each; differences: to the baseline, of the seeds
    that both have; other_codes: how many of these do not compare, being over other codes."""

    values: list[float]
    differences: list[float]
    other_codes: int = 0

    @property
    def agrees(self) -> bool:
        """Whether the differences of all seeds have one sign, and there are enough of them."""
        return len(self.differences) >= SEEDS and abs(sum(np.sign(self.differences))) == len(self.differences)


def compare(rows: Sequence[Row], metric: str, baseline: str) -> dict[str, Difference]:
    """Variants of a metric by name, the baseline first."""
    known: dict[str, dict[int, Row]] = {}
    for row in sorted(rows, key=lambda row: row.name != baseline):
        if metric in row.metrics:
            known.setdefault(row.name, {})[row.seed] = row
    base, found = known.get(baseline, {}), {}
    for name, own in known.items():
        pairs = [(row, base[seed]) for seed, row in own.items() if seed in base and name != baseline]
        differences = [row.metrics[metric] - to.metrics[metric] for row, to in pairs if _compare(metric, row, to)]
        values = [row.metrics[metric] for row in own.values()]
        found[name] = Difference(values, differences, len(pairs) - len(differences))
    return found


def _compare(metric, row, other):
    """Whether a metric is of the same thing: losses over codes, and counts of them, are so for the same codes alone."""
    return row.codes == other.codes or not metric.removeprefix("validation_").startswith(OF_CODES)


def report(stage: str, rows: Sequence[Row], baseline: str) -> tuple[list[str], list[Table], dict]:
    """What finished runs say: conclusions, the table, and what ``table.json`` has."""
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
        if apart := [name for name, one in found.items() if one.other_codes]:
            lines.append(
                f"{stage}, {shown}: over other codes than the baseline's, nothing to compare: {', '.join(apart)}"
            )
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
