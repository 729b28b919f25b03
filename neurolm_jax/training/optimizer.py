"""AdamW with warm-up and cosine decay."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

EPSILON = 1e-8


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
    """What keeps AdamW's moments; the gradients' norm is clipped before."""
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(*clip, optax.scale_by_adam(b1=config.beta1, b2=config.beta2))


def directions(config: ConfigDict, moments: optax.OptState, params: Any) -> Any:
    """AdamW's directions from the moments after a step's gradients, to be taken times the learning rate, which is a
    function of the step alone.

    Weight decay acts on tensors of two dimensions and more, the layer axis not counted; embeddings included.
    """
    count, mu, nu = (optax.tree.get(moments, name) for name in ("count", "mu", "nu"))
    first = optax.tree.bias_correction(mu, config.beta1, count)
    second = optax.tree.bias_correction(nu, config.beta2, count)

    def direction(m, v, parameter, decays):
        return m / (jnp.sqrt(v) + EPSILON) + (config.weight_decay * parameter if decays else 0)

    return jax.tree.map(direction, first, second, params, decayed(params))


def decayed(params: Any) -> Any:
    """Which parameters decay: a tree of bool."""

    def rule(path, leaf):
        layered = any(getattr(key, "key", None) == "blocks" for key in path)
        return leaf.ndim - layered >= 2

    return jax.tree_util.tree_map_with_path(rule, params)
