"""Recordings of brown noise as EDF files, to make a corpus of."""

import edfio
import numpy as np

from neurolm_jax.eeg.preprocessing import Preprocessing

SETTINGS = Preprocessing(mains=50.0)


NAMES = ("EEG FP1-REF", "EEG C3-REF", "EEG T3-REF", "EKG1")


def noise(seed, seconds=20, rate=250, channels=4):
    """Brown noise of 20 microvolts."""
    x = np.random.default_rng(seed).standard_normal((channels, seconds * rate)).cumsum(axis=1)
    x -= np.linspace(x[:, 0], x[:, -1], x.shape[1], axis=1)
    return 20 * x / x.std(axis=1, keepdims=True)


def write_edf(path, x, rate=250, names=NAMES):
    path.parent.mkdir(parents=True, exist_ok=True)
    limits = float(np.abs(x).max()) + 1
    kinds = {"physical_dimension": "uV", "physical_range": (-limits, limits)}
    edfio.Edf([edfio.EdfSignal(s, rate, label=name, **kinds) for s, name in zip(x, names)]).write(path)
    return path


def outcomes(manifest):
    return {r["name"]: r["reason"] for r in manifest["recordings"]}
