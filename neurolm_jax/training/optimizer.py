"""AdamW with warm-up and cosine decay."""

from typing import Any

import jax
import optax
from ml_collections import ConfigDict


def learning_rate(config: ConfigDict) -> optax.Schedule:
    """From 0 over ``warmup_steps`` to ``learning_rate``, then by a cosine to ``final_learning_rate`` at the end."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(config.steps, config.warmup_steps + 1),
        end_value=config.final_learning_rate,
    )


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW's directions, to be taken times the learning rate, which is a function of the step alone.

    Weight decay acts on tensors of two dimensions and more, the layer axis not counted; embeddings included.
    """
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    parts.append(optax.scale_by_adam(b1=config.beta1, b2=config.beta2))
    parts.append(optax.add_decayed_weights(config.weight_decay, mask=decayed))
    return optax.chain(*parts)


def decayed(params: Any) -> Any:
    """Which parameters decay: a tree of bool."""

    def rule(path, leaf):
        layered = any(getattr(key, "key", None) == "blocks" for key in path)
        return leaf.ndim - layered >= 2

    return jax.tree_util.tree_map_with_path(rule, params)
