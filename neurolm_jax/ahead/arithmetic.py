"""The arithmetic that a stage's step needs, from its parameters and batch: what a program without any waste would do.

A product with a kernel of n numbers takes 2 n operations a token, and twice that again to train it. Attention takes
4 W a layer, query and key that it sees; rows are taken to hold one recording of 23 channels. What is elementwise is
left out, as usual.
"""

import math
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from neurolm_jax.models import lora

CHANNELS = 23
PLACES = 25  # of a patch at which its convolutions are computed


class Work(NamedTuple):
    """Operations of a step over all devices. attention: forward, of stacks that are trained and of frozen ones."""

    products: float
    trained_attention: float
    frozen_attention: float

    @property
    def total(self) -> float:
        return self.products + 3 * self.trained_attention + self.frozen_attention


def main_model(config: ConfigDict) -> ConfigDict:
    """The section of the model that a stage trains: the language model, or the tokenizer's encoder."""
    return config.language if "language" in config else config.tokenizer.encoder


def places(stage) -> dict[str, int]:
    """Tokens of a step by source, if no row has padding; those of dialogues are EEG and words."""
    c = stage.config
    lengths = {"eeg": c.get("row_length"), "dialogues": c.get("row_length"), "text": c.text_length}
    return {name: size * lengths[name] for name, (_, size) in stage.empty_rows().items()}


def eeg_places(config: ConfigDict) -> int:
    """Tokens of EEG of a step, if no row has padding."""
    length = {"tokenizer": "row_length", "pretrain": "row_length", "instruct": "eeg_length"}.get(config.stage)
    return config.batch_size * config[length] if length else 0


def work(stage, weights) -> Work:
    """Of a stage and its abstract weights (see ``training.state.abstract_state``)."""
    return {"language": _language, "tokenizer": _tokenizer, "pretrain": _pretrain, "instruct": _instruct}[
        stage.config.stage
    ](stage, weights)


def _language(stage, weights):
    c, model = stage.config, stage.model_config
    tokens = c.text_batch_size * c.text_length
    classes = weights.params["token_embedding"]["table"].size
    attention = c.text_batch_size * _attention(model, causal(c.text_length, 1))
    return Work(6 * tokens * (_kernels(weights.params) + classes), attention, 0)


def _tokenizer(stage, weights):
    c, model = stage.config, stage.model_config
    eeg, text = c.batch_size * c.row_length, c.text_batch_size * c.text_length
    domain = sum(_kernels(weights.params[name]) for name in ("domain_hidden", "domain_output"))
    search = 2 * eeg * model.codes * model.code_width
    encoder = causal(c.row_length, CHANNELS) if model.encoder.causal else c.row_length**2
    attention = _attention(model.encoder, encoder)
    attention += 2 * model.decoder_layers / model.encoder.layers * _attention(model.encoder, c.row_length**2)
    return Work(6 * eeg * _kernels(weights.params) + 4 * text * domain + search, c.batch_size * attention, 0)


def _encode(stage, weights, rows, length):
    """Products and attention of the frozen encoder."""
    model = stage.tokenizer_config
    products = 2 * rows * length * (_kernels(weights.extra["tokenizer"]) + model.codes * model.code_width)
    seen = causal(length, CHANNELS) if model.encoder.causal else length**2
    return products, rows * _attention(model.encoder, seen)


def _pretrain(stage, weights):
    c, model = stage.config, stage.model_config.language
    eeg, text = c.batch_size * c.row_length, c.text_batch_size * c.text_length
    products, frozen = _encode(stage, weights, c.batch_size, c.row_length)
    classes, blocks = weights.params["language"]["output"].size, _kernels(weights.params["language"])
    projection = _kernels(weights.params) - blocks
    products += 6 * (eeg + text) * (blocks + classes) + 4 * eeg * projection
    attention = c.batch_size * _attention(model, causal(c.row_length, CHANNELS))
    attention += c.text_batch_size * _attention(model, causal(c.text_length, 1))
    return Work(products, attention, frozen)


def _instruct(stage, weights):
    c, model = stage.config, stage.model_config.language
    mixed, text = c.batch_size * c.row_length, c.text_batch_size * c.text_length
    products, frozen = _encode(stage, weights, c.batch_size, c.eeg_length)
    params = stage.params(weights)
    classes, blocks = params["language"]["output"].size, _kernels(params["language"])
    each = 4 if model.lora_rank else 6  # frozen kernels have no gradient of their own
    products += each * (mixed + text) * blocks + each * (c.batch_size * c.answer_length + text) * classes
    products += 4 * c.batch_size * c.eeg_length * (_kernels(params) - blocks)
    attention = c.batch_size * _attention(model, causal(c.row_length, CHANNELS))
    attention += c.text_batch_size * _attention(model, causal(c.text_length, 1))
    return Work(products, attention, frozen)


def causal(length: int, together: int) -> float:
    """Pairs of query and key in a row where each token sees those before it and its company of so many."""
    stops = np.minimum((np.arange(length) // together + 1) * together, length)
    return float(stops.sum())


def _attention(model, pairs):
    return 4 * model.layers * model.width * pairs


def _kernels(params) -> int:
    """Numbers of all kernels, each as often as it is used for a token."""
    kernels = {path: leaf for path, leaf in flatten_dict(params).items() if path[-1] in (*lora.NAMES, "kernel")}
    times = {path: PLACES if len(path) > 1 and path[-2].startswith("conv") else 1 for path in kernels}
    return sum(times[path] * math.prod(leaf.shape) for path, leaf in kernels.items())


def parameter_count(tree) -> int:
    """Numbers in a tree's arrays."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
