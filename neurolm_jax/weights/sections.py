"""What is in a released checkpoint, as sections of our configs; and the arguments that such a checkpoint carries.

Arguments in the file go before what the tensors' shapes tell, and the shapes before the released sizes. The number of
heads is in no shape: without arguments a head is 64 wide, as in every released model.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from neurolm_jax.errors import UserError
from neurolm_jax.weights import gpt2
from neurolm_jax.weights.mapping import count_layers, dimension

PRECISION = {"dtype": "float32", "remat": "none"}  # of every model read from such files
_PLAIN = {"bias": False, "dropout": 0.0, "num_classes": 0, "block_size": 1024}


def tokenizer_sections(tensors: Mapping[str, np.ndarray], arguments: Mapping) -> dict:
    """The config's sections that say what is in a ``VQ.pt``."""
    codebook = "VQ.quantize.embedding."
    decoder = arguments.get("decoder_args", {})
    places = [("VQ.quantize.cluster_size", 0), (f"{codebook}weight", 0), (f"{codebook}embed_avg", 0)]
    widths = [("VQ.encode_task_layer.2.bias", 0), (f"{codebook}weight", 1), (f"{codebook}embed_avg", 1)]
    return {
        "tokenizer": {
            "encoder": _encoder_section(tensors, "VQ.encoder.", arguments.get("encoder_args", {})),
            "decoder_layers": decoder.get("n_layer") or count_layers(tensors, "VQ.decoder_raw.blocks."),
            "codes": dimension(tensors, *places, default=8192),
            "code_width": dimension(tensors, *widths, default=128),
            "domain_width": dimension(tensors, ("domain_classifier.0.bias", 0), default=256),
            "decay": 0.99,
            "dead_below": 0.0,
            "spectrum_target": "amplitude",
            "spectrum_head": False,
        },
        "text_vocabulary": dimension(tensors, ("wte.weight", 0), default=50257),
    }


def neurolm_sections(tensors: Mapping[str, np.ndarray], arguments: Mapping) -> dict:
    """The config's sections that say what is in a ``NeuroLM-*.pt``; the tokenizer's decoders are not in it."""
    gpt = "GPT2.transformer."
    model = arguments.get("model_args", {})
    here = {name.removeprefix(gpt): tensor for name, tensor in tensors.items() if name.startswith(gpt)}
    found = gpt2.sizes(here)
    vocabulary = dimension(tensors, (f"{gpt}wte.weight", 0), default=50304)
    return {
        "language": {
            "layers": model.get("n_layer") or found["layers"],
            "heads": model.get("n_head") or found["heads"],
            "width": model.get("n_embd") or found["width"],
            "vocabulary": vocabulary,
            "positions": model.get("block_size") or found["positions"],
            **PRECISION,
            "approximate_gelu": False,
            "dropout": 0.0,
        },
        "tokenizer": {
            "encoder": _encoder_section(tensors, "tokenizer.", arguments.get("encoder_args", {})),
            "decoder_layers": 0,
            "codes": dimension(tensors, ("GPT2.lm_head.weight", 0), default=vocabulary + 8192) - vocabulary,
            "code_width": 128,
            "domain_width": 256,
            "decay": 0.99,
            "dead_below": 0.0,
            "spectrum_target": "amplitude",
            "spectrum_head": False,
        },
        "feature_norm": False,
    }


def _encoder_section(tensors, prefix, arguments):
    places = [(f"{prefix}pos_embed.weight", 1), (f"{prefix}time_embed.weight", 1), (f"{prefix}fc_norm.weight", 0)]
    width = arguments.get("n_embd") or dimension(tensors, *places, default=768)
    return {
        "layers": arguments.get("n_layer") or count_layers(tensors, f"{prefix}blocks."),
        "heads": arguments.get("n_head") or max(1, width // gpt2.HEAD_WIDTH),
        "width": width,
        "channels": dimension(tensors, (f"{prefix}pos_embed.weight", 0), default=256),
        "seconds": dimension(tensors, (f"{prefix}time_embed.weight", 0), default=64),
        "patch_norm": "row",
        "causal": False,
        **PRECISION,
    }


def arguments(config: ConfigDict) -> dict[str, dict[str, Any]]:
    """The arguments that the official code keeps beside the tensors of a stage.

    Raises:
      UserError: the official code has no model that computes the same.
    """
    c, encoder = config.tokenizer, config.tokenizer.encoder
    other = [f"tokenizer.encoder.patch_norm={encoder.patch_norm}"] * (encoder.patch_norm != "row")
    other += ["tokenizer.encoder.causal=True"] * encoder.causal
    other += ["feature_norm=True"] * config.get("feature_norm", False)
    if "summary" in config and config.summary.reads:
        other += [f"summary.reads={tuple(config.summary.reads)}"]
    other += ["tokenizer.spectrum_head=True"] * (config.stage == "tokenizer" and c.spectrum_head)
    if other:
        raise UserError(
            f"the official code has no model with {', '.join(other)}; configs official_b, _l and _xl match it"
        )
    found = {"encoder_args": _arguments(encoder) | _PLAIN | {"in_chans": 1, "out_chans": 16}}
    if config.stage == "tokenizer":
        layers = {"n_layer": c.decoder_layers}
        return found | {"decoder_args": _arguments(encoder) | layers | _PLAIN | {"in_chans": c.code_width}}
    gpt = {"block_size": config.language.positions, "bias": True, "vocab_size": gpt2.TOKENS, "dropout": 0.0}
    return found | {"model_args": _arguments(config.language) | gpt}


def _arguments(section):
    return {"n_layer": section.layers, "n_head": section.heads, "n_embd": section.width}
