"""Figures of merit from probabilities and labels."""

from collections.abc import Sequence

import numpy as np

BINS = 15  # of confidence, in the calibration error
DRAWS = 2000  # of the bootstrap
SEED = 0  # of them
LEVEL = 0.95


def measure(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    groups: np.ndarray | None = None,
    positive: int = 1,
) -> dict:
    """Figures of labels [N] and probabilities [N, K]; those that are not defined are None.

    balanced_accuracy, and its 95% ``interval`` by drawing whole ``groups`` [N] (subjects) with replacement; auroc and
    auc_pr (average precision) of the class ``positive``, or one against the rest and averaged where there are more than
    two classes; kappa (Cohen); weighted_f1; calibration_error; recall by class, None of one that does not occur;
    confusion, rows true, columns answered. Averages over classes are over those that occur.
    """
    from sklearn.metrics import (
        average_precision_score,
        cohen_kappa_score,
        confusion_matrix,
        f1_score,
        recall_score,
        roc_auc_score,
    )

    answered = probabilities.argmax(axis=1)
    places = list(range(len(classes)))
    present = np.unique(labels)
    recall = recall_score(labels, answered, labels=places, average=None, zero_division=np.nan)
    found: dict = {
        "balanced_accuracy": float(recall[present].mean()),
        "interval": None if groups is None else bootstrap_interval(labels, answered, groups, len(classes)),
    }
    against_rest = present if len(classes) > 2 else [positive]
    for name, area in (("auroc", roc_auc_score), ("auc_pr", average_precision_score)):
        areas = [area(labels == k, probabilities[:, k]) for k in against_rest] if len(present) > 1 else None
        found[name] = areas and float(np.mean(areas))
    alike = len(present) == 1 and (answered == present[0]).all()
    return found | {
        "kappa": None if alike else float(cohen_kappa_score(labels, answered, labels=places)),
        "weighted_f1": float(f1_score(labels, answered, labels=places, average="weighted", zero_division=0)),
        "calibration_error": calibration_error(labels, probabilities),
        "n_test": len(labels),
        "recall": {name: None if np.isnan(value) else float(value) for name, value in zip(classes, recall)},
        "confusion": confusion_matrix(labels, answered, labels=places).tolist(),
    }


def measure_units(labels: np.ndarray, probabilities: np.ndarray, units: np.ndarray) -> dict | None:
    """balanced_accuracy and count of whole units [N] (recordings, people), whose windows' probabilities are averaged;
    None where the windows of one differ in label."""
    _, first, unit = np.unique(units.astype(str), return_index=True, return_inverse=True)
    if (labels != labels[first][unit]).any():
        return None
    total = np.zeros((len(first), probabilities.shape[1]))
    np.add.at(total, unit, probabilities)
    return {"balanced_accuracy": _balanced_accuracy(labels[first], total.argmax(axis=1)), "count": len(first)}


def measure_words(labels: np.ndarray, answers: Sequence[int | None]) -> dict:
    """balanced_accuracy and the share of unreadable answers; an unreadable answer is wrong, and no class."""
    answered = np.array([-1 if answer is None else answer for answer in answers])
    return {
        "balanced_accuracy": _balanced_accuracy(labels, answered),
        "unreadable": float(np.mean(answered == -1)),
    }


def _balanced_accuracy(labels, answered):
    """Mean recall of the classes that occur; an answer may be none of them."""
    return float(np.mean([np.mean(answered[labels == k] == k) for k in np.unique(labels)]))


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error: the gap between confidence and accuracy, averaged over the windows of ``BINS`` equal
    ranges of confidence (Guo et al. 2017)."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(place, right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature T for which probabilities ** (1 / T), normalised, have the largest likelihood; within 0.05 to
    20."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(log_temperature):
        return -np.log(
            np.maximum(with_temperature(probabilities, np.exp(log_temperature))[rows, labels], 1e-300)
        ).mean()

    limits = np.log(0.05), np.log(20.0)
    return float(np.exp(minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-4}).x))


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities [N, K] made softer (above 1) or sharper (below 1)."""
    logits = np.log(np.maximum(probabilities, 1e-300)) / temperature
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def bootstrap_interval(
    labels: np.ndarray, answered: np.ndarray, groups: np.ndarray, classes: int
) -> list[float] | None:
    """Limits of the middle 95% of balanced accuracies over draws of whole groups, as many as there are, with
    replacement; None of a single group. A draw that misses a class is averaged over those it has."""
    _, group = np.unique(groups.astype(str), return_inverse=True)
    count = int(group.max()) + 1
    if count < 2:
        return None
    confusion = np.zeros((count, classes, classes))
    np.add.at(confusion, (group, labels, answered), 1)
    rng, share = np.random.default_rng(SEED), np.full(count, 1 / count)
    drawn = [np.tensordot(rng.multinomial(count, share), confusion, axes=1) for _ in range(DRAWS)]
    drawn = np.stack(drawn)  # [D, K, K]
    totals = drawn.sum(axis=2)
    recall = np.divide(np.diagonal(drawn, axis1=1, axis2=2), totals, out=np.zeros_like(totals), where=totals > 0)
    accuracy = recall.sum(axis=1) / (totals > 0).sum(axis=1)
    return np.quantile(accuracy, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
