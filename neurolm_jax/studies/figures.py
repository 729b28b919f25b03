"""Pictures of a scaling study, as matplotlib figures."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from neurolm_jax.studies.frontier import Cost, optimum
from neurolm_jax.studies.law import Fit
from neurolm_jax.studies.measures import Row


def against(fit: Fit, axis: str, names: tuple[str, str]) -> Figure:
    """Loss over N (or D), a colour for each D (or N), with the law's curves through them."""
    x, other = (fit.points.n, fit.points.d) if axis == "n" else (fit.points.d, fit.points.n)
    figure, axes = _axes()
    curve = np.geomspace(x.min(), x.max(), 100)
    # Points of about one value of the other axis share a curve; matched compute leaves few that agree exactly.
    groups = _groups(other)
    for number, members in enumerate(groups):
        colour, level = f"C{number}", float(np.exp(np.log(other[members]).mean()))
        axes.plot(x[members], fit.points.loss[members], "o", color=colour, markersize=4)
        at = (curve, np.full(100, level)) if axis == "n" else (np.full(100, level), curve)
        axes.plot(curve, fit.law(*at), "-", color=colour, linewidth=1, label=f"{names[1]} = {level:.2g}")
    if fit.law.e > axes.get_ylim()[0] / 2:  # elsewhere the points would lie on one line
        axes.axhline(fit.law.e, color="0.5", linestyle=":", linewidth=1, label="E")
    _logarithmic(axes, x, names[0])
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def iso_compute(rows: Sequence[Row], fit: Fit, cost: Cost) -> Figure:
    """Loss over N, a colour for each compute and a marker for each share of the recordings; curves: the law at that
    compute, a star where it is lowest."""
    figure, axes = _axes()
    curve = np.geomspace(fit.points.n.min(), fit.points.n.max(), 100)
    budgets, shares = list(dict.fromkeys(row.budget for row in rows)), sorted({row.share for row in rows}, reverse=True)
    for number, budget in enumerate(budgets):
        here = [row for row in rows if row.budget == budget]
        compute = float(np.mean([row.operations for row in here]))
        colour = f"C{number}"
        own = [share for share in shares if any(row.share == share for row in here)]
        for share, marker in zip(own, itertools.cycle("osv^D")):
            some = [row for row in here if row.share == share]
            name = f"{share:g} of the recordings" if len(own) > 1 else None
            x, y = zip(*((row.parameters, row.loss) for row in some))
            axes.plot(x, y, marker, color=colour, markersize=4, label=name)
        label = f"{compute:.2g} operations"
        axes.plot(curve, fit.law(curve, compute / cost(curve, 1)), "-", color=colour, linewidth=1, label=label)
        best = optimum(fit.law, cost, compute)
        if best and curve[0] <= best.n <= curve[-1]:
            axes.plot(best.n, best.loss, "*", color=colour, markersize=11)
    _logarithmic(axes, fit.points.n, "N, parameters")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def frontier(fit: Fit, cost: Cost, compute: np.ndarray) -> Figure:
    """The best N and D over compute [C], where there is one, with the bootstrap's 95% band."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    best = [optimum(fit.law, cost, c) for c in compute]
    drawn = [[optimum(law, cost, c) for c in compute] for law in fit.resampled]
    drawn = [curve for curve in drawn if all(curve)]
    for axes, place, name in zip(figure.subplots(1, 2), (0, 1), ("N, parameters", "D, tokens")):
        axes.plot(compute, [one[place] for one in best], color="C0")
        if drawn:
            bands = [[one[place] for one in curve] for curve in drawn]
            axes.fill_between(compute, *np.percentile(bands, [2.5, 97.5], axis=0), alpha=0.25)
        axes.set(xscale="log", yscale="log", xlabel="operations", ylabel=f"best {name}")
    return figure


def _groups(values, width=np.log(1.5)):
    """Places of values that lie within a factor of the lowest of their group."""
    order, groups = np.argsort(values, kind="stable"), []
    for place in order:
        if groups and np.log(values[place] / values[groups[-1][0]]) < width:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _logarithmic(axes, x, name):
    """Both axes; losses of less than a factor of two are told apart by plain numbers, x by its values."""
    axes.set(xscale="log", yscale="log", xlabel=name, ylabel="loss")
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.yaxis.set_major_formatter(ScalarFormatter())
    values = np.unique(x)
    if len(values) <= 5:
        axes.set_xticks(values, [f"{value:.3g}" for value in values])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _axes():
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    return figure, figure.subplots()
