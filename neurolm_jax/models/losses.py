"""Means over valid places, and cross-entropy over a large vocabulary without a whole batch's logits in memory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from neurolm_jax.models.placement import (
    kept_table,
    map_steps,
    on_every_device,
    over_devices,
    platform,
    scan,
    sum_over,
    sum_table_over,
)

NO_TARGET = -1
# Positions whose logits exist at one time, on each device: as many as suit a CPU's cache; elsewhere so many that adding
# up the classes' gradient, once a chunk, costs little beside the products.
CHUNK, LARGE_CHUNK = 256, 2048


class Mean(NamedTuple):
    """A mean as its sum and the number of places it is over, so that a batch's parts add up to the whole batch."""

    sum: jax.Array
    count: jax.Array  # type: ignore[assignment]  # a tuple's method, which is not used

    @property
    def value(self) -> jax.Array:
        """0 where there is no place at all."""
        return self.sum / jnp.maximum(self.count, 1)


def masked_mean(x: jax.Array, valid: jax.Array) -> Mean:
    """x and valid of one shape."""
    return Mean(jnp.where(valid, x, 0).sum(), valid.sum())


def chunked_cross_entropy(
    hidden: jax.Array,  # [B, T, W]
    classes: jax.Array,  # [V, W]
    targets: jax.Array,  # [B, T], -1 for none
) -> tuple[Mean, Mean]:
    """Cross-entropy and accuracy over the positions that have a target.

    Where a gradient is wanted it is made together with the loss, chunk by chunk, so that logits are computed once and
    kept never. Every device goes over its own positions, and over its own classes where those are split.
    """
    loss, correct = _summed(hidden, classes, targets)
    count = (targets != NO_TARGET).sum()
    return Mean(loss, count), Mean(correct, count)


def target_log_probabilities(hidden: jax.Array, classes: jax.Array, targets: jax.Array) -> jax.Array:
    """Log probability of each target: hidden [B, T, W], classes [V, W], targets [B, T] -> [B, T], 0 where there is
    none."""

    def local(axes, hidden, classes, targets):
        _, (vocabulary, _), _ = axes

        def one(chunk):
            found = _chunk(vocabulary, classes, *chunk)
            log_probability = (found.chosen - found.highest - jnp.log(found.total))[:, 0]
            return jnp.where(chunk[1] != NO_TARGET, log_probability, 0)

        return map_steps(one, _chunks(hidden, targets)).reshape(-1)[: targets.size].reshape(targets.shape)

    return _over_devices(local, [lambda h, c, t: t], hidden, classes, targets)


@jax.custom_vjp
def _summed(hidden, classes, targets):
    """Summed loss, and the number of correct predictions as float32."""

    def local(axes, hidden, classes, targets):
        _, (vocabulary, _), places = axes

        def one(chunk):
            found = _chunk(vocabulary, classes, *chunk)
            return found.loss, found.correct

        losses, correct = map_steps(one, _chunks(hidden, targets))
        return sum_over(losses.sum(), places), sum_over(correct.sum(), places)

    return _over_devices(local, [on_every_device, on_every_device], hidden, classes, targets)


