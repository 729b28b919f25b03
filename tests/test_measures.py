"""Figures against scikit-learn's, and against plain loops where it has none."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics

from neurolm_jax.inference.measures import (
    bootstrap_interval,
    calibration_error,
    fit_temperature,
    measure,
    measure_words,
    with_temperature,
)

NAMES = ["a", "b", "c", "d"]


def drawn(classes, count=120, seed=0, digits=1):
    """Labels and probabilities with many ties."""
    rng = np.random.default_rng(seed)
    labels, p = rng.integers(0, classes, count), rng.dirichlet(np.ones(classes), count).round(digits) + 1e-9
    return labels, p / p.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_measures_equal_scikit_learn(classes):
    labels, p = drawn(classes)
    found = measure(labels, p, NAMES[:classes])
    answered = p.argmax(1)
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, answered))
    assert found["kappa"] == pytest.approx(metrics.cohen_kappa_score(labels, answered))
    assert found["weighted_f1"] == pytest.approx(metrics.f1_score(labels, answered, average="weighted"))
    if classes == 2:
        assert found["auroc"] == pytest.approx(metrics.roc_auc_score(labels, p[:, 1]))
        assert found["auc_pr"] == pytest.approx(metrics.average_precision_score(labels, p[:, 1]))
        other = measure(labels, p, NAMES[:2], positive=0)
        assert other["auroc"] == pytest.approx(found["auroc"])  # ties and all
        assert other["auc_pr"] == pytest.approx(metrics.average_precision_score(labels == 0, p[:, 0]))
    else:
        assert found["auroc"] == pytest.approx(metrics.roc_auc_score(labels, p, multi_class="ovr"))
        onehot = np.eye(classes)[labels]
        assert found["auc_pr"] == pytest.approx(metrics.average_precision_score(onehot, p, average="macro"))
    assert found["confusion"] == metrics.confusion_matrix(labels, answered).tolist()
    assert list(found["recall"].values()) == pytest.approx(
        metrics.recall_score(labels, answered, average=None).tolist()
    )
    assert found["n_test"] == 120 and found["interval"] is None


def test_missing_classes():
    labels, p = drawn(3)
    two = measure(labels % 2, p, NAMES[:3])  # no c
    assert two["auroc"] == pytest.approx(np.mean([metrics.roc_auc_score(labels % 2 == k, p[:, k]) for k in (0, 1)]))
    assert two["recall"]["c"] is None and two["balanced_accuracy"] == (two["recall"]["a"] + two["recall"]["b"]) / 2
    one = measure(labels * 0, p, NAMES[:3])
    assert one["auroc"] is None and one["auc_pr"] is None
    assert one["balanced_accuracy"] == (p.argmax(1) == 0).mean()
    sure = measure(labels * 0, np.tile([1.0, 0, 0], (120, 1)), NAMES[:3])
    assert sure["kappa"] is None and sure["balanced_accuracy"] == 1 and sure["weighted_f1"] == 1


def test_an_unreadable_answer_is_no_class():
    found = measure_words(np.array([0, 0, 1, 1]), [0, None, 1, None])
    assert found == {"balanced_accuracy": 0.5, "unreadable": 0.5}
    assert measure_words(np.array([0, 1]), [None, None])["balanced_accuracy"] == 0


def test_calibration_error_is_that_of_a_plain_loop():
    labels, p = drawn(3, 500, digits=3)
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (p.max(1) > low) & (p.max(1) <= low + 1 / 15)
        if inside.any():
            gap = abs((p.argmax(1) == labels)[inside].mean() - p.max(1)[inside].mean())
            total += inside.mean() * gap
    assert calibration_error(labels, p) == pytest.approx(total)
    assert calibration_error(np.array([0, 1]), np.eye(2)) == 0


def test_temperature_is_found_again():
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((4000, 3))
    labels = np.array([rng.choice(3, p=row) for row in softmax(logits, axis=1)])
    for factor in (3.0, 0.5):
        shown = softmax(factor * logits, axis=1)
        temperature = fit_temperature(labels, shown)
        assert temperature == pytest.approx(factor, rel=0.1)
        softened = with_temperature(shown, temperature)
        np.testing.assert_allclose(softened.sum(1), 1)
        np.testing.assert_array_equal(softened.argmax(1), shown.argmax(1))
        assert calibration_error(labels, softened) < calibration_error(labels, shown)
        assert metrics.log_loss(labels, softened) < metrics.log_loss(labels, shown)


def test_interval_is_over_subjects():
    rng = np.random.default_rng(0)
    # Ten subjects of 40 windows; whether the model is right is a matter of the subject.
    groups = np.repeat([f"s{i}" for i in range(10)], 40)
    labels = np.tile([0, 1], 200)
    right = np.repeat(rng.random(10) < 0.7, 40)
    answered = np.where(right, labels, 1 - labels)
    low, high = bootstrap_interval(labels, answered, groups, 2)
    draws = []
    for _ in range(2000):
        chosen = np.concatenate([np.flatnonzero(groups == f"s{i}") for i in rng.integers(0, 10, 10)])
        draws.append(metrics.balanced_accuracy_score(labels[chosen], answered[chosen]))
    want = np.quantile(draws, [0.025, 0.975])
    assert abs(low - want[0]) <= 0.1 and abs(high - want[1]) <= 0.1  # steps of a tenth
    by_window = bootstrap_interval(labels, answered, np.arange(400), 2)
    assert by_window[1] - by_window[0] < (high - low) / 2  # windows of one subject are no independent evidence
    assert bootstrap_interval(labels, answered, np.zeros(400), 2) is None
