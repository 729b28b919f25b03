"""Frozen features for scikit-learn: a transformer, and a classifier with a linear head."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from neurolm_jax.errors import UserError
from neurolm_jax.inference.baselines import STRENGTHS, fit_regression
from neurolm_jax.inference.encoder import Encoder
from neurolm_jax.inference.layers import DEFAULT
from neurolm_jax.inference.signals import is_epochs
from neurolm_jax.training.checkpoint import written_at


class _Encodes(BaseEstimator):
    """What both have: epochs X are encoded by the model in ``checkpoint``, which is loaded once in a process."""

    def __init__(
        self,
        checkpoint: str | pathlib.Path | None = None,
        *,
        channels: Sequence[str] | None = None,
        rate: float | None = None,
        unit: str | None = None,
        layer: str = DEFAULT,
        pool: str = "auto",
        seconds: int | None = None,
        batch_size: int | None = None,
    ):
        self.checkpoint, self.channels, self.rate, self.unit = checkpoint, channels, rate, unit
        self.layer, self.pool, self.seconds, self.batch_size = layer, pool, seconds, batch_size

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def _checked(self, X, reset):
        """Epochs, of arrays their numbers checked as scikit-learn does."""
        if is_epochs(X) and not hasattr(X, "ndim"):
            return X
        if (dimensions := np.ndim(X)) != 3:
            raise ValueError(f"want X of shape [n, channels, times], or MNE's epochs, not of {dimensions} dimensions")
        return validate_data(self, X, reset=reset, allow_nd=True, dtype="numeric")

    def _encode(self, X, pool):
        if self.checkpoint is None:
            raise UserError("checkpoint: want the workdir of a tokenizer, pretrain or instruct stage")
        encoder = _encoder(str(pathlib.Path(self.checkpoint).absolute()), written_at(self.checkpoint))
        own = {"channels": self.channels, "rate": self.rate, "unit": self.unit}
        options = {"layer": self.layer, "pool": pool, "seconds": self.seconds, "batch_size": self.batch_size}
        return encoder.encode(X, **own, **options, name="X")

    def _fit_features(self, X):
        """Features [n, F] of checked epochs, which are fitted to; and note of what later ones must have too."""
        found = self._encode(X, self.pool)
        self.pool_, self.channels_ = found.pool, found.channels
        self.electrodes_, self.seconds_ = found.electrodes, found.seconds
        flat = found.values.reshape(len(found.values), -1)
        self.n_features_out_ = flat.shape[1]
        return flat

    def _features(self, X):
        check_is_fitted(self)
        found = self._encode(self._checked(X, reset=False), self.pool_)
        if (found.electrodes, found.seconds) != (self.electrodes_, self.seconds_):
            fitted = f"{self.seconds_} s of {', '.join(self.electrodes_)}"
            raise ValueError(f"X has {found.seconds} s of {', '.join(found.electrodes)}, but was fitted to {fitted}")
        return found.values.reshape(len(found.values), -1)


class NeuroLMFeatures(TransformerMixin, _Encodes):
    """Transformer: frozen features of epochs, a row of numbers for each.

    X is an array [n, channels, times], which needs ``channels``, ``rate`` and ``unit``, or MNE's ``Epochs``, which know
    theirs. Epochs are resampled to 200 Hz and not filtered; of each its middle whole seconds are read.

    Args:
      checkpoint: workdir of a tokenizer, pretrain or instruct stage.
      channels, rate, unit: of arrays: names, Hz, and "uV", "mV" or "V".
      layer: see ``Encoder.encode``.
      pool: "none" keeps every second and channel, "channel" averages over seconds, "window" takes mean and deviation
        over both; "auto" averages no further than leaves a linear model few enough numbers, as evaluation's probe does.
      seconds: of a window, all that an epoch has by default.
      batch_size: windows at once.

    Attributes:
      channels_, electrodes_: names of the channels used, as given and in the vocabulary.
      seconds_, pool_: of the windows that it was fitted to.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # float32 of whatever comes in
        return tags

    def fit(self, X: Any, y: Any = None) -> "NeuroLMFeatures":
        """Take note of channels and length; nothing is trained."""
        self._fit_features(self._checked(X, reset=True))
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Return features of X, which it is fitted to, encoding it once."""
        return self._fit_features(self._checked(X, reset=True))

    def transform(self, X: Any) -> np.ndarray:
        """Return features float32 [n, F]."""
        return self._features(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names such as ``FP1_second0_5`` (pool "none"), ``FP1_5`` ("channel"), ``mean_5`` and ``deviation_5``."""
        check_is_fitted(self)
        places = {
            "none": [f"{name}_second{s}" for s in range(self.seconds_) for name in self.electrodes_],
            "channel": list(self.electrodes_),
            "window": ["mean", "deviation"],
        }[self.pool_]
        width = self.n_features_out_ // len(places)
        return np.array([f"{place}_{i}" for place in places for i in range(width)], object)


class NeuroLMClassifier(ClassifierMixin, _Encodes):
    """Classifier: frozen features of epochs, and regularised logistic regression on them.

    The features are standardised; the regression's strength is chosen by cross-validation among ``strengths``, which
    keeps ``groups`` together. Other arguments and X are those of ``NeuroLMFeatures``.

    Attributes:
      classes_: the labels.
      head_: the fitted regression, a pipeline of scikit-learn or a search over one; None where all labels are one.
    """

    def __init__(
        self,
        checkpoint: str | pathlib.Path | None = None,
        *,
        channels: Sequence[str] | None = None,
        rate: float | None = None,
        unit: str | None = None,
        layer: str = DEFAULT,
        pool: str = "auto",
        seconds: int | None = None,
        batch_size: int | None = None,
        strengths: Sequence[float] = STRENGTHS,
    ):
        super().__init__(
            checkpoint,
            channels=channels,
            rate=rate,
            unit=unit,
            layer=layer,
            pool=pool,
            seconds=seconds,
            batch_size=batch_size,
        )
        self.strengths = strengths

    def fit(self, X: Any, y: Any, groups: Any = None) -> "NeuroLMClassifier":
        """Fit the head to labels y [n].

        Args:
          groups: whom each epoch is of [n]: no group is on two sides of a fold when the strength is chosen.
        """
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        X = self._checked(X, reset=True)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        groups = np.arange(len(y)) if groups is None else column_or_1d(groups)
        features = self._fit_features(X)
        check_consistent_length(features, y, groups)
        self.classes_ = unique_labels(y)
        labels = np.searchsorted(self.classes_, y)
        self.head_ = fit_regression(features, labels, groups, self.strengths) if len(self.classes_) > 1 else None
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities [n, classes] in the order of ``classes_``."""
        features = self._features(X)
        return np.ones((len(features), 1)) if self.head_ is None else self.head_.predict_proba(features)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each epoch [n]."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]


@functools.lru_cache(maxsize=2)
def _encoder(checkpoint, written):
    """Estimators are copied and pickled; models stay here. ``written`` tells a newer checkpoint from the one kept."""
    return Encoder(checkpoint)
