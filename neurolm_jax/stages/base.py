"""What a stage is to the loop: what it trains, on which batches, with which loss."""

import abc
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from neurolm_jax.data.shards import Shards
from neurolm_jax.data.streams import Rows
from neurolm_jax.models.losses import Mean

Tree = Any


class Weights(NamedTuple):
    """What a stage holds.

    Attributes:
      params: trained by the optimizer.
      extra: what the stage keeps beside them, frozen weights and statistics.
    """

    params: Tree
    extra: Tree


class Terms(NamedTuple):
    """What a batch, or a part of one, says.

    Attributes:
      losses: the terms of the loss, each a mean.
      metrics: other means, and what adds up over batches: counts of codes [K] under ``code_counts``, the encoder's
        ``code_vector_moments`` [D + 1, D + 1] (``quantizer.second_moments``).
      observed: arrays [b, ...] that ``learn`` wants from the whole batch.
    """

    losses: dict[str, Mean]
    metrics: dict[str, Mean | jax.Array]
    observed: Tree = ()


class Stage(abc.ABC):
    """One stage of training, made from its config. Pure but for reading data and checkpoints."""

    def __init__(self, config: ConfigDict):
        self.config = config

    @abc.abstractmethod
    def create(self, rng: jax.Array) -> Weights:
        """Random initial weights, parameters boxed with their logical axis names."""

    @functools.cached_property
    def abstract_weights(self) -> Weights:
        """Shapes and types of ``create``'s weights, boxed alike; kept, for tracing a model takes a second."""
        return jax.eval_shape(self.create, jax.eval_shape(lambda: jax.random.key(0)))

    def inherit(self, weights: Weights, restore: Callable[[str], Weights]) -> Weights:
        """Put in what earlier stages left; ``restore`` gives the weights of a workdir."""
        return weights

    def plain(self, weights: Weights) -> Weights:
        """The same model without what is there for training alone, such as low-rank terms."""
        return weights

    def prepare(self, weights: Weights, batch: Tree, rng: jax.Array) -> Weights:
        """Weights before the first step, which may look at its batch. Jitted by ``training.state.prepare``."""
        return weights

    @abc.abstractmethod
    def terms(self, weights: Weights, batch: Tree, rng: jax.Array, progress: jax.Array, train: bool) -> Terms:
        """The terms of the loss on a batch. rng: of dropout; progress: share of the run done, 0 to 1."""

    def loss_weight(self, name: str) -> float:
        """Of a term in the loss."""
        return 1.0

    def learn(self, extra: Tree, observed: Tree, rng: jax.Array) -> tuple[Tree, dict[str, jax.Array]]:
        """The new ``extra`` after a step, from what its whole batch observed, and metrics about that."""
        return extra, {}

    def eeg_shards(self, train: bool) -> Sequence[Shards]:
        """The shards of EEG that ``sources`` reads, for what their manifests tell; the guard is not asked again."""
        return []

    @abc.abstractmethod
    def empty_rows(self) -> Mapping[str, tuple[Tree, int]]:
        """The same as ``sources`` with a row of padding for the rows: their shapes, without any data."""

    @abc.abstractmethod
    def sources(self, train: bool) -> Mapping[str, tuple[Rows, int]]:
        """Name -> (rows, global batch size), of the training or of the validation part."""
