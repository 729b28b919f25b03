"""Attention in which every query sees one contiguous interval of keys.

Tokens lie in time-major order and text follows its EEG, so all masks of the system are intervals ``[start, stop)``:
two integers per token, both non-decreasing along the row, and no stored mask (paper, section 2.3, figure 3).
Segments (samples) pack into one row and nothing leaks between them. Padding (segment 0) sees itself alone, which
keeps the softmax finite.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


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
    """Softmax attention, scale 1/sqrt(H), over each query's interval of keys."""
    index = jnp.arange(key.shape[1])
    start, stop = intervals.start[:, None, :, None], intervals.stop[:, None, :, None]
    mask = (index >= start) & (index < stop)  # [B, 1, T, T]
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="xla")


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