def _forward(hidden, classes, targets):
    def local(axes, hidden, classes, targets):
        _, (vocabulary, _), places = axes

        def body(classes_gradient, chunk):
            hidden, targets = chunk
            found = _chunk(vocabulary, classes, hidden, targets)
            # Probabilities less one at the target, subtracted in float32 and rounded once: where the target is likely
            # the difference is small, and of two rounded terms little of it would be left.
            is_target = found.here & (jnp.arange(len(classes)) == found.place[:, None])
            difference = jnp.where((targets != NO_TARGET)[:, None], found.exponentials / found.total - is_target, 0)
            difference = difference.astype(hidden.dtype)  # [M, V]
            classes_gradient += jnp.matmul(difference.T, hidden, preferred_element_type=jnp.float32)
            hidden_gradient = jnp.matmul(difference, classes, preferred_element_type=jnp.float32)
            return classes_gradient, (found.loss, found.correct, sum_over(hidden_gradient, vocabulary))

        zeros = jnp.zeros(classes.shape, jnp.float32)
        classes_gradient, (losses, correct, hidden_gradient) = scan(body, zeros, _chunks(hidden, targets))
        hidden_gradient = hidden_gradient.reshape(-1, hidden.shape[-1])[: targets.size].astype(hidden.dtype)
        classes_gradient = sum_table_over(classes_gradient, places)
        sums = sum_over(losses.sum(), places), sum_over(correct.sum(), places)
        return *sums, hidden_gradient.reshape(hidden.shape), classes_gradient

    width = hidden.shape[-1]
    outputs = [on_every_device, on_every_device, lambda h, c, t: h, lambda h, c, t: kept_table(c, t, width)]
    loss, correct, hidden_gradient, classes_gradient = _over_devices(local, outputs, hidden, classes, targets)
    return (loss, correct), (hidden_gradient, classes_gradient.astype(classes.dtype))


def _backward(gradients, cotangents):
    loss_cotangent, _ = cotangents
    hidden_gradient, classes_gradient = gradients
    return (loss_cotangent * hidden_gradient).astype(hidden_gradient.dtype), loss_cotangent * classes_gradient, None


_summed.defvjp(_forward, _backward)


class _Chunk(NamedTuple):
    """Of M positions, against the V classes that this device holds.

    loss, correct: summed, of all classes. exponentials [M, V] of the logits less the highest [M, 1] of all classes, and
    their sum over all of them, total [M, 1]. chosen [M, 1]: the targets' logits. here [M, 1]: whether the target is
    among these classes, place [M]: which.
    """

    loss: jax.Array
    correct: jax.Array
    exponentials: jax.Array
    highest: jax.Array
    total: jax.Array
    chosen: jax.Array
    here: jax.Array
    place: jax.Array


def _chunk(vocabulary, classes, hidden, targets):
    """vocabulary: mesh axes that split the classes."""
    logits = jnp.matmul(hidden, classes.T, preferred_element_type=jnp.float32)  # [M, V]
    highest = logits.max(-1, keepdims=True)
    highest = jax.lax.pmax(highest, vocabulary) if vocabulary else highest
    exponentials = jnp.exp(logits - highest)
    total = sum_over(exponentials.sum(-1, keepdims=True), vocabulary)
    place = targets - (jax.lax.axis_index(vocabulary) * len(classes) if vocabulary else 0)
    here = ((place >= 0) & (place < len(classes)))[:, None]
    place = jnp.clip(place, 0, len(classes) - 1)
    chosen = jnp.take_along_axis(logits, place[:, None], axis=1)
    chosen = sum_over(jnp.where(here, chosen, 0), vocabulary)
    valid = (targets != NO_TARGET)[:, None]
    loss = jnp.where(valid, jnp.log(total) + highest - chosen, 0).sum()
    correct = (valid & (chosen >= highest)).sum().astype(jnp.float32)
    return _Chunk(loss, correct, exponentials, highest, total, chosen, here, place)


def _chunks(hidden, targets):
    """[B, T, W], [B, T] -> [N / M, M, W], [N / M, M], the last chunk padded with positions without a target."""
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    size = min(CHUNK if platform() == "cpu" else LARGE_CHUNK, len(hidden))
    padding = -len(hidden) % size
    hidden = jnp.pad(hidden, ((0, padding), (0, 0))).reshape(-1, size, hidden.shape[-1])
    return hidden, jnp.pad(targets, (0, padding), constant_values=NO_TARGET).reshape(-1, size)


def _over_devices(local, outputs, hidden, classes, targets):
    names = ("batch", "length", None), ("vocabulary", None), ("batch", "length")
    return over_devices(local, names, outputs, hidden, classes.astype(hidden.dtype), targets)
