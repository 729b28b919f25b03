"""Plain XLA, for any device: a loop over blocks of queries, and in it over the blocks of keys that they see."""

import jax
import jax.numpy as jnp

BLOCK = 128
NEVER = -1e30  # a score


def forward(query, key, value, start, stop):
    """See the package."""
    length, scale = query.shape[1], query.shape[-1] ** -0.5
    queries, keys, values = _blocks(query), _blocks(key), _blocks(value)  # [blocks, B, N, L, H]
    size, keys_each = queries.shape[3], keys.shape[3]
    starts, stops = _interval_blocks(start, stop, size)

    def one(block):
        query, start, stop = block
        first, last = _seen(start, stop, keys_each)

        def body(place, carry):
            highest, total, output = carry
            scores, visible = _scores(query, keys[place], start, stop, place * keys_each, scale)
            new = jnp.maximum(highest, scores.max(-1))
            share = jnp.where(visible, jnp.exp(scores - new[..., None]), 0)
            rest = jnp.exp(highest - new)
            more = jnp.matmul(share.astype(value.dtype), values[place], preferred_element_type=jnp.float32)
            return new, total * rest + share.sum(-1), output * rest[..., None] + more

        shape = query.shape[:-1]
        carry = jnp.full(shape, NEVER), jnp.zeros(shape), jnp.zeros(query.shape, jnp.float32)
        highest, total, output = jax.lax.fori_loop(first, last, body, carry)
        nothing = total == 0  # of padding to a whole block
        total = jnp.where(nothing, 1, total)
        return (output / total[..., None]).astype(query.dtype), jnp.where(nothing, -NEVER, highest + jnp.log(total))

    output, log_total = jax.lax.map(one, (queries, starts, stops))
    return _rows(output)[:, :length], _whole(log_total)[:, :, :length]


def backward(query, key, value, start, stop, output, log_total, gradient):
    """See the package."""
    scale = query.shape[-1] ** -0.5
    product = (gradient.astype(jnp.float32) * output).sum(-1).swapaxes(1, 2)  # [B, N, T]
    queries, keys, values, gradients = map(_blocks, (query, key, value, gradient))
    size, keys_each = queries.shape[3], keys.shape[3]
    starts, stops = _interval_blocks(start, stop, size)
    numbers = _parts(log_total, size, -NEVER), _parts(product, size, 0)

    def one(carry, block):
        query, gradient, start, stop, log_total, product = block
        first, last = _seen(start, stop, keys_each)

        def body(place, carry):
            of_query, of_keys, of_values = carry
            scores, visible = _scores(query, keys[place], start, stop, place * keys_each, scale)
            share = jnp.where(visible, jnp.exp(scores - log_total[..., None]), 0)  # [B, N, L, M]
            of_share = jnp.einsum("bnqh,bnkh->bnqk", gradient, values[place], preferred_element_type=jnp.float32)
            of_scores = (share * (of_share - product[..., None]) * scale).astype(query.dtype)
            share = share.astype(query.dtype)
            of_query += jnp.matmul(of_scores, keys[place], preferred_element_type=jnp.float32)
            more = jnp.einsum("bnqk,bnqh->bnkh", of_scores, query, preferred_element_type=jnp.float32)
            of_keys = of_keys.at[place].add(more)
            more = jnp.einsum("bnqk,bnqh->bnkh", share, gradient, preferred_element_type=jnp.float32)
            return of_query, of_keys, of_values.at[place].add(more)

        found = jax.lax.fori_loop(first, last, body, (jnp.zeros(query.shape, jnp.float32), *carry))
        return found[1:], found[0]

    zeros = jnp.zeros(keys.shape, jnp.float32)
    blocks = queries, gradients, starts, stops, *numbers
    (of_keys, of_values), of_queries = jax.lax.scan(one, (zeros, zeros), blocks)
    found = [(of_queries, query), (of_keys, key), (of_values, value)]
    return tuple(_rows(part)[:, : like.shape[1]].astype(like.dtype) for part, like in found)


def _scores(query, key, start, stop, first, scale):
    """Scores [B, N, L, M] float32 against the keys from place ``first`` on, and which are visible [B, 1, L, M]."""
    scores = jnp.einsum("bnqh,bnkh->bnqk", query, key, preferred_element_type=jnp.float32) * scale
    index = first + jnp.arange(key.shape[2])
    visible = (index >= start[:, None, :, None]) & (index < stop[:, None, :, None])
    return jnp.where(visible, scores, NEVER), visible


def _seen(start, stop, size):
    """First and last block of keys that a block of queries needs, of all rows."""
    return jnp.min(start) // size, -(-jnp.max(stop) // size)


def _interval_blocks(start, stop, size):
    # Queries that pad a row to whole blocks see nothing, beside the last of the others.
    after = stop[:, -1:]
    padding = ((0, 0), (0, -start.shape[1] % size))
    places = jnp.arange(start.shape[1] + padding[1][1]) < start.shape[1]
    start, stop = (jnp.where(places, jnp.pad(x, padding), after) for x in (start, stop))
    return tuple(x.reshape(len(x), -1, size).swapaxes(0, 1) for x in (start, stop))


def _blocks(x):
    """[B, T, N, H] -> [blocks, B, N, L, H], padded with zeros."""
    size = min(BLOCK, x.shape[1])
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), (0, 0), (0, 0)))
    return x.reshape(len(x), -1, size, *x.shape[2:]).transpose(1, 0, 3, 2, 4)


def _rows(x):
    """The inverse of ``_blocks``, with its padding."""
    return x.transpose(1, 0, 3, 2, 4).reshape(x.shape[1], -1, x.shape[2], x.shape[4])


def _parts(x, size, filling):
    """[B, N, T] -> [blocks, B, N, L]."""
    x = jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % size)), constant_values=filling)
    return jnp.moveaxis(x.reshape(*x.shape[:2], -1, size), 2, 0)


def _whole(x):
    """[blocks, B, N, L] -> [B, N, T]."""
    return jnp.moveaxis(x, 0, 2).reshape(*x.shape[1:3], -1)
