"""The law of a stage in tables, figures and words; what is said follows from the figures by rules that stand here."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neurolm_jax.studies import figures
from neurolm_jax.studies.document import Part, Picture, Table
from neurolm_jax.studies.frontier import (
    REACH,
    Cost,
    Foretold,
    exponents,
    fit_cost,
    foretell,
    optimum,
    weaknesses,
)
from neurolm_jax.studies.law import PARAMETERS, Fit, Points, cells, fit
from neurolm_jax.studies.measures import Row
from neurolm_jax.studies.sweep import Sweep

REPEATED = 4.0  # epochs up to which repeated data count about as much as new (Muennighoff et al. 2023)


class Level(NamedTuple):
    """The runs of one size and budget, which differ in their seed."""

    name: str
    budget: str
    rows: list[Row]

    @property
    def loss(self) -> float:
        return float(np.mean([row.loss for row in self.rows]))


def report(
    stage: str, rows: Sequence[Row], sweep: Sweep, targets: Sequence[tuple[float, float]]
) -> tuple[list[str], list[Part], dict]:
    """Of finished runs: conclusions, parts of the page, and what ``law.json`` has."""
    levels, distinct = _levels(rows), sweep.tokens == "distinct"
    parts: list[Part] = [_table(stage, levels)]
    tokens = np.array([row.tokens_distinct if distinct else row.tokens_seen for row in rows], float)
    points = Points(np.array([row.parameters for row in rows], float), tokens, np.array([row.loss for row in rows]))
    told: dict = {"runs": len(rows), "loss": list(sweep.metrics[stage]), "value": sweep.value, "tokens": sweep.tokens}
    if (count := len(cells(points))) < PARAMETERS:
        said = f"{stage}: no law: {count} different pairs of N and D, fewer than its {PARAMETERS} numbers"
        return [said], parts, told | {"weaknesses": [said]}
    found = fit(points)
    weak = weaknesses(found)
    lines = [*_quality(found, levels), *_epochs(rows), *_terms(found), *_best_sizes(levels)]
    told |= _law_json(found) | {"weaknesses": weak}
    parts += [_fit_table(stage, found), *_curves(stage, found)]
    foretold = {f"N = {n:.3g}, D = {d:.3g}": foretell(found, n, d) for n, d in targets}
    if not distinct:
        cost = fit_cost(points, np.array([row.operations for row in rows]))
        more, foretold_best = _compute(stage, rows, found, cost)
        parts += more
        told |= {"cost": cost._asdict(), "frontier": _frontier_json(found, cost, rows)}
        foretold = foretold_best | foretold
        lines += _frontier_words(found, cost, rows, weak)
    else:
        lines.append("No compute frontier: D counts distinct tokens, and what a run costs follows from those it saw")
    lines += _foretold_words(foretold, weak)
    told["foretold"] = {name: one._asdict() for name, one in foretold.items()}
    return [f"{stage}: {line}" for line in lines], parts, told


def _levels(rows) -> list[Level]:
    found: dict[tuple, Level] = {}
    for row in rows:
        found.setdefault((row.name, row.budget), Level(row.name, row.budget, [])).rows.append(row)
    return list(found.values())


def _table(stage, levels):
    lines = []
    for level in levels:
        row, losses = level.rows[0], [one.loss for one in level.rows]
        lines.append(
            (
                level.name,
                f"{row.parameters:,}",
                f"{row.tokens_seen:,.0f}",
                f"{row.tokens_distinct:,}",
                f"{row.tokens_seen / row.tokens_distinct:.1f}",
                f"{row.steps:,}",
                f"{row.operations:.3g}",
                f"{level.loss:.4f}",
                f"{min(losses):.4f}-{max(losses):.4f}",
            )
        )
    head = ("size", "N", "tokens seen", "distinct", "epochs", "steps", "operations", "loss", "of seeds")
    return Table(f"Points: {stage}", head, lines)


def _fit_table(stage, found):
    lines = []
    for name, place in (("E", 0), ("A", 1), ("B", 2), ("a", 3), ("b", 4)):
        low, high = found.interval(lambda law, place=place: law[place])
        told = found.told if name == "E" else lambda value: f"{value:.4g}"
        lines.append((name, told(found.law[place]), f"{told(low)} to {told(high)}"))
    return Table(f"L(N, D) = E + A/N^a + B/D^b: {stage}", ("", "fit", "95% interval"), lines)


def _curves(stage, found):
    for axis, names in (("n", ("N, parameters", "D")), ("d", ("D, tokens", "N"))):
        picture = figures.against(found, axis, names)
        yield Picture(f"Loss over {axis.upper()}: {stage}", f"{stage}-{axis}.png", picture)


def _compute(stage, rows, found, cost):
    """Figures of matched compute and the frontier, and the losses foretold on it."""
    parts = [Picture(f"Matched compute: {stage}", f"{stage}-compute.png", figures.iso_compute(rows, found, cost))]
    most = max(row.operations for row in rows)
    if not _has_best(found, cost, rows):
        return parts, {}
    reach = np.geomspace(min(row.operations for row in rows), REACH * most, 30)
    parts.append(
        Picture(f"Best use of compute: {stage}", f"{stage}-frontier.png", figures.frontier(found, cost, reach))
    )
    foretold = {}
    for factor in (3, 10):
        best = optimum(found.law, cost, factor * most)
        foretold[f"{factor} times the compute, N = {best.n:.3g}, D = {best.d:.3g}"] = foretell(found, best.n, best.d)
    return parts, foretold


def _has_best(found: Fit, cost: Cost, rows) -> bool:
    """At any compute from the least that was tried to the most that is shown."""
    least, most = (choose(row.operations for row in rows) for choose in (min, max))
    return all(optimum(found.law, cost, compute) for compute in (least, REACH * most))


def _law_json(found):
    law = dict(zip(("E", "A", "B", "a", "b"), found.law))
    names = {name: place for place, name in enumerate(law)}
    intervals = {name: found.interval(lambda one, place=place: one[place]) for name, place in names.items()}
    return {"law": law, "intervals": intervals, "residual": found.residual, "resamples": len(found.resampled)}


def _frontier_json(found, cost, rows):
    if not _has_best(found, cost, rows):
        return None
    budgets = sorted({row.operations for row in rows})
    of_n, of_d = exponents(found.law, cost)
    interval = _exponent_interval(found, cost)
    best = [{"operations": c} | optimum(found.law, cost, c)._asdict() for c in (budgets[0], budgets[-1])]
    return {"exponent_n": of_n, "exponent_d": of_d, "exponent_n_interval": interval, "best": best}


def _exponent_interval(found, cost):
    """Of C in the best N."""
    return found.interval(lambda law: exponents(law, cost)[0] if law.a + cost.p * law.b > 0 else 0.5)


def _quality(found, levels):
    spreads = [np.std(np.log([row.loss for row in level.rows]), ddof=1) for level in levels if len(level.rows) > 1]
    line = f"the law is off by {found.residual:.2%} of the loss (root mean square over {len(found.points.loss)} runs)"
    if not spreads:
        yield f"{line}; with one seed nothing says how much of that is chance"
        return
    spread = float(np.sqrt(np.mean(np.square(spreads))))
    verdict = "no more than chance" if found.residual < 1.5 * spread else "more than chance: the form fits badly"
    yield f"{line}, where seeds alone differ by {spread:.2%}: {verdict}"


def _epochs(rows):
    epochs = [row.tokens_seen / row.tokens_distinct for row in rows]
    if max(epochs) > REPEATED:
        yield (
            f"the data were seen {min(epochs):.3g} to {max(epochs):.3g} times, beyond the {REPEATED:g} up to which that"
            " counts about as much as new data: this is a law of training longer rather than of having more EEG"
        )


def _terms(found):
    law, points = found.law, found.points
    for name, scale, exponent, values, what in (
        ("a", law.a_scale, law.a, points.n, "model"),
        ("b", law.b_scale, law.b, points.d, "amount of data"),
    ):
        gain = scale * (values.min() ** -exponent - values.max() ** -exponent)
        low, high = found.interval(lambda one, name=name: getattr(one, name))
        yield (
            f"from the smallest {what} to the largest ({values.max() / values.min():.1f} times) its term falls by"
            f" {gain:.3g}, {gain / points.loss.max():.1%} of the highest loss;"
            f" {name} = {exponent:.2f} ({low:.2f} to {high:.2f})"
        )


def _best_sizes(levels):
    """Where the lowest mean loss of each budget lies among the sizes."""
    for budget in dict.fromkeys(level.budget for level in levels):
        here = sorted((level for level in levels if level.budget == budget), key=lambda one: one.rows[0].parameters)
        if len(here) < 3:
            continue
        best = min(here, key=lambda one: one.loss)
        place = (
            "the smallest tried" if best is here[0] else "the largest tried" if best is here[-1] else "inside the range"
        )
        yield f"of the sizes at {here[0].rows[0].operations:.2g} operations, {best.name} has the lowest loss, {place}"


def _frontier_words(found, cost, rows, weak):
    if cost.error > 0.1:
        yield f"what a run costs follows C = k N^p D to {cost.error:.0%} only"
    if not _has_best(found, cost, rows):
        yield "no best size for a given compute: an exponent is about 0, or a larger model costs no more"
        return
    low, high = _exponent_interval(found, cost)
    of_n = exponents(found.law, cost)[0]
    line = f"the best N grows as C^{of_n:.2f} ({low:.2f} to {high:.2f}), with C ~ N^{cost.p:.2f} D"
    yield f"{line}; within the compute that was tried only" if weak else line


def _foretold_words(foretold: dict[str, Foretold], weak):
    if weak:
        yield f"nothing is foretold beyond what was tried: {'; '.join(weak)}"
        return
    for name, one in foretold.items():
        if one.reasons:
            yield f"{name}: not foretold, {'; '.join(one.reasons)}"
        else:
            yield f"{name}: {one.loss:.4g} ({one.low:.4g} to {one.high:.4g}) foretold"
