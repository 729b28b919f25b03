"""Loss and gradients of a batch, in parts one after another where the whole is too large for memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from neurolm_jax.models.losses import Mean
from neurolm_jax.models.placement import map_steps, scan
from neurolm_jax.stages.base import Stage, Terms, Weights


def loss_and_gradients(
    stage: Stage, weights: Weights, batch, rng: jax.Array, progress: jax.Array, parts: int
) -> tuple[Any, Terms]:
    """Gradients of the parameters, and the terms of the whole batch.

    Every term of the loss is a mean over the whole batch, whatever its places' shares in the parts: the number of parts
    changes nothing but rounding (and which places dropout takes).
    """

    def terms_of(params, part, rng):
        return stage.terms(weights._replace(params=params), part, rng, progress, train=True)

    def loss_of(params, part, rng, counts):
        terms = terms_of(params, part, rng)
        counts = {name: term.count for name, term in terms.losses.items()} if counts is None else counts
        return weighted(stage, {name: term._replace(count=counts[name]) for name, term in terms.losses.items()}), terms

    gradients_of = jax.grad(loss_of, has_aux=True)
    if parts == 1:
        return gradients_of(weights.params, batch, rng, None)

    batches = split(batch, parts), jax.random.split(rng, parts)

    def count(_, part):
        # The counts follow from the batch alone; the compiler drops the model that stands between.
        return None, {name: term.count for name, term in terms_of(weights.params, *part).losses.items()}

    def add(gradients, part):
        more, terms = gradients_of(weights.params, *part, counts)
        return jax.tree.map(jnp.add, gradients, more), terms

    counts = jax.tree.map(lambda x: x.sum(0), scan(count, None, batches)[1])
    gradients, terms = scan(add, jax.tree.map(jnp.zeros_like, weights.params), batches)
    losses, metrics = jax.tree.map(lambda x: x.sum(0), (terms.losses, terms.metrics))
    return gradients, Terms(losses, metrics, merge(terms.observed))


def in_parts(function: Callable, tree, parts: int):
    """``function(tree)`` of arrays [B, ...], a part after another; what it gives, arrays [b, ...], for all rows."""
    return function(tree) if parts == 1 else merge(map_steps(function, split(tree, parts)))


def weighted(stage: Stage, losses: dict[str, Mean]) -> jax.Array:
    """The loss from its terms."""
    return sum(stage.loss_weight(name) * term.value for name, term in losses.items())


def split(batch, parts: int):
    """[B, ...] -> [parts, B / parts, ...]: row r goes to part r % parts, so that every device keeps its rows."""
    return jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)


def merge(parts):
    """The inverse of ``split``."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), parts)
