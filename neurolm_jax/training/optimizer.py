"""AdamW with warm-up and cosine decay, and the step of any of optax's optimizers."""

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
        decay_steps=max(config.steps, config.warmup_steps + 1),  # of no step at all, too
        end_value=config.final_learning_rate,
    )


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW of gradients whose norm is clipped: updates with the learning rate, which follows the steps taken, in them.

    Weight decay acts on tensors of two dimensions and more, the layer axis not counted; embeddings included.
    """
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    adamw = optax.adamw(
        learning_rate(config), config.beta1, config.beta2, weight_decay=config.weight_decay, mask=decayed
    )
    return optax.chain(*clip, adamw)


def take(
    taken: jax.Array, optimizer: optax.GradientTransformation, gradients: Any, state: optax.OptState, params: Any
) -> tuple[Any, optax.OptState]:
    """Return parameters and optimizer state after a step, or as they were if ``taken`` (bool []) is false.

    The choice is a branch: of arrays to choose from, XLA would copy every moment before it is written over.
    """

    def step(state, params):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return jax.lax.cond(taken, step, lambda state, params: (params, state), state, params)


def decayed(params: Any) -> Any:
    """Which parameters decay: a tree of bool."""

    def rule(path, leaf):
        layered = any(getattr(key, "key", None) == "blocks" for key in path)
        return leaf.ndim - layered >= 2

    return jax.tree_util.tree_map_with_path(rule, params)
