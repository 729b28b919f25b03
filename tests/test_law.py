"""Laws that are known are found again, and what cannot be told is not."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from neurolm_jax.studies import figures, law
from neurolm_jax.studies.frontier import Cost, exponents, fit_cost, optimum, predict, reasons_not_to_extrapolate
from neurolm_jax.studies.law import Law, NoLaw, Points

CHINCHILLA = Law(1.69, 406.4, 410.7, 0.34, 0.28)  # Hoffmann et al. 2022, approach 3
SMALL = Law(0.55, 8.0, 30.0, 0.25, 0.4)  # about as a tokenizer of some 100,000 parameters might have it


def made(truth, n, d, noise=0.0, seeds=1, seed=0):
    """Points of a law on a grid, with noise of the logarithm."""
    n, d = (np.tile(x.ravel(), seeds) for x in np.meshgrid(n, d))
    return Points(n, d, truth(n, d) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(n))))


GRIDS = {
    "chinchilla": (CHINCHILLA, np.geomspace(5e7, 1e10, 6), np.geomspace(1e9, 5e11, 6), 0.001),
    "small": (SMALL, np.geomspace(1e4, 1e6, 6), np.geomspace(1e4, 1e7, 6), 0.002),
}


@pytest.fixture(scope="module", params=GRIDS)
def known(request):
    truth, n, d, noise = GRIDS[request.param]
    return truth, law.fit(made(truth, n, d, noise, seeds=3), resamples=40)


def test_known_exponents_are_found_within_a_tenth(known):
    truth, found = known
    np.testing.assert_allclose([found.law.a, found.law.b], [truth.a, truth.b], rtol=0.1)
    np.testing.assert_allclose(found.law.e, truth.e, rtol=0.1)


def test_intervals_hold_the_truth_and_are_narrow(known):
    truth, found = known
    for place in range(3, 5):
        low, high = found.interval(lambda one, place=place: one[place], level=0.999)
        assert low <= truth[place] <= high and high - low < 0.4 * truth[place]


def test_a_law_without_noise_is_found_exactly():
    truth, n, d, _ = GRIDS["small"]
    found = law.fit(made(truth, n, d), resamples=2)
    np.testing.assert_allclose(found.law, truth, rtol=1e-6)
    assert found.residual < 1e-9


def test_wild_runs_move_little():
    """Huber's loss: two of 36 runs that went wrong by a third."""
    truth, n, d, _ = GRIDS["chinchilla"]
    points = made(truth, n, d, 0.0005)
    points.loss[[4, 20]] *= 1.35
    found = law.fit(points, resamples=2).law
    np.testing.assert_allclose([found.a, found.b], [truth.a, truth.b], rtol=0.1)


def plain_objective(theta, points):
    """Hoffmann et al. 2022, equation 3, written out: a run at a time."""
    total = 0.0
    for n, d, loss in zip(*points):
        e, a_log, b_log, a, b = theta
        terms = [a_log - a * math.log(n), b_log - b * math.log(d), e]
        residual = abs(math.log(sum(math.exp(term) for term in terms)) - math.log(loss))
        total += residual**2 / 2 if residual <= 1e-3 else 1e-3 * (residual - 5e-4)
    return total / 1e-6


def test_the_objective_is_the_papers():
    """From the fit, an optimiser that knows the plain formula alone finds nothing lower."""
    truth, n, d, _ = GRIDS["small"]
    points = made(truth, n[::2], d[::2], 0.004)
    found = law.fit(points, resamples=1).law
    theta = [*np.log([found.e, found.a_scale, found.b_scale]), found.a, found.b]
    at = plain_objective(theta, points)
    for method in ("L-BFGS-B", "Nelder-Mead"):
        better = minimize(plain_objective, theta, args=(points,), method=method)
        assert better.fun > 0.999 * at


def test_too_few_points_are_refused():
    with pytest.raises(NoLaw, match="4 different pairs of N and D"):
        law.fit(made(SMALL, np.array([1e4, 1e5]), np.array([1e5, 1e6]), seeds=5))
    points = made(SMALL, np.geomspace(1e4, 1e6, 3), np.geomspace(1e4, 1e6, 3))
    with pytest.raises(NoLaw, match="not positive"):
        law.fit(points._replace(loss=-points.loss))


def test_one_size_or_one_amount_is_refused_at_once():
    """No draw of such points holds two of them, however many are made."""
    several, one = np.geomspace(1e4, 1e7, 6), np.array([1e5])
    for n, d, name in ((one, several, "N"), (several, one, "D")):
        with pytest.raises(NoLaw, match=f"one value of {name}"):
            law.fit(made(SMALL, n, d, 0.01, seeds=2))


def test_the_number_of_draws_is_bounded(monkeypatch):
    monkeypatch.setattr(law, "TRIES", 1)  # of six points a draw seldom holds five different ones
    with pytest.raises(NoLaw, match="of 200 draws of its points only"):
        law.fit(made(SMALL, np.geomspace(1e4, 1e6, 3), np.geomspace(1e4, 1e6, 2)))


