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
SHRINKAGE = 1e-2  # of the mean power of electrodes, added to that of each
LARGEST = 4096  # features of a window's covariances; beyond, all bands are one


class Simple(NamedTuple):
    """Features of windows [N, electrodes * ...], NaN where a window has no such electrode."""

    band_power: np.ndarray
    slow_wave: np.ndarray
    covariance: np.ndarray


def simple_features(windows: Windows, electrodes: list[int]) -> Simple:
    """Log power of each electrode in each band, means of consecutive stretches of its samples, and log power together
    with what pairs of electrodes share, see ``log_covariance``."""
    shape = len(windows), len(electrodes)
    pairs = len(electrodes) * (len(electrodes) + 1) // 2
    bands = BANDS if pairs * len(BANDS) <= LARGEST else ((BANDS[0][0], BANDS[-1][1]),)
    log_covariances = np.full((len(windows), len(bands), len(electrodes), len(electrodes)), np.nan, np.float32)
    power, wave = np.full((*shape, len(BANDS)), np.nan), np.full((*shape, MEANS), np.nan)
    for i in range(len(windows)):
        record = windows[i]
        shared = [shared_id(e) for e in record.electrodes]
        here = [electrodes.index(e) for e in shared if e in electrodes]
        kept = [c for c, e in enumerate(shared) if e in electrodes]
        power[i, here] = band_power(record.samples[kept])
        wave[i, here] = slow_wave(record.samples[kept])
        log_covariances[i, :, np.array(here)[:, None], here] = log_covariance(record.samples[kept], bands).transpose(
            1, 2, 0
        )
    upper = log_covariances[:, :, *np.triu_indices(len(electrodes))].reshape(len(windows), -1)
    power = power.reshape(len(windows), -1)
    return Simple(power, wave.reshape(len(windows), -1), np.concatenate([power, upper], axis=1))


def band_power(samples: np.ndarray) -> np.ndarray:
    """Log power of each channel of [C, T] in each band: [C, bands]."""
    from scipy.signal import welch

    frequency, density = welch(samples, RATE, nperseg=min(RATE, samples.shape[-1]))
    power = [density[..., (frequency >= low) & (frequency < high)].mean(-1) for low, high in BANDS]
    return np.log(np.stack(power, -1) + 1e-6)


def log_covariance(samples: np.ndarray, bands: Sequence[tuple[float, float]] = BANDS) -> np.ndarray:
    """Logarithm of the covariance of channels [C, T] in each band, as a matrix: [bands, C, C].

    It is a tangent-space reading of the covariance (Barachant et al. 2012) at the identity, with off-diagonal elements
    times the square root of 2, so that distances are those of matrices. A band's covariance is divided by its mean
    power, and ``SHRINKAGE`` is added to its diagonal.
    """
    spectrum = np.fft.rfft(samples * np.hanning(samples.shape[-1]), axis=-1)
    frequency = np.fft.rfftfreq(samples.shape[-1], 1 / RATE)
    inside = [spectrum[:, (frequency >= low) & (frequency < high)] for low, high in bands]
    covariance = np.stack([np.real(part @ part.conj().T) for part in inside])
    level = np.trace(covariance, axis1=1, axis2=2)[:, None, None] / len(samples)
    covariance = covariance / np.maximum(level, 1e-12) + SHRINKAGE * np.eye(len(samples))
    values, vectors = np.linalg.eigh(covariance)
    logarithm = (vectors * np.log(values)[:, None, :]) @ vectors.transpose(0, 2, 1)
    return logarithm * np.where(np.eye(len(samples), dtype=bool), 1, np.sqrt(2))


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
