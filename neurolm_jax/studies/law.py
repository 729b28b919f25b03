"""The law L(N, D) = E + A / N^a + B / D^b, fitted to finished runs (Hoffmann et al. 2022, third approach).

N is the number of parameters, D the number of tokens, both about their geometric means while fitting, so that the five
numbers are of one size. Everything here is a pure function of arrays.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares, nnls

DELTA = 1e-3  # of the Huber loss of the residuals of log L
RESAMPLES = 200
GRID = np.geomspace(0.03, 2.5, 10)  # of exponents to start from
STARTS, LEAST = 8, 1e-3  # how many of them; a term's least share of the lowest loss there
DRAWN_STARTS = 2  # of a draw's own grid, beside the fit of all points
EVALUATIONS, FIRST = 300, 40  # of the residuals at most, and from each start of a draw before the best goes on
TRIES = 1000  # draws for each that is wanted
PARAMETERS = 5
NOTHING = 1e-3  # of the lowest loss
EXPONENTS, FREE = (0.0, 4.0), 30.0  # bounds of a and b, and of the size of the other numbers' logarithms


class NoLaw(ValueError):
    """Points that no law can be fitted to; the message says why."""


class Law(NamedTuple):
    """E, A, B as in the formula, in the units of N and D that were given; exponents a of N and b of D."""

    e: float
    a_scale: float
    b_scale: float
    a: float
    b: float

    def __call__(self, n, d):
        """The loss for N and D, of any one shape."""
        return self.e + self.a_scale * np.asarray(n, float) ** -self.a + self.b_scale * np.asarray(d, float) ** -self.b


class Points(NamedTuple):
    """What a law is fitted to: parameters, tokens and loss of runs, each [R]."""

    n: np.ndarray
    d: np.ndarray
    loss: np.ndarray


class Fit(NamedTuple):
    """law: of all points; resampled: laws of points drawn again; residual: root mean square of log residuals."""

    law: Law
    resampled: list[Law]
    points: Points
    residual: float

    def interval(self, of, level: float = 0.95) -> tuple[float, float]:
        """The interval that holds a share ``level`` of what a function of a law gives for the resampled ones."""
        values = [of(law) for law in self.resampled]
        low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
        return float(low), float(high)

    def told(self, loss: float) -> str:
        """A loss as text: 0 where it is nothing beside those of the points; the minimiser stopped on its way there."""
        return "0" if loss < NOTHING * self.points.loss.min() else f"{loss:.4g}"


def fit(points: Points, resamples: int = RESAMPLES, seed: int = 0) -> Fit:
    """The law that fits best from many starts, and the same of ``resamples`` draws of the points with replacement.

    Raises:
      NoLaw: fewer than five different pairs of N and D, one value of either, or a loss that is not positive.
    """
    points = Points(*(np.asarray(column, float) for column in points))
    if obstacle := _obstacle(points):
        raise NoLaw(obstacle)
    centre = np.log(points.n).mean(), np.log(points.d).mean()
    best = _best(points, centre, _starts(points, centre, STARTS))
    law, near, resampled = _law(best, centre), [best, best * [1, 1, 1, 0.6, 0.6]], []
    for some in _draws(points, resamples, np.random.default_rng(seed)):
        # A term that has vanished from the whole fit has no slope left to come back by: hence starts of the draw's own.
        starts = near + _starts(some, centre, DRAWN_STARTS)
        start = _best(some, centre, starts, FIRST)
        resampled.append(_law(_best(some, centre, [start]), centre))
    residual = float(np.sqrt(np.mean(np.square(np.log(law(points.n, points.d) / points.loss)))))
    return Fit(law, resampled, points, residual)


def cells(points: Points) -> set[tuple[float, float]]:
    """The different pairs of N and D."""
    return set(zip(np.asarray(points.n).tolist(), np.asarray(points.d).tolist()))


def _obstacle(points):
    """Why no law can be fitted to points, "" where one can."""
    if (count := len(cells(points))) < PARAMETERS:
        return f"{count} different pairs of N and D, fewer than its {PARAMETERS} numbers"
    for name, values in (("N", points.n), ("D", points.d)):
        if len(np.unique(values)) == 1:
            return f"one value of {name}"
    return "" if (points.loss > 0).all() else "a loss that is not positive"


def _draws(points, count, rng):
    """So many draws of the points with replacement, of those that a law can be fitted to."""
    size = len(points.loss)
    drawn = (rng.integers(size, size=size) for _ in range(TRIES * count))
    draws = (Points(*(column[places] for column in points)) for places in drawn)
    found = list(itertools.islice((some for some in draws if not _obstacle(some)), count))
    if len(found) < count:
        raise NoLaw(f"of {TRIES * count} draws of its points only {len(found)} hold enough pairs of N and D")
    return found


def _starts(points, centre, count):
    """For exponents of a grid, the E, A and B that suit them best (non-negative least squares of relative errors); of
    all those, the ``count`` places from which the Huber loss is lowest already."""
    x, y, target = _logs(points, centre)
    found = []
    for a, b in itertools.product(GRID, GRID):
        columns = np.stack([np.ones(len(x)), np.exp(-a * x), np.exp(-b * y)], axis=1)  # [R, 3]
        scales, _ = nnls(columns / points.loss[:, None], np.ones(len(x)))
        theta = np.array([*np.log(np.maximum(scales, LEAST * points.loss.min())), a, b])
        found.append((huber_loss(_residuals(theta, x, y, target)), theta))
    return [theta for _, theta in sorted(found, key=lambda one: one[0])[:count]]


def huber_loss(residuals: np.ndarray) -> float:
    """The sum of the Huber losses of residuals [R], in units in which a residual of delta counts one half."""
    size = np.abs(residuals) / DELTA
    return float(np.where(size <= 1, np.square(size) / 2, size - 0.5).sum())


def _best(points, centre, starts, evaluations=EVALUATIONS):
    """The numbers of the lowest Huber loss that the minimiser finds from some starts."""
    x, y, target = _logs(points, centre)

    def slopes(theta):
        terms = _terms(theta, x, y)
        shares = np.exp(terms - np.logaddexp.reduce(terms))
        return np.stack([*shares, -shares[1] * x, -shares[2] * y], axis=1)  # [R, 5]

    low, high = [-FREE] * 3 + [EXPONENTS[0]] * 2, [FREE] * 3 + [EXPONENTS[1]] * 2
    options = {"bounds": (low, high), "loss": "huber", "f_scale": DELTA, "x_scale": "jac", "max_nfev": evaluations}
    inside = (np.clip(start, np.add(low, 1e-6), np.subtract(high, 1e-6)) for start in starts)
    found = (least_squares(lambda theta: _residuals(theta, x, y, target), start, slopes, **options) for start in inside)
    return min(found, key=lambda one: one.cost).x


def _logs(points, centre):
    return np.log(points.n) - centre[0], np.log(points.d) - centre[1], np.log(points.loss)


def _terms(theta, x, y):
    return np.stack([np.full(len(x), theta[0]), theta[1] - theta[3] * x, theta[2] - theta[4] * y])  # [3, R]


def _residuals(theta, x, y, target):
    return np.logaddexp.reduce(_terms(theta, x, y)) - target


def _law(theta, centre):
    """From the numbers that were fitted, about the centre of log N and log D."""
    log_e, log_a, log_b, a, b = theta.tolist()
    scales = np.exp([log_e, log_a + a * centre[0], log_b + b * centre[1]]).tolist()
    return Law(*scales, a, b)