@pytest.mark.parametrize("seed", [4, 5])
def test_a_term_that_vanished_from_the_fit_comes_back_in_the_draws(seed):
    """A loss that ends at 0.8, behind seeds' noise at matched compute: the fit has no E, its interval does hold it."""
    truth = Law(0.8, 8.0, 60.0, 0.35, 0.45)
    n, compute = np.meshgrid([3e4, 9e4, 2.8e5, 6.9e5], [3e11, 6e11, 1.2e12])
    n, compute = np.tile(n.ravel(), 2), np.tile(compute.ravel(), 2)
    d = compute / (4000 * n**0.72)
    points = Points(n, d, truth(n, d) * np.exp(0.035 * np.random.default_rng(seed).standard_normal(len(n))))
    found = law.fit(points, resamples=60)
    assert found.law.e < 1e-3 * truth.e and len(found.resampled) == 60
    low, high = found.interval(lambda one: one.e)
    assert low <= truth.e <= high
    assert any("E is not identified" in reason for reason in reasons_not_to_extrapolate(found))


def test_the_best_size_is_where_the_loss_is_lowest():
    for truth, cost in ((CHINCHILLA, Cost(6.0, 1.0, 0.0)), (SMALL, Cost(900.0, 0.45, 0.0))):
        for compute in (1e14, 1e18, 1e21):
            best = optimum(truth, cost, compute)
            n = np.geomspace(best.n / 30, best.n * 30, 20001)
            losses = truth(n, compute / cost(n, 1))
            np.testing.assert_allclose(best.n, n[losses.argmin()], rtol=2e-3)
            np.testing.assert_allclose(cost(best.n, best.d), compute)
        of_n, of_d = exponents(truth, cost)
        grown = optimum(truth, cost, 1e15).n / optimum(truth, cost, 1e14).n
        np.testing.assert_allclose([of_n, cost.p * of_n + of_d], [np.log10(grown), 1.0])


def test_without_an_exponent_there_is_no_best_size():
    cost = Cost(6.0, 1.0, 0.0)
    assert optimum(SMALL._replace(a=0.0), cost, 1e15) is None
    assert optimum(SMALL._replace(a=0.011, a_scale=1e-12), cost, 1e15) is None  # at 10^-23 parameters
    assert optimum(SMALL, Cost(6.0, 0.0, 0.0), 1e15) is None


def test_the_papers_exponents():
    """Hoffmann et al. 2022, table 2: N grows as C^0.46, D as C^0.54 (approach 3)."""
    np.testing.assert_allclose(exponents(CHINCHILLA, Cost(6.0, 1.0, 0.0)), (0.46, 0.54), atol=0.01)


def test_what_runs_cost_is_read_off_them():
    points = made(SMALL, np.geomspace(1e4, 1e6, 4), np.geomspace(1e5, 1e6, 3))
    found = fit_cost(points, 70 * points.n**0.6 * points.d)
    np.testing.assert_allclose(found, (70, 0.6, 0), rtol=1e-9, atol=1e-9)
    found = fit_cost(points._replace(n=np.full(len(points.n), 1e4)), 6e4 * points.d)
    assert found.p == 1 and math.isclose(found.k, 6)


def test_a_good_study_predicts_within_its_reach(known):
    truth, found = known
    assert reasons_not_to_extrapolate(found) == []
    n, d = 5 * found.points.n.max(), 5 * found.points.d.max()
    one = predict(found, n, d)
    assert not one.reasons and one.low <= one.loss <= one.high
    np.testing.assert_allclose(one.loss, truth(n, d), rtol=0.02)
    assert "more than 10 times" in predict(found, 11 * found.points.n.max(), d).reasons[0]
    assert "D = " in predict(found, n, 100 * found.points.d.max()).reasons[0]


WIDE_N, WIDE_D = np.geomspace(1e4, 1e6, 5), np.geomspace(1e4, 1e7, 5)
NO_SIZE = Law(0.5, 1e-9, 30.0, 0.3, 0.4)
STEEP = Law(0.5, 5e24, 30.0, 6.0, 0.4)  # beyond the exponents that are looked for


@pytest.mark.parametrize(
    ("truth", "n", "d", "noise", "said"),
    [
        (SMALL, WIDE_N[::2], WIDE_D[::2], 0.001, "9 different pairs of N and D, fewer than twice"),
        (SMALL, np.geomspace(1e5, 3e5, 5), WIDE_D, 0.001, "N spans a factor of 3.0, less than 4"),
        (SMALL, WIDE_N, np.geomspace(1e6, 2e6, 5), 0.001, "D spans a factor of 2.0, less than 4"),
        (NO_SIZE, WIDE_N, WIDE_D, 0.01, "the exponent a may be 0 (95%"),
        (STEEP, WIDE_N, WIDE_D, 0.001, "the exponent a may be 4 or more (95%"),
        (Law(1e-3, 8.0, 30.0, 0.25, 0.4), WIDE_N, WIDE_D, 0.005, "E is not identified"),
    ],
)
def test_a_weak_study_says_so(truth, n, d, noise, said):
    found = law.fit(made(truth, n, d, noise, seeds=2), resamples=40)
    reasons = reasons_not_to_extrapolate(found)
    assert any(said in reason for reason in reasons), reasons
    assert said in " ".join(predict(found, n.max(), d.max()).reasons)


def test_a_loss_that_is_nothing_is_told_as_none_and_leaves_the_picture_to_the_points():
    """The minimiser works on log E, and gives a number where it is 0."""
    truth, n, d, _ = GRIDS["small"]
    for e, drawn in ((truth.e, True), (0.0, False)):
        found = law.fit(made(truth._replace(e=e), n, d), resamples=2)
        assert (found.told(found.law.e) == "0") != drawn
        axes = figures.against(found, "n", ("N", "D")).axes[0]
        assert ("E" in axes.get_legend_handles_labels()[1]) == drawn
        assert axes.get_ylim()[0] > 0.3 * min(found.points.loss.min(), found.law.e if drawn else np.inf)
