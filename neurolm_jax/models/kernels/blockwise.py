"""Plain XLA, for any device: a loop over blocks of queries, each against a run of keys that holds all they see.

Shapes are fixed when a program is compiled, intervals are not: there is a branch for each of a few lengths of that run.
"""

import functools

import jax
import jax.numpy as jnp

BLOCK = 256  # queries
LENGTHS = 8  # of the run of keys, at most
NEVER = -1e30  # a score


# Differentiating a scan over layers takes what follows from the intervals alone out of it, and would keep it: all masks
# of a row. Not out of a checkpoint.
@functools.partial(jax.checkpoint, prevent_cse=False)
def forward(query, key, value, start, stop):
    """See the package."""
    length, scale = query.shape[1], query.shape[-1] ** -0.5
    size, step = min(BLOCK, length), _step(key.shape[1])
    queries, keys, values = _heads_first(query, size), _heads_first(key, step), _heads_first(value, step)
    starts, stops = _padded_intervals(start, stop, size)

    def one(place):
        query, start, stop = _cut(queries, place, size, 2), _cut(starts, place, size, 1), _cut(stops, place, size, 1)

        def against(run, first):
            key, value = (jax.lax.dynamic_slice_in_dim(x, first, run, 2) for x in (keys, values))
            scores = jnp.einsum("bnqh,bnkh->bnqk", query, key, preferred_element_type=jnp.float32) * scale
            scores = jnp.where(_visible(start[:, :, None], stop[:, :, None], first + jnp.arange(run)), scores, NEVER)
            highest = scores.max(-1)
            share = jnp.exp(scores - highest[..., None])
            total = share.sum(-1)
            output = jnp.matmul(share.astype(value.dtype), value, preferred_element_type=jnp.float32)
            nothing = highest == NEVER  # of padding to a whole block
            output = jnp.where(nothing[..., None], 0, output / total[..., None]).astype(query.dtype)
            return output, jnp.where(nothing, -NEVER, highest + jnp.log(total))

        return _over_run(against, start, stop, keys.shape[2], step)

    # [blocks, B, N, L, H], [blocks, B, N, L]
    output, log_total = jax.lax.map(one, jnp.arange(queries.shape[2] // size))
    return _rows(_joined(output))[:, :length], _joined(log_total)[:, :, :length]


def backward(query, key, value, start, stop, output, log_total, gradient):
    """See the package. Scores lie keys first: one product of five is of a transposed matrix then, not two."""
    length, scale = query.shape[1], query.shape[-1] ** -0.5
    size, step = min(BLOCK, length), _step(key.shape[1])
    product = (gradient.astype(jnp.float32) * output).sum(-1).swapaxes(1, 2)  # [B, N, T]
    queries, gradients = _heads_first(query, size), _heads_first(gradient, size)
    keys, values = _heads_first(key, step), _heads_first(value, step)
    starts, stops = _padded_intervals(start, stop, size)
    padding = ((0, 0), (0, 0), (0, -length % size))
    log_totals, products = jnp.pad(log_total, padding, constant_values=-NEVER), jnp.pad(product, padding)

    def one(carry, place):
        query, gradient = _cut(queries, place, size, 2), _cut(gradients, place, size, 2)
        log_total, product = (_cut(x, place, size, 2)[:, :, None] for x in (log_totals, products))
        start, stop = _cut(starts, place, size, 1), _cut(stops, place, size, 1)

        def against(run, first):
            key, value = (jax.lax.dynamic_slice_in_dim(x, first, run, 2) for x in (keys, values))
            scores = jnp.einsum("bnkh,bnqh->bnkq", key, query, preferred_element_type=jnp.float32) * scale
            visible = _visible(start[:, None], stop[:, None], (first + jnp.arange(run))[:, None])
            share = jnp.exp(jnp.where(visible, scores - log_total, NEVER))
            of_share = jnp.einsum("bnkh,bnqh->bnkq", value, gradient, preferred_element_type=jnp.float32)
            of_scores = (share * (of_share - product) * scale).astype(query.dtype)
            of_query = jnp.einsum("bnkh,bnkq->bnhq", key, of_scores, preferred_element_type=jnp.float32).swapaxes(2, 3)
            of_key = jnp.matmul(of_scores, query, preferred_element_type=jnp.float32)
            of_value = jnp.matmul(share.astype(query.dtype), gradient, preferred_element_type=jnp.float32)
            sums = tuple(
                jax.lax.dynamic_update_slice_in_dim(x, jax.lax.dynamic_slice_in_dim(x, first, run, 2) + more, first, 2)
                for x, more in zip(carry, (of_key, of_value))
            )
            return sums, of_query.astype(query.dtype)

        return _over_run(against, start, stop, keys.shape[2], step)

    zeros = jnp.zeros(keys.shape, jnp.float32)
    (of_keys, of_values), of_queries = jax.lax.scan(one, (zeros, zeros), jnp.arange(queries.shape[2] // size))
    found = (_joined(of_queries), query), (of_keys, key), (of_values, value)
    return tuple(_rows(part)[:, : like.shape[1]].astype(like.dtype) for part, like in found)


def _step(length):
    """Tokens by which runs of keys differ in length."""
    blocks = -(-length // BLOCK)
    return min(BLOCK, length) * -(-blocks // LENGTHS)


def _over_run(against, start, stop, length, step):
    """``against(run, first)`` for the shortest run of keys, ``run`` of them from place ``first`` on, that holds all
    that a block of queries sees."""
    first, count = jnp.min(start) // step, length // step
    needed = jnp.clip(-(-jnp.max(stop) // step) - first, 1, count)

    def branch(steps, first):
        return against(steps * step, jnp.minimum(first, count - steps) * step)

    return jax.lax.switch(needed - 1, [functools.partial(branch, i + 1) for i in range(count)], first)


def _visible(start, stop, index):
    """[B, 1, L, M], or [B, 1, M, L]."""
    return ((index >= start) & (index < stop))[:, None]


def _padded_intervals(start, stop, size):
    # Queries that pad a row to whole blocks see nothing, beside the last of the others.
    after = stop[:, -1:]
    padding = ((0, 0), (0, -start.shape[1] % size))
    places = jnp.arange(start.shape[1] + padding[1][1]) < start.shape[1]
    return tuple(jnp.where(places, jnp.pad(x, padding), after) for x in (start, stop))


def _cut(x, place, size, axis):
    return jax.lax.dynamic_slice_in_dim(x, place * size, size, axis)


def _heads_first(x, size):
    """[B, T, N, H] -> [B, N, T', H], padded with zeros to a multiple of ``size``."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), (0, 0), (0, 0))).swapaxes(1, 2)


def _rows(x):
    """[B, N, T, H] -> [B, T, N, H]."""
    return x.swapaxes(1, 2)


def _joined(blocks):
    """[blocks, B, N, L, ...] -> [B, N, T, ...]."""
    blocks = jnp.moveaxis(blocks, 0, 2)
    return blocks.reshape(*blocks.shape[:2], -1, *blocks.shape[4:])
