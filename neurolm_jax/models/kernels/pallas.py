"""Pallas kernels, for TPUs (Mosaic) and for GPUs (Triton) alike; ``interpret`` runs them anywhere.

A program has one block of queries (or of keys, for their gradients) and goes over the blocks on the other side that it
has to do with, whose whole row is at hand. Scores are kept as [keys, queries], so that what belongs to a query is a row
of numbers: no array has a short last axis, which TPUs would pad to 128. Triton takes powers of two alone, so that
heads of any other width are padded with zeros, which change no score.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

NEVER = -1e30  # a score
BLOCKS = {"tpu": 512, "gpu": 64}
LEAST_WIDTH = 16  # of a head: the smallest that matrix units of GPUs multiply
SAME = (((1,), (1,)), ((), ()))  # [a, h], [b, h] -> [a, b]
PLAIN = (((1,), (0,)), ((), ()))  # [a, k], [k, b] -> [a, b]
FIRST = (((0,), (0,)), ((), ()))  # [k, a], [k, b] -> [a, b]


def forward(query, key, value, start, stop, platform, interpret):
    """See the package."""
    call = _Call(query, key, start, stop, platform, interpret)
    first, last = call.keys_seen()
    shapes = [call.like_queries(query.dtype), call.a_number_each()]
    kernel = functools.partial(_forward, scale=query.shape[-1] ** -0.5, size=call.keys_each)
    specs = [call.block("query"), call.row("key"), call.row("key")]
    run = call.make(kernel, "query", ["numbers", "numbers", *specs], [call.block("query"), "numbers"], shapes)
    arrays = call.queries(query), call.keys(key), call.keys(value)
    output, log_total = run(first, last, *call.intervals, *arrays)
    return call.unpadded(output, query), log_total[:, :, 0, : query.shape[1]]


def backward(query, key, value, start, stop, output, log_total, gradient, platform, interpret):
    """See the package."""
    call = _Call(query, key, start, stop, platform, interpret)
    scale = query.shape[-1] ** -0.5
    product = (gradient.astype(jnp.float32) * output).sum(-1).swapaxes(1, 2)  # [B, N, T]
    numbers = call.numbers(log_total, -NEVER), call.numbers(product, 0)
    arrays = call.queries(query), call.queries(gradient), call.keys(key), call.keys(value)

    kernel = functools.partial(_backward_queries, scale=scale, size=call.keys_each)
    specs = ["numbers"] * 4 + [call.block("query")] * 2 + [call.row("key")] * 2
    run = call.make(kernel, "query", specs, [call.block("query")], [call.like_queries(query.dtype)])
    [of_query] = run(*call.keys_seen(), *call.intervals, *numbers, *arrays)

    kernel = functools.partial(_backward_keys, scale=scale, size=call.queries_each)
    specs = ["row numbers"] * 4 + [call.row("query")] * 2 + [call.block("key")] * 2
    shapes = [call.like_keys(key.dtype), call.like_keys(value.dtype)]
    run = call.make(kernel, "key", specs, [call.block("key")] * 2, shapes)
    of_key, of_value = run(*call.queries_concerned(), *call.intervals, *numbers, *arrays)
    return call.unpadded(of_query, query), call.unpadded(of_key, key), call.unpadded(of_value, value)


def _forward(first, last, start, stop, query, key, value, output, log_total, *, scale, size):
    """Of one block of L queries."""
    mine, (width, count) = query[...], query.shape[::-1]
    begin, end = start[...], stop[...]  # [1, L]

    def body(place, carry):
        highest, total, sums = carry
        here = pl.ds(place * size, size)
        scores, visible = _scores(key[here, :], mine, begin, end, place * size, scale)
        new = jnp.maximum(highest, scores.max(0, keepdims=True))
        share = jnp.where(visible, jnp.exp(scores - new), 0.0)
        rest = jnp.exp(highest - new)
        more = _dot(value[here, :], share.astype(value.dtype), FIRST)  # [H, L]
        return new, total * rest + share.sum(0, keepdims=True), sums * rest + more

    numbers = jnp.full((1, count), NEVER, jnp.float32), jnp.zeros((1, count), jnp.float32)
    carry = *numbers, jnp.zeros((width, count), jnp.float32)
    highest, total, sums = _loop(first, last, body, carry)
    nothing = total == 0.0
    total = jnp.where(nothing, 1.0, total)
    output[...] = (sums / total).T.astype(output.dtype)
    log_total[...] = jnp.where(nothing, -NEVER, highest + jnp.log(total))


def _backward_queries(first, last, start, stop, log_total, product, query, gradient, key, value, found, *, scale, size):
    """The gradient of one block of L queries."""
    mine, given = query[...], gradient[...]
    begin, end, log_total, product = start[...], stop[...], log_total[...], product[...]

    def body(place, sums):
        here = pl.ds(place * size, size)
        keys = key[here, :]
        scores, visible = _scores(keys, mine, begin, end, place * size, scale)
        share = jnp.where(visible, jnp.exp(scores - log_total), 0.0)
        of_scores = share * (_dot(value[here, :], given, SAME) - product) * scale
        return sums + _dot(keys, of_scores.astype(keys.dtype), FIRST)  # [H, L]

    sums = _loop(first, last, body, jnp.zeros(mine.shape[::-1], jnp.float32))
    found[...] = sums.T.astype(found.dtype)


def _backward_keys(
    first, last, start, stop, log_total, product, query, gradient, key, value, of_key, of_value, *, scale, size
):
    """The gradients of one block of M keys and their values."""
    keys, values = key[...], value[...]
    begin_at = pl.program_id(2) * keys.shape[0]

    def body(place, carry):
        here = pl.ds(place * size, size)
        queries, given = query[here, :], gradient[here, :]
        numbers = [x[:, here] for x in (start, stop, log_total, product)]  # [1, L]
        begin, end, total, products = numbers
        scores, visible = _scores(keys, queries, begin, end, begin_at, scale)
        share = jnp.where(visible, jnp.exp(scores - total), 0.0)  # [M, L]
        of_scores = share * (_dot(values, given, SAME) - products) * scale
        more = _dot(of_scores.astype(queries.dtype), queries, PLAIN)
        more_values = _dot(share.astype(given.dtype), given, PLAIN)
        return carry[0] + more, carry[1] + more_values

    zeros = jnp.zeros(keys.shape, jnp.float32)
    found = _loop(first, last, body, (zeros, zeros))
    of_key[...], of_value[...] = found[0].astype(of_key.dtype), found[1].astype(of_value.dtype)


def _scores(keys, queries, start, stop, first, scale):
    """Scores [M, L] of keys [M, H] from place ``first`` on, and which are visible to queries with [1, L] intervals."""
    scores = _dot(keys, queries, SAME) * scale
    index = first + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    visible = (index >= start) & (index < stop)
    return jnp.where(visible, scores, NEVER), visible


def _dot(a, b, dimensions):
    # Products of bfloat16 numbers are exact; those of float32 have the precision that the program asks for.
    precision = None if a.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    return jax.lax.dot_general(a, b, dimensions, precision, preferred_element_type=jnp.float32)


def _loop(first, last, body, carry):
    """Over this program's run of blocks."""
    row, block = pl.program_id(0), pl.program_id(2)
    return jax.lax.fori_loop(first[row, block], last[row, block], body, carry)


