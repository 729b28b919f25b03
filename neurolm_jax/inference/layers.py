"""The features of one layer, of the encoder or of the language model that reads it.

A layer is named ``encoder`` or ``language``, its output after the last block and the final norm, or by a number after
that: ``encoder.0`` is what goes into the first block, ``encoder.2`` what comes out of the second.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from neurolm_jax.data.eeg_rows import float_patches
from neurolm_jax.errors import UserError
from neurolm_jax.models.attention import staircase
from neurolm_jax.models.config import TokenizerConfig
from neurolm_jax.models.neural_transformer import NeuralTransformer
from neurolm_jax.models.neurolm import FEATURE_DEVIATION, NeuroLM
from neurolm_jax.models.transformer import Stack
from neurolm_jax.stages.base import Stage, Weights
from neurolm_jax.stages.neurolm import NeuroLMStage
from neurolm_jax.stages.tokenizer import TokenizerStage, encode_rows

DEFAULT = "encoder"


class Layer(NamedTuple):
    """part: encoder or language; block: how many blocks have run, None for all of them and the final norm."""

    part: str
    block: int | None


def parse_layer(name: str, stage: Stage) -> Layer:
    """Return the layer that a name such as ``encoder``, ``encoder.2`` or ``language.1`` stands for.

    Raises:
      UserError: the stage has no such layer; its layers are named.
    """
    part, dot, number = name.partition(".")
    blocks = {"encoder": tokenizer_config(stage).encoder.layers}
    if isinstance(stage, NeuroLMStage):
        blocks["language"] = stage.model_config.language.layers
    if part in blocks and (not dot or number.isdecimal() and int(number) <= blocks[part]):
        return Layer(part, int(number) if dot else None)
    known = ", ".join(f"{part}, {part}.0 to {part}.{count}" for part, count in blocks.items())
    raise UserError(f"layer: a checkpoint of stage {stage.config.stage} has {known}, not {name!r}")


def tokenizer_config(stage: Stage) -> TokenizerConfig:
    """The tokenizer's config of any stage that has its encoder."""
    return stage.model_config if isinstance(stage, TokenizerStage) else stage.tokenizer_config  # type: ignore[attr-defined]


def width_of(stage: Stage, layer: Layer) -> int:
    """Width of a layer's features."""
    if layer.part == "encoder":
        return tokenizer_config(stage).encoder.width
    return stage.model_config.language.width  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=8)
def compiled(stage: Stage, layer: Layer) -> Callable[[Weights, dict], tuple[jax.Array, jax.Array]]:
    """Return (weights, rows of EEG) -> features [B, T, W] float32 of a layer, and codes [B, T]; jitted."""
    config = tokenizer_config(stage)

    def features(weights, eeg):
        if isinstance(stage, NeuroLMStage):
            parts = weights.extra["tokenizer"]
            encoded, codes = stage.encode(weights.extra, eeg)
        else:
            parts = weights.params
            encoded, codes = encode_rows(config, parts, weights.extra["state"], eeg)
            encoded = _standardised(encoded, weights.extra["state"])
        if layer.part == "language":
            encoded = _language(stage, weights, encoded, eeg, layer.block)
        elif layer.block is not None:
            encoded = _encoder_block(config, parts["encoder"], eeg, layer.block)
        return encoded.astype(jnp.float32), codes

    return jax.jit(features)


def _standardised(features, state):
    """As language models read them that go on from this tokenizer; converted ones have no statistics, and read the
    features as they are."""
    mean, variance = state.feature_mean, state.feature_variance
    gathered = (mean != 0).any()
    return jnp.where(gathered, FEATURE_DEVIATION * (features - mean) * jax.lax.rsqrt(variance + 1e-6), features)


def _encoder_block(config, params, eeg, block):
    """Hidden states [B, T, W] of the encoder after so many of its blocks."""
    kept, params = _first_blocks(params, block)
    model = NeuralTransformer(dataclasses.replace(config.encoder, layers=kept))
    ids = eeg["channel"], eeg["second"], eeg["segment"]
    return _at_block(lambda: model.apply({"params": params}, float_patches(eeg), *ids), block)


def _language(stage, weights, features, eeg, block):
    """Hidden states [B, T, W] of the language model, which reads rows of EEG as when it predicts the next second."""
    config = stage.model_config
    params = stage.params(weights) if hasattr(stage, "params") else weights.params
    intervals = staircase(eeg["segment"], eeg["second"])
    arguments = features, eeg["channel"], eeg["second"], intervals
    if block is None:
        return NeuroLM(config).apply({"params": params}, *arguments, method="eeg_hidden")
    kept, language = _first_blocks(params["language"], block)
    config = dataclasses.replace(config, language=dataclasses.replace(config.language, layers=kept))
    variables = {"params": params | {"language": language}}
    return _at_block(lambda: NeuroLM(config).apply(variables, *arguments, method="eeg_hidden"), block)


def _first_blocks(params, block):
    """How many blocks must run, and parameters whose stack has just them; one runs where its input is wanted."""
    count = max(block, 1)
    blocks = jax.tree.map(lambda x: x[:count], params["stack"]["blocks"])
    return count, {**params, "stack": {**params["stack"], "blocks": blocks}}


def _at_block(apply, block):
    """What comes out of the stack of blocks while ``apply`` runs a model with one; what goes in for block 0."""
    seen = []

    def keep(call, arguments, options, context):
        result = call(*arguments, **options)
        if isinstance(context.module, Stack) and context.method_name == "__call__":
            seen.append(result[0] if block else arguments[0])
        return result

    with nn.intercept_methods(keep):
        apply()
    return seen[0]
