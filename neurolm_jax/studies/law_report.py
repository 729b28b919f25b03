"""The law of a stage in tables, figures and words; what is said follows from the figures by rules that stand here."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neurolm_jax.studies import figures
from neurolm_jax.studies.document import Part, Picture, Table
from neurolm_jax.studies.frontier import (
    REACH,
    Cost,
    Prediction,
    exponents,
    fit_cost,
    optimum,
    predict,
    reasons_not_to_extrapolate,
)
from neurolm_jax.studies.law import Fit, NoLaw, Points, fit
from neurolm_jax.studies.measures import Row
from neurolm_jax.studies.sweep import Sweep

REPEATED = 4.0  # epochs up to which repeated data count about as much as new (Muennighoff et al. 2023)


class Level(NamedTuple):
    """The runs of one size, budget and share of the recordings, which differ in their seed."""

    name: str
    budget: str
    share: float
    rows: list[Row]

    @property
    def loss(self) -> float:
        """The mean over the seeds."""
        return float(np.mean([row.loss for row in self.rows]))


def report(
    stage: str, rows: Sequence[Row], sweep: Sweep, targets: Sequence[tuple[float, float]]
) -> tuple[list[str], list[Part], dict]:
    """What finished runs say: conclusions, parts of the page, and what ``law.json`` has."""
    levels = _levels(rows)
    parts: list[Part] = [_table(stage, levels)]
    columns = zip(*((row.parameters, row.tokens_seen, row.loss) for row in rows))
    points = Points(*(np.array(column, float) for column in columns))
    told: dict = {"runs": len(rows), "loss": list(sweep.metrics[stage]), "value": sweep.value}
    try:
        found = fit(points)
    except NoLaw as error:
        lines = [f"no law: {error}", *_best_sizes(levels), *_shares(levels)]
        return [f"{stage}: {line}" for line in lines], parts, told | {"reasons_not_to_extrapolate": lines[:1]}
    reasons = reasons_not_to_extrapolate(found)
    lines = [*_quality(found, levels), *_epochs(rows), *_terms(found), *_best_sizes(levels), *_shares(levels)]
    told |= _law_json(found) | {"reasons_not_to_extrapolate": reasons}
    parts += [_fit_table(stage, found), *_curves(stage, found)]
    cost = fit_cost(points, np.array([row.operations for row in rows]))
    more, predictions = _compute(stage, rows, found, cost)
    parts += more
    predictions |= {f"N = {n:.3g}, D = {d:.3g}": predict(found, n, d) for n, d in targets}
    told |= {"cost": cost._asdict(), "frontier": _frontier_json(found, cost, rows)}
    lines += [*_frontier_words(found, cost, rows, reasons), *_prediction_words(predictions, reasons)]
    told["predictions"] = {name: one._asdict() for name, one in predictions.items()}
    return [f"{stage}: {line}" for line in lines], parts, told


def _levels(rows) -> list[Level]:
    found: dict[tuple, Level] = {}
    for row in rows:
        key = row.name, row.budget, row.share
        found.setdefault(key, Level(*key, [])).rows.append(row)
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
    """Figures of matched compute and the frontier, and the losses predicted on it."""
    parts = [Picture(f"Matched compute: {stage}", f"{stage}-compute.png", figures.iso_compute(rows, found, cost))]
    most = max(row.operations for row in rows)
    if not _has_best(found, cost, rows):
        return parts, {}
    reach = np.geomspace(min(row.operations for row in rows), REACH * most, 30)
    parts.append(
        Picture(f"Best use of compute: {stage}", f"{stage}-frontier.png", figures.frontier(found, cost, reach))
    )
    predictions = {}
    for factor in (3, 10):
        best = optimum(found.law, cost, factor * most)
        name = f"{factor} times the compute, N = {best.n:.3g}, D = {best.d:.3g}"
        predictions[name] = predict(found, best.n, best.d)
    return parts, predictions


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
    """The interval of the exponent of C in the best N."""
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
    """Where the lowest mean loss of each budget, and share of the recordings, lies among the sizes."""
    amounts = dict.fromkeys((level.budget, level.share) for level in levels)
    for amount in amounts:
        here = [level for level in levels if (level.budget, level.share) == amount]
        here.sort(key=lambda one: one.rows[0].parameters)
        if len(here) < 3:
            continue
        best = min(here, key=lambda one: one.loss)
        place = (
            "the smallest tried" if best is here[0] else "the largest tried" if best is here[-1] else "inside the range"
        )
        where = f"{here[0].rows[0].operations:.2g} operations"
        if sum(budget == here[0].budget for budget, _ in amounts) > 1:
            where += f" and {here[0].share:g} of the recordings"
        yield f"of the sizes at {where}, {best.name} has the lowest loss, {place}"


def _shares(levels):
    """What more recordings do at one compute, where a budget has several shares of them."""
    for budget in dict.fromkeys(level.budget for level in levels):
        here = [level for level in levels if level.budget == budget]
        least, most = (choose(level.share for level in here) for choose in (min, max))
        losses = {share: {one.name: one.loss for one in here if one.share == share} for share in (least, most)}
        changes = [losses[most][name] - losses[least][name] for name in losses[most] if name in losses[least]]
        if least < most and changes:
            yield (
                f"at {here[0].rows[0].operations:.2g} operations, {most:g} of the recordings instead of {least:g}"
                f" change the loss by {np.mean(changes):+.3g} ({min(changes):+.3g} to {max(changes):+.3g} over"
                f" {len(changes)} sizes); the law knows of tokens seen alone"
            )


def _frontier_words(found, cost, rows, reasons):
    if cost.error > 0.1:
        yield f"what a run costs follows C = k N^p D to {cost.error:.0%} only"
    if not _has_best(found, cost, rows):
        yield "no best size for a given compute: an exponent is about 0, or a larger model costs no more"
        return
    low, high = _exponent_interval(found, cost)
    of_n = exponents(found.law, cost)[0]
    line = f"the best N grows as C^{of_n:.2f} ({low:.2f} to {high:.2f}), with C ~ N^{cost.p:.2f} D"
    yield f"{line}; within the compute that was tried only" if reasons else line


def _prediction_words(predictions: dict[str, Prediction], reasons):
    if reasons:
        yield f"nothing is predicted beyond what was tried: {'; '.join(reasons)}"
        return
    for name, one in predictions.items():
        if one.reasons:
            yield f"{name}: not predicted, {'; '.join(one.reasons)}"
        else:
            yield f"{name}: {one.loss:.4g} ({one.low:.4g} to {one.high:.4g}) predicted"
