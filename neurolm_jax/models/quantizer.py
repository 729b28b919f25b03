"""Vector quantizer on the unit sphere with moving-average codes (paper, section 2.2).

The codebook is explicit state, not a parameter: every function takes and returns it. Statistics count valid vectors
only. Sums run over the whole (global) batch, so that on a mesh they are the same for any number of devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from neurolm_jax.models.placement import gather, on_every_device, over_devices, sum_over

CODEBOOK_AXES = ("codes", None)  # axes of a codebook
KMEANS_ROUNDS = 10


class Codebook(NamedTuple):
    """vectors [K, D] unit norm; usage [K] moving average of assignments per step; initialised [] bool."""

    vectors: jax.Array
    usage: jax.Array
    initialised: jax.Array


def create_codebook(rng: jax.Array, codes: int, width: int) -> Codebook:
    """Random unit vectors, to be replaced by those of ``kmeans``."""
    vectors = normalise(jax.random.normal(rng, (codes, width)))
    return Codebook(vectors, jnp.zeros(codes), jnp.zeros((), bool))


def normalise(x: jax.Array) -> jax.Array:
    """L2-normalise the last axis; a zero vector stays zero and has a zero gradient."""
    square = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def nearest(vectors: jax.Array, z: jax.Array) -> jax.Array:
    """Index of the nearest code: [K, D], [N, D] unit vectors -> [N]. On the sphere that is the largest product."""
    vectors = gather(vectors, CODEBOOK_AXES, jnp.float32)
    return jnp.argmax(jnp.matmul(z, vectors.T, precision=jax.lax.Precision.HIGHEST), axis=-1)


def quantize(vectors: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Codes [N], straight-through vectors [N, D] and the commitment error [N] of unit vectors z [N, D]."""
    codes = nearest(vectors, jax.lax.stop_gradient(z))
    chosen = gather(vectors, CODEBOOK_AXES, jnp.float32)[codes]
    return codes, z + jax.lax.stop_gradient(chosen - z), jnp.square(chosen - z).mean(-1)


def kmeans(z: jax.Array, valid: jax.Array, rng: jax.Array, codes: int, parts: int = 1) -> Codebook:
    """A first codebook by spherical k-means on unit vectors z [N, D], valid [N].

    Scores [N, codes] of all vectors at once may be more than a device holds: they are made in so many ``parts``.
    """
    # Vector r is in part r % parts, so that every device keeps its own.
    chunks = z.reshape(-1, parts, z.shape[-1]).swapaxes(0, 1)  # [parts, N / parts, D]

    def round_(_, vectors):
        if parts == 1:
            return _mean_directions(vectors, z, nearest(vectors, z), valid)[0]
        codes = jax.lax.map(lambda chunk: nearest(vectors, chunk), chunks).swapaxes(0, 1).reshape(-1)
        return _mean_directions(vectors, z, codes, valid)[0]

    vectors = jax.lax.fori_loop(0, KMEANS_ROUNDS, round_, _draw(z, valid, rng, codes))
    return Codebook(vectors, jnp.full(codes, valid.sum() / codes, jnp.float32), jnp.ones((), bool))


def update(
    codebook: Codebook,
    z: jax.Array,  # [N, D] unit vectors
    codes: jax.Array,  # [N]
    valid: jax.Array,  # [N] bool
    rng: jax.Array,
    *,
    decay: float,
    dead_below: float,
) -> tuple[Codebook, jax.Array]:
    """One moving-average step; codes used less than ``dead_below`` of the mean are replaced by vectors of the batch.

    Returns the new codebook and the number of codes revived.
    """
    mean, counts = _mean_directions(codebook.vectors, z, codes, valid)
    vectors = normalise(decay * codebook.vectors + (1 - decay) * mean)
    usage = decay * codebook.usage + (1 - decay) * counts

    dead = usage < dead_below * usage.mean()
    vectors = jnp.where(dead[:, None], _draw(z, valid, rng, len(vectors)), vectors)
    usage = jnp.where(dead, usage.mean(), usage)
    return Codebook(vectors, usage, codebook.initialised), dead.sum()


def used_and_perplexity(counts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Share of codes used at least once, and exp of the entropy, of code counts [K]."""
    p = counts / jnp.maximum(counts.sum(), 1)
    entropy = -jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1)), 0).sum()
    return (counts > 0).mean(), jnp.exp(entropy)


def second_moments(z: jax.Array, valid: jax.Array) -> jax.Array:
    """Sums over valid vectors of all products of (z, 1) with itself: [N, D], [N] -> [D + 1, D + 1].

    The last row holds the vectors' sum and their number. Moments of several batches add up.
    """
    z = jnp.concatenate([z, jnp.ones((len(z), 1), z.dtype)], axis=1)
    z = jnp.where(valid[:, None], z, 0).astype(jnp.float32)
    return z.T @ z


def rank(moments: jax.Array) -> jax.Array:
    """Effective number of dimensions that vectors fill, from their second moments: the participation ratio.

    That is trace(C)^2 / trace(C^2) of their covariance C, between 1 and D; 0 where they do not vary.
    """
    count = jnp.maximum(moments[-1, -1], 1)
    mean = moments[:-1, -1] / count
    covariance = moments[:-1, :-1] / count - jnp.outer(mean, mean)
    return jnp.square(jnp.trace(covariance)) / jnp.maximum(jnp.square(covariance).sum(), 1e-12)


def count_codes(codes: jax.Array, valid: jax.Array, size: int) -> jax.Array:
    """How often each of ``size`` codes occurs among the valid ones: [N], [N] -> [K] float32."""
    return _sums(valid.astype(jnp.float32)[:, None], codes, size)[:, 0]


def _mean_directions(vectors, z, codes, valid):
    """Normalised mean of the vectors assigned to each code (a code with none keeps its own), and the counts."""
    counts = count_codes(codes, valid, len(vectors))
    sums = _sums(jnp.where(valid[:, None], z, 0), codes, len(vectors))
    return jnp.where(counts[:, None] > 0, normalise(sums), vectors), counts


def _draw(z, valid, rng, count):
    """``count`` vectors drawn evenly from the valid rows of z, with replacement."""
    rank = jax.random.randint(rng, (count,), 0, jnp.maximum(valid.sum(), 1))

    def local(axes, z, valid, rank):
        _, (places,), _ = axes
        cumulative = jnp.cumsum(valid)
        if not places:
            return z[jnp.searchsorted(cumulative, rank, side="right")]
        counts = jax.lax.all_gather(cumulative[-1], places)
        rank -= jnp.where(jnp.arange(len(counts)) < jax.lax.axis_index(places), counts, 0).sum()
        chosen = z[jnp.searchsorted(cumulative, rank, side="right")]
        return jax.lax.psum(jnp.where(((rank >= 0) & (rank < cumulative[-1]))[:, None], chosen, 0), places)

    return over_devices(local, [("batch", None), ("batch",), (None,)], [on_every_device], z, valid, rank)


def _sums(values, ids, count):
    """Sum of the values [N, D] of each of ``count`` ids [N]: [count, D], over all devices."""

    def local(axes, values, ids):
        return sum_over(jax.ops.segment_sum(values, ids, count), axes[0])

    return over_devices(local, [("batch", None), ("batch",)], [on_every_device], values, ids)
