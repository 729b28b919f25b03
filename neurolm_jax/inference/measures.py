"""Figures of merit from probabilities and labels."""

import numpy as np


def measure(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> dict:
    """balanced_accuracy, auroc, recall by class and confusion (rows true, columns answered) of labels [N],
    probabilities [N, K]. AUROC is one against the rest, averaged, where there are more than two classes. Both are over
    the classes that occur; where a single one does, AUROC is None."""
    from sklearn.metrics import confusion_matrix, recall_score, roc_auc_score

    answered = probabilities.argmax(axis=1)
    places = list(range(len(classes)))
    present = np.unique(labels)
    recall = recall_score(labels, answered, labels=places, average=None, zero_division=0)
    auroc = None
    if len(present) > 1:
        against_rest = present if len(classes) > 2 else [1]
        auroc = float(np.mean([roc_auc_score(labels == k, probabilities[:, k]) for k in against_rest]))
    return {
        "balanced_accuracy": float(recall[present].mean()),
        "auroc": auroc,
        "n_test": len(labels),
        "recall": dict(zip(classes, recall.tolist())),
        "confusion": confusion_matrix(labels, answered, labels=places).tolist(),
    }


def measure_words(labels: np.ndarray, answers: list[int | None], classes: int) -> dict:
    """balanced_accuracy and the share of unreadable answers; an unreadable answer is wrong, and no class."""
    answered = np.array([-1 if answer is None else answer for answer in answers])
    recall = [np.mean(answered[labels == k] == k) for k in range(classes) if (labels == k).any()]
    return {"balanced_accuracy": float(np.mean(recall)), "unreadable": float(np.mean(answered == -1))}