class _Call:
    """Shapes and block specs of one attention. Arrays are [B, N, T, H], numbers of queries [B, N or 1, 1, T]."""

    def __init__(self, query, key, start, stop, platform, interpret):
        self._platform, self._interpret = platform, interpret
        self.batch, length, self.heads, width = query.shape
        self.width = max(LEAST_WIDTH, 1 << (width - 1).bit_length())
        self.queries_each = self.keys_each = BLOCKS[platform]
        self.lengths = {"query": _whole(length, self.queries_each), "key": _whole(key.shape[1], self.keys_each)}
        # Queries that pad a row to whole blocks come after all others, and see nothing.
        padding = ((0, 0), (0, self.lengths["query"] - length))
        start = jnp.pad(start, padding, constant_values=self.lengths["key"])
        self.intervals = [x.astype(jnp.int32)[:, None, None] for x in (start, jnp.pad(stop, padding, mode="edge"))]

    def keys_seen(self):
        """First and last block of keys of each row and block of queries, [B, blocks]."""
        start, stop = (x[:, 0, 0] for x in self.intervals)
        first, last = start[:, :: self.queries_each], stop[:, self.queries_each - 1 :: self.queries_each]
        return first // self.keys_each, -(-last // self.keys_each)

    def queries_concerned(self):
        """First and last block of queries of each row and block of keys, [B, blocks]."""
        start, stop = (x[:, 0] for x in self.intervals)
        begin = jnp.arange(0, self.lengths["key"], self.keys_each)[:, None]
        first = (stop <= begin).sum(-1) // self.queries_each
        return first.astype(jnp.int32), -(-(start < begin + self.keys_each).sum(-1) // self.queries_each)

    def queries(self, x):
        return self._whole_blocks(x, "query")

    def keys(self, x):
        return self._whole_blocks(x, "key")

    def unpadded(self, x, like):
        """An array of the kernels as it is outside of them: [B, N, T', H'] -> the shape of ``like`` [B, T, N, H]."""
        return x.swapaxes(1, 2)[:, : like.shape[1], :, : like.shape[3]]

    def numbers(self, x, filling):
        padding = self.lengths["query"] - x.shape[-1]
        return jnp.pad(x, ((0, 0), (0, 0), (0, padding)), constant_values=filling)[:, :, None]

    def like_queries(self, dtype):
        return jax.ShapeDtypeStruct((self.batch, self.heads, self.lengths["query"], self.width), dtype)

    def like_keys(self, dtype):
        return jax.ShapeDtypeStruct((self.batch, self.heads, self.lengths["key"], self.width), dtype)

    def a_number_each(self):
        return jax.ShapeDtypeStruct((self.batch, self.heads, 1, self.lengths["query"]), jnp.float32)

    def block(self, side):
        """This program's block."""
        size = self.queries_each if side == "query" else self.keys_each
        return pl.BlockSpec((None, None, size, self.width), lambda b, n, i: (b, n, i, 0))

    def row(self, side):
        """The whole row."""
        return pl.BlockSpec((None, None, self.lengths[side], self.width), lambda b, n, i: (b, n, 0, 0))

    def make(self, kernel, side, inputs, outputs, shapes):
        """The kernel over all rows, heads and blocks; its first two inputs are the bounds of ``_loop``."""
        blocks = self.lengths[side] // (self.queries_each if side == "query" else self.keys_each)
        # Intervals are the same for all heads.
        numbers = [self._numbers(spec, shared=place < 2) for place, spec in enumerate(inputs)]
        options = {}
        bounds = pl.BlockSpec()
        if self._platform == "tpu":
            from jax.experimental.pallas import tpu

            bounds = pl.BlockSpec(memory_space=tpu.SMEM)
            semantics = ("parallel", "parallel", "arbitrary")
            options["compiler_params"] = tpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=64 * 2**20)
        elif self._platform == "gpu":
            from jax.experimental.pallas import triton

            options["compiler_params"] = triton.CompilerParams(num_warps=4, num_stages=2)
        return pl.pallas_call(
            kernel,
            grid=(self.batch, self.heads, blocks),
            in_specs=[bounds, bounds, *numbers],
            out_specs=[self._numbers(spec) for spec in outputs],
            out_shape=shapes,
            interpret=self._interpret,
            name=f"interval_attention{kernel.func.__name__}",
            **options,
        )

    def _numbers(self, spec, shared=False):
        """What ``numbers`` (of a block of queries) and ``row numbers`` (of all) stand for."""
        if isinstance(spec, pl.BlockSpec):
            return spec
        size, whole = (self.queries_each, False) if spec == "numbers" else (self.lengths["query"], True)
        return pl.BlockSpec((None, None, 1, size), lambda b, n, i: (b, 0 if shared else n, 0, 0 if whole else i))

    def _whole_blocks(self, x, side):
        padding = (0, self.lengths[side] - x.shape[1]), (0, 0), (0, self.width - x.shape[3])
        return jnp.pad(x, ((0, 0), *padding)).swapaxes(1, 2)


def _whole(length, size):
    return -(-length // size) * size
