"""Steps that must not be taken: loss or gradient not finite, or a loss far above what it was. Decided on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

DECAY = 0.99  # of the loss's moving mean and variance
KNOWN = 100  # steps taken before a loss is compared with them


class Health(NamedTuple):
    """taken, skipped: steps so far; in_a_row: of the latter, how many the newest: all int32 []. mean, variance: of the
    loss at steps taken, float32 []."""

    taken: jax.Array
    skipped: jax.Array
    in_a_row: jax.Array
    mean: jax.Array
    variance: jax.Array


def create_health() -> Health:
    """That of a run before its first step."""
    zero = jnp.zeros((), jnp.int32)
    return Health(zero, zero, zero, jnp.zeros(()), jnp.zeros(()))


def judge(health: Health, loss: jax.Array, gradient_norm: jax.Array, spike: float) -> tuple[jax.Array, Health]:
    """Whether a step is taken (bool []), and the health after it.

    Args:
      spike: standard deviations of the loss above its mean from which on a step is skipped; 0 for any.
    """
    taken = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
    if spike:
        limit = health.mean + spike * jnp.sqrt(health.variance)
        taken &= (loss <= limit) | (health.taken < KNOWN)
    decay = jnp.minimum(DECAY, health.taken / (health.taken + 1.0))  # at first, of all steps alike
    difference = loss - health.mean
    after = Health(
        health.taken + taken,
        health.skipped + ~taken,
        jnp.where(taken, 0, health.in_a_row + 1),
        jnp.where(taken, health.mean + (1 - decay) * difference, health.mean),
        jnp.where(taken, decay * (health.variance + (1 - decay) * jnp.square(difference)), health.variance),
    )
    return taken, after


def choose(taken: jax.Array, new, old):
    """The new tree if the step is taken, else the old one."""
    return jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, old)


def after_rollback(health: Health, skipped: int) -> Health:
    """That of a checkpoint gone back to: skipped steps stay counted, of which none came just before."""
    zero = jnp.zeros_like(health.in_a_row)
    return health._replace(skipped=zero + skipped, in_a_row=zero)
