"""What simple methods reach on the same windows: logistic regression on features of each window."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from neurolm_jax.eeg.electrodes import shared_id
from neurolm_jax.eeg.preprocessing import RATE
from neurolm_jax.inference.windows import Windows

BANDS = ((0.5, 4), (4, 8), (8, 13), (13, 30), (30, 45))  # Hz
MEANS = 28  # stretches of a window whose mean is taken
MOST = 20_000  # training windows that a regression is fitted to
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of regressions, of which cross-validation chooses one
SLOW = 2000  # windows from which on all cores are worth their starting


class Simple(NamedTuple):
    """Features of windows [N, electrodes * ...], NaN where a window has no such electrode."""

    band_power: np.ndarray
    slow_wave: np.ndarray


def simple_features(windows: Windows, electrodes: list[int]) -> Simple:
    """Log power of each electrode in each band, and means of consecutive stretches of its samples."""
    shape = len(windows), len(electrodes)
    power, wave = np.full((*shape, len(BANDS)), np.nan), np.full((*shape, MEANS), np.nan)
    for i in range(len(windows)):
        record = windows[i]
        shared = [shared_id(e) for e in record.electrodes]
        here = [electrodes.index(e) for e in shared if e in electrodes]
        kept = [c for c, e in enumerate(shared) if e in electrodes]
        power[i, here] = band_power(record.samples[kept])
        wave[i, here] = slow_wave(record.samples[kept])
    return Simple(power.reshape(len(windows), -1), wave.reshape(len(windows), -1))


def band_power(samples: np.ndarray) -> np.ndarray:
    """Log power of each channel of [C, T] in each band: [C, bands]."""
    from scipy.signal import welch

    frequency, density = welch(samples, RATE, nperseg=min(RATE, samples.shape[-1]))
    power = [density[..., (frequency >= low) & (frequency < high)].mean(-1) for low, high in BANDS]
    return np.log(np.stack(power, -1) + 1e-6)


def slow_wave(samples: np.ndarray) -> np.ndarray:
    """Means of consecutive stretches of each channel of [C, T]: [C, MEANS]."""
    return np.stack([part.mean(-1) for part in np.array_split(samples, MEANS, axis=-1)], -1)


def probe(train: np.ndarray, labels: np.ndarray, groups: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    """Class probabilities [N, classes] of standardised, regularised logistic regression, see ``fit_regression``."""
    found = np.zeros((len(test), classes))
    present = np.unique(labels)
    if len(present) == 1:
        found[:, present[0]] = 1
        return found
    found[:, present] = fit_regression(train, labels, groups).predict_proba(test)
    return found


def fit_regression(
    train: np.ndarray, labels: np.ndarray, groups: np.ndarray, strengths: Sequence[float] = STRENGTHS
) -> Any:
    """Fit standardised, regularised logistic regression to features [N, F] and labels [N] of two classes or more.

    Its strength is chosen by cross-validation inside the training part, which keeps groups (subjects) together; of a
    class with too few of them it is scikit-learn's own.

    Returns:
      A fitted estimator of scikit-learn.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(max_iter=2000))
    present, counts = np.unique(labels, return_counts=True)
    _, group = np.unique(groups.astype(str), return_inverse=True)
    folds = min(5, int(counts.min()), min(len(np.unique(group[labels == k])) for k in present))
    if folds < 2:
        return model.fit(train, labels)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    jobs = -1 if len(labels) > SLOW else None
    grid = {"logisticregression__C": list(strengths)}
    search = GridSearchCV(model, grid, scoring="balanced_accuracy", cv=splitter, n_jobs=jobs)
    with warnings.catch_warnings():
        # Of few people, a fold may lack a class: that is no fault, and known.
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true|A single label was found")
        return search.fit(train, labels, groups=group)
