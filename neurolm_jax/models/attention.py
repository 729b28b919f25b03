"""Attention in which every query sees one contiguous interval of keys.

Tokens lie in time-major order and text follows its EEG, so all masks of the system are intervals ``[start, stop)``:
two integers per token, both non-decreasing along the row, and no stored mask (paper, section 2.3, figure 3).
Segments (samples) pack into one row and nothing leaks between them. Padding (segment 0) sees itself alone, which
keeps the softmax finite.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from neurolm_jax.models.placement import mesh_around, over_devices, platform, sum_over

ATTENDED = "attended"  # what attention gives, for rules of rematerialisation
AT_ONCE = 512  # tokens of a row whose scores fit the memory well
QUERY_AXES, KEY_AXES = ("batch", "length", "heads", None), ("batch", None, "heads", None)
INPUT_AXES = (QUERY_AXES, KEY_AXES, KEY_AXES, ("batch", "length"), ("batch", "length"))


class Intervals(NamedTuple):
    """Keys ``start <= j < stop`` that each query sees; int32 [B, T] each."""

    start: jax.Array
    stop: jax.Array


def bidirectional(segment: jax.Array) -> Intervals:
    """Each token sees its whole segment. ``segment`` [B, T], 0 is padding."""
    alone = segment == 0
    return _runs(_changes(segment) | alone)


def staircase(segment: jax.Array, second: jax.Array, is_text: jax.Array | None = None) -> Intervals:
    """Each token sees its segment up to the end of its own second; a text token up to itself.

    Args:
      segment: [B, T] segment ids, 0 is padding.
      second: [B, T] time ids, non-decreasing inside a segment's EEG.
      is_text: [B, T] bool, or None if there is no text.
    """
    seconds = own_second(segment, second, is_text)
    return Intervals(bidirectional(segment).start, seconds.stop)


def own_second(segment: jax.Array, second: jax.Array, is_text: jax.Array | None = None) -> Intervals:
    """The run of tokens that share a token's segment and second; text and padding tokens are runs of one."""
    begins = _changes(segment) | _changes(second) | (segment == 0)
    if is_text is not None:
        begins |= is_text
    return _runs(begins)


def interval_attention(
    query: jax.Array,  # [B, T, N, H]
    key: jax.Array,  # [B, T, N, H]
    value: jax.Array,  # [B, T, N, H]
    intervals: Intervals,
) -> jax.Array:  # [B, T, N, H]
    """Softmax attention, scale 1/sqrt(H), over each query's interval of keys.

    On one CPU device, rows of at most ``AT_ONCE`` tokens have all their scores computed at once. Others never have:
    TPUs and GPUs run kernels, other devices a loop over blocks.
    """
    if mesh_around() is None and platform() == "cpu" and key.shape[1] <= AT_ONCE:
        index = jnp.arange(key.shape[1])
        start, stop = intervals.start[:, None, :, None], intervals.stop[:, None, :, None]
        mask = (index >= start) & (index < stop)  # [B, 1, T, T]
        return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="xla")
    return attend(query, key, value, *intervals, platform())


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def attend(
    query: jax.Array,  # [B, T, N, H]
    key: jax.Array,  # [B, M, N, H]
    value: jax.Array,  # [B, M, N, H]
    start: jax.Array,  # [B, T]
    stop: jax.Array,  # [B, T]
    device: str,
    interpret: bool = False,
) -> jax.Array:  # [B, T, N, H]
    """The same by the kernels of a kind of device; ``interpret`` runs them where there is none.

    Each device of a mesh has its own rows, heads and queries; of rows that are split lengthwise it has all keys.
    """
    return _attended(query, key, value, start, stop, device, interpret)[0]


def _attended(query, key, value, start, stop, device, interpret):
    forward, _ = _kernels(device, interpret)
    outputs = [lambda q, k, v, a, b: q, lambda q, k, v, a, b: PartitionSpec(q[0], q[2], q[1])]
    kept = query, key, value, start, stop
    output, log_total = over_devices(lambda axes, *local: forward(*local), INPUT_AXES, outputs, *kept)
    output, log_total = checkpoint_name(output, ATTENDED), checkpoint_name(log_total, ATTENDED)
    return output, (*kept, output, log_total)


def _attended_backward(device, interpret, kept, gradient):
    _, backward = _kernels(device, interpret)

    def local(axes, *arrays):
        of_query, of_key, of_value = backward(*arrays)
        lengthwise = axes[0][1]  # each device has but its own queries' share of what is due to the keys
        return of_query, sum_over(of_key, lengthwise), sum_over(of_value, lengthwise)

    outputs = [lambda *specs: specs[0], lambda *specs: specs[1], lambda *specs: specs[2]]
    names = (*INPUT_AXES, QUERY_AXES, ("batch", "heads", "length"), QUERY_AXES)
    return *over_devices(local, names, outputs, *kept, gradient), None, None


attend.defvjp(_attended, _attended_backward)


def _kernels(device, interpret):
    """Forward and backward for a kind of device."""
    if device in ("tpu", "gpu"):
        from neurolm_jax.models.kernels import pallas

        options = {"platform": device, "interpret": interpret}
        return functools.partial(pallas.forward, **options), functools.partial(pallas.backward, **options)
    from neurolm_jax.models.kernels import blockwise

    return blockwise.forward, blockwise.backward


def masked_attention(
    query: jax.Array,  # [B, T, N, H]
    key: jax.Array,  # [B, M, N, H]
    value: jax.Array,  # [B, M, N, H]
    mask: jax.Array,  # [B, T, M] bool
) -> jax.Array:  # [B, T, N, H]
    """The same over any keys: for the few tokens that are read after a cache."""
    return jax.nn.dot_product_attention(query, key, value, mask=mask[:, None], implementation="xla")


def _changes(ids: jax.Array) -> jax.Array:
    """True where an id differs from its left neighbour (and at the row's first place). [B, T] -> [B, T]."""
    return jnp.concatenate([jnp.ones_like(ids[:, :1], bool), ids[:, 1:] != ids[:, :-1]], axis=1)


def _runs(begins: jax.Array) -> Intervals:
    """Intervals of the runs that begin where ``begins`` [B, T] is true."""
    length = begins.shape[1]
    index = jnp.broadcast_to(jnp.arange(length), begins.shape)
    start = jax.lax.cummax(jnp.where(begins, index, 0), axis=1)
    next_begin = jnp.where(begins, index, length)[:, 1:]
    next_begin = jnp.concatenate([next_begin, jnp.full_like(index[:, :1], length)], axis=1)
    stop = jax.lax.cummin(next_begin, axis=1, reverse=True)
    return Intervals(start, stop)
