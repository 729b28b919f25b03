"""What simple methods reach on the same windows: logistic regression on features of each window."""

import numpy as np

from neurolm_jax.eeg.preprocessing import RATE
from neurolm_jax.inference.windows import LabelledWindows

BANDS = ((0.5, 4), (4, 8), (8, 13), (13, 30), (30, 45))  # Hz
MEANS = 28  # stretches of a window whose mean is taken


def band_power(windows: LabelledWindows) -> np.ndarray:
    """Log power of each channel in each band: [N, C * bands]."""
    from scipy.signal import welch

    samples = np.stack([record.samples for record in windows.records])  # [N, C, T]
    frequency, density = welch(samples, RATE, nperseg=min(RATE, samples.shape[-1]))
    power = [density[..., (frequency >= low) & (frequency < high)].mean(-1) for low, high in BANDS]
    return np.log(np.stack(power, -1) + 1e-6).reshape(len(samples), -1)


def slow_wave(windows: LabelledWindows) -> np.ndarray:
    """Means of consecutive stretches of each channel: [N, C * MEANS]."""
    samples = np.stack([record.samples for record in windows.records])
    parts = np.array_split(samples, MEANS, axis=-1)
    return np.stack([part.mean(-1) for part in parts], -1).reshape(len(samples), -1)


def probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Class probabilities [N, classes] of standardised, regularised logistic regression, its strength by
    cross-validation inside the training part."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    strengths = {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1]}
    folds = min(5, np.bincount(labels).min())
    search = GridSearchCV(model, strengths, scoring="balanced_accuracy", cv=folds)
    return search.fit(train, labels).predict_proba(test)
