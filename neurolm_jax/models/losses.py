"""Means over valid places, and cross-entropy over a large vocabulary without a whole batch's logits in memory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

NO_TARGET = -1
CHUNK = 256  # positions whose logits exist at one time


class Mean(NamedTuple):
    """A mean as its sum and the number of places it is over, so that a batch's parts add up to the whole batch."""

    sum: jax.Array
    count: jax.Array

    @property
    def value(self) -> jax.Array:
        """0 where there is no place at all."""
        return self.sum / jnp.maximum(self.count, 1)


def masked_mean(x: jax.Array, valid: jax.Array) -> Mean:
    """x and valid of one shape."""
    return Mean(jnp.where(valid, x, 0).sum(), valid.sum())


def chunked_cross_entropy(
    hidden: jax.Array,  # [N, W]
    classes: jax.Array,  # [V, W]
    targets: jax.Array,  # [N], -1 for none
) -> tuple[Mean, Mean]:
    """Cross-entropy and accuracy over the positions that have a target.

    Where a gradient is wanted it is made together with the loss, chunk by chunk, so that logits are computed once and
    kept never.
    """
    loss, correct = _summed(hidden, classes, targets)
    count = (targets != NO_TARGET).sum()
    return Mean(loss, count), Mean(correct, count)


def target_log_probabilities(hidden: jax.Array, classes: jax.Array, targets: jax.Array) -> jax.Array:
    """Log probability of each target: hidden [N, W], classes [V, W], targets [N] -> [N], 0 where there is none."""

    def one(chunk):
        hidden, targets = chunk
        logits = jnp.matmul(hidden, classes.T.astype(hidden.dtype), preferred_element_type=jnp.float32)
        chosen = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[:, None], axis=1)[:, 0]
        return jnp.where(targets != NO_TARGET, chosen - jax.nn.logsumexp(logits, axis=-1), 0)

    return jax.lax.map(one, _chunks(hidden, targets)).reshape(-1)[: len(hidden)]


@jax.custom_vjp
def _summed(hidden, classes, targets):
    """Summed loss, and the number of correct predictions as float32."""
    losses, correct = jax.lax.map(lambda chunk: _chunk(classes, *chunk)[:2], _chunks(hidden, targets))
    return losses.sum(), correct.sum()


def _forward(hidden, classes, targets):
    def body(classes_gradient, chunk):
        hidden, targets = chunk
        loss, correct, exponentials, total = _chunk(classes, hidden, targets)
        valid = (targets != NO_TARGET)[:, None]
        scaled = jnp.where(valid, hidden / total, 0).astype(hidden.dtype)
        place = jnp.maximum(targets, 0)
        classes_gradient += jnp.matmul(exponentials.T, scaled, preferred_element_type=jnp.float32)
        classes_gradient = classes_gradient.at[place].add(-jnp.where(valid, hidden, 0).astype(jnp.float32))
        hidden_gradient = (exponentials @ classes.astype(hidden.dtype)) / total - classes[place]
        return classes_gradient, (loss, correct, jnp.where(valid, hidden_gradient, 0))

    zeros = jnp.zeros(classes.shape, jnp.float32)
    classes_gradient, (losses, correct, hidden_gradient) = jax.lax.scan(body, zeros, _chunks(hidden, targets))
    hidden_gradient = hidden_gradient.reshape(-1, hidden.shape[-1])[: len(hidden)].astype(hidden.dtype)
    return (losses.sum(), correct.sum()), (hidden_gradient, classes_gradient.astype(classes.dtype))


def _backward(gradients, cotangents):
    loss_cotangent, _ = cotangents
    hidden_gradient, classes_gradient = gradients
    return (loss_cotangent * hidden_gradient).astype(hidden_gradient.dtype), loss_cotangent * classes_gradient, None


_summed.defvjp(_forward, _backward)


def _chunk(classes, hidden, targets):
    """Loss and hits of one chunk [M]; exponentials [M, V] of the shifted logits and their sums [M, 1]."""
    logits = jnp.matmul(hidden, classes.T.astype(hidden.dtype), preferred_element_type=jnp.float32)  # [M, V]
    highest = logits.max(-1, keepdims=True)
    exponentials = jnp.exp(logits - highest)
    total = exponentials.sum(-1, keepdims=True)
    chosen = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[:, None], axis=1)
    valid = (targets != NO_TARGET)[:, None]
    loss = jnp.where(valid, jnp.log(total) + highest - chosen, 0).sum()
    correct = (valid & (chosen >= highest)).sum().astype(jnp.float32)
    return loss, correct, exponentials.astype(hidden.dtype), total


def _chunks(hidden, targets):
    """[N, W], [N] -> [N / M, M, W], [N / M, M], the last chunk padded with positions without a target."""
    size = min(CHUNK, len(hidden))
    padding = -len(hidden) % size
    hidden = jnp.pad(hidden, ((0, padding), (0, 0))).reshape(-1, size, hidden.shape[-1])
    return hidden, jnp.pad(targets, (0, padding), constant_values=NO_TARGET).reshape(-1, size)
