"""What a stage is to the loop: what it trains, on which batches, with which loss."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from neurolm_jax.data.streams import Rows

Tree = Any
Metrics = dict[str, jax.Array]


class Weights(NamedTuple):
    """params: trained by the optimizer; extra: what the stage keeps beside them, frozen weights and statistics."""

    params: Tree
    extra: Tree


class Stage(abc.ABC):
    """One stage of training, made from its config. Pure but for reading data and checkpoints."""

    def __init__(self, config: ConfigDict):
        self.config = config

    @abc.abstractmethod
    def create(self, rng: jax.Array) -> Weights:
        """Random initial weights, parameters boxed with their logical axis names."""

    def inherit(self, weights: Weights, restore: Callable[[str], Weights]) -> Weights:
        """Put in what earlier stages left; ``restore`` gives the weights of a workdir."""
        return weights

    @abc.abstractmethod
    def loss(
        self, weights: Weights, batch: Tree, rng: jax.Array, progress: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        """Loss, the new ``extra``, and metrics: scalars, or code counts [K] under ``code_counts``.

        rng: of dropout and revival; progress: share of the run done, 0 to 1.
        """

    @abc.abstractmethod
    def sources(self, train: bool) -> Mapping[str, tuple[Rows, int]]:
        """Name -> (rows, global batch size), of the training or of the validation part."""
