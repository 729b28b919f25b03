"""Stage 0: the language model that EEG is to be aligned with, GPT-2's weights or a small one trained here."""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from neurolm_jax.data.streams import Rows
from neurolm_jax.data.text import empty_text
from neurolm_jax.models.attention import Intervals, staircase
from neurolm_jax.models.losses import Mean, chunked_cross_entropy
from neurolm_jax.models.neurolm import LanguageModel
from neurolm_jax.stages import corpora
from neurolm_jax.stages.base import Stage, Terms, Tree, Weights
from neurolm_jax.weights import gpt2


class LanguageStage(Stage):
    """The language model alone: ``Weights.extra`` is empty."""

    def __init__(self, config):
        super().__init__(config)
        self.model_config = corpora.language_config(config, codes=0)

    def create(self, rng: jax.Array) -> Weights:
        tokens = jnp.zeros((1, 1), jnp.int32)
        params = LanguageModel(self.model_config).init(rng, tokens, text_intervals(tokens))["params"]
        return Weights(params, {})

    def inherit(self, weights: Weights, restore: Callable[[str], Weights]) -> Weights:
        if not self.config.initial.gpt2:
            return weights
        return weights._replace(params=gpt2.load(self.config.initial.gpt2, weights.params))

    def terms(self, weights: Weights, batch: Tree, rng: jax.Array, progress: jax.Array, train: bool) -> Terms:
        model, variables = LanguageModel(self.model_config), {"params": weights.params}
        loss, accuracy = text_loss(
            model, variables, weights.params["token_embedding"]["table"], batch["text"], rng, train
        )
        return Terms({"text_loss": loss}, {"text_accuracy": accuracy})

    def empty_rows(self) -> Mapping[str, tuple[Tree, int]]:
        return {"text": (empty_text(self.config.text_length), self.config.text_batch_size)}

    def sources(self, train: bool) -> Mapping[str, tuple[Rows, int]]:
        return {"text": (corpora.text(self.config, train), self.config.text_batch_size)}


def text_intervals(tokens: jax.Array) -> Intervals:
    """Causal attention over rows of text [B, T]."""
    ones = jnp.ones_like(tokens)
    return staircase(ones, ones, ones.astype(bool))


def text_loss(
    model: nn.Module,
    variables: Tree,
    classes: jax.Array,  # [V, W]
    text: jax.Array,  # [B, T + 1]
    rng: jax.Array,
    train: bool,
    method: str | None = None,
) -> tuple[Mean, Mean]:
    """Next-token loss and accuracy of rows [B, T + 1]; ``method`` of the model gives hidden states of text."""
    tokens, targets = text[:, :-1], text[:, 1:]
    intervals = text_intervals(tokens)
    hidden = model.apply(variables, tokens, intervals, not train, rngs={"dropout": rng}, method=method)
    return chunked_cross_entropy(hidden, classes, targets)
