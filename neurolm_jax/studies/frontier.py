"""The best use of compute under a law, and how far the law may be trusted.

A run of N parameters on D tokens costs C = k N^p D operations. k = 6, p = 1 is the usual estimate; small models with
large tables of classes cost otherwise, so both numbers are fitted to what the runs cost.
"""

from typing import NamedTuple

import numpy as np

from neurolm_jax.studies.law import EXPONENTS, PARAMETERS, Fit, Law, Points, cells

RANGE = 4.0  # N and D must each span this factor
REACH = 10.0  # times what was tried: how far is predicted at most
BEYOND = np.log(1e30)
TOUCHES = 0.01  # an exponent's interval that comes so near to a bound touches it
# Shares of the lowest loss: the interval of an E that is identified lies above the one and is no wider than the other.
LOWEST_E = 0.05
WIDEST_E = 0.5


class Cost(NamedTuple):
    """C = k N^p D; error: root mean square of the runs' log residuals."""

    k: float
    p: float
    error: float

    def __call__(self, n, d):
        return self.k * np.asarray(n, float) ** self.p * np.asarray(d, float)


class Best(NamedTuple):
    """The N and D that cost a given compute and have the lowest loss."""

    n: float
    d: float
    loss: float


class Prediction(NamedTuple):
    """The loss of a run that was not made, with the 95% interval of the resampled laws; reasons not to believe it."""

    loss: float
    low: float
    high: float
    reasons: list[str]


def fit_cost(points: Points, compute: np.ndarray) -> Cost:
    """The cost that fits best what the runs of some points cost, operations [R]; where they have one N, p is 1."""
    x, y = np.log(points.n), np.log(compute / points.d)
    p = float(np.polyfit(x, y, 1)[0]) if len(set(x.tolist())) > 1 else 1.0
    k = (y - p * x).mean()
    return Cost(float(np.exp(k)), p, float(np.sqrt(np.mean(np.square(y - p * x - k)))))


def optimum(law: Law, cost: Cost, compute: float) -> Best | None:
    """Where the loss along C = k N^p D is lowest: a A N^-a = p b B D^-b. None if there is no such place, or none of a
    size that could be: an exponent is about 0, or a larger model costs no more."""
    if min(law.a, law.b, cost.p) < TOUCHES:
        return None
    ratio = np.log([law.a * law.a_scale, cost.p * law.b * law.b_scale]) @ [1, -1]
    log_n = (ratio + law.b * np.log(compute / cost.k)) / (law.a + cost.p * law.b)
    log_d = np.log(compute / cost.k) - cost.p * log_n
    if not (np.abs([log_n, log_d]) < BEYOND).all():
        return None
    n, d = float(np.exp(log_n)), float(np.exp(log_d))
    return Best(n, d, float(law(n, d)))


def exponents(law: Law, cost: Cost) -> tuple[float, float]:
    """The exponents of C in the best N and in the best D."""
    power = law.a + cost.p * law.b
    return law.b / power, law.a / power


def reasons_not_to_extrapolate(fit: Fit) -> list[str]:
    """Why a fit predicts nothing beyond its points, in words; [] where it may."""
    found, points = [], fit.points
    if (count := len(cells(points))) < 2 * PARAMETERS:
        found.append(f"{count} different pairs of N and D, fewer than twice the law's {PARAMETERS} numbers")
    for name, values in (("N", points.n), ("D", points.d)):
        if (span := values.max() / values.min()) < RANGE:
            found.append(f"{name} spans a factor of {span:.1f}, less than {RANGE:g}")
    for name, exponent in (("a", lambda law: law.a), ("b", lambda law: law.b)):
        low, high = fit.interval(exponent)
        for touches, value in (
            (low < EXPONENTS[0] + TOUCHES, f"{EXPONENTS[0]:g}"),
            (high > EXPONENTS[1] - TOUCHES, f"{EXPONENTS[1]:g} or more"),
        ):
            if touches:
                found.append(f"the exponent {name} may be {value} (95% interval {low:.2f} to {high:.2f})")
    low, high = fit.interval(lambda law: law.e)
    lowest = points.loss.min()
    if low < LOWEST_E * lowest or high - low > WIDEST_E * lowest:
        found.append(
            f"E is not identified (95% interval {fit.told(low)} to {fit.told(high)}, lowest loss {lowest:.3g})"
        )
    return found


def predict(fit: Fit, n: float, d: float) -> Prediction:
    """The loss at N and D, with what speaks against it."""
    reasons = reasons_not_to_extrapolate(fit)
    for name, value, tried in (("N", n, fit.points.n), ("D", d, fit.points.d)):
        if value > REACH * tried.max() or value < tried.min() / REACH:
            reasons.append(
                f"{name} = {value:.3g} is more than {REACH:g} times beyond {tried.min():.3g}-{tried.max():.3g}"
            )
    return Prediction(float(fit.law(n, d)), *fit.interval(lambda law: float(law(n, d))), reasons)
