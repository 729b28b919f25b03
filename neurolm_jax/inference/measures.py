"""Figures of merit from probabilities and labels."""

import numpy as np


def measure(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> dict:
    """balanced_accuracy, auroc, recall by class and confusion (rows true, columns answered) of labels [N],
    probabilities [N, K]. AUROC is one against the rest, averaged, where there are more than two classes."""
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix, recall_score, roc_auc_score

    answered = probabilities.argmax(axis=1)
    places = list(range(len(classes)))
    scores = probabilities[:, 1] if len(classes) == 2 else probabilities
    recall = recall_score(labels, answered, labels=places, average=None, zero_division=0)
    return {
        "balanced_accuracy": float(balanced_accuracy_score(labels, answered)),
        "auroc": float(roc_auc_score(labels, scores, multi_class="ovr", labels=places)),
        "n_test": len(labels),
        "recall": dict(zip(classes, recall.tolist())),
        "confusion": confusion_matrix(labels, answered, labels=places).tolist(),
    }


def measure_words(labels: np.ndarray, answers: list[int | None], classes: int) -> dict:
    """balanced_accuracy and the share of unreadable answers; an unreadable answer is wrong, and no class."""
    answered = np.array([-1 if answer is None else answer for answer in answers])
    recall = [np.mean(answered[labels == k] == k) for k in range(classes) if (labels == k).any()]
    return {"balanced_accuracy": float(np.mean(recall)), "unreadable": float(np.mean(answered == -1))}
