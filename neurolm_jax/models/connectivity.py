"""Reading of a window's partial correlations: what electrodes share beyond what all the others explain."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from neurolm_jax.models.attention import bidirectional, own_second
from neurolm_jax.models.config import HIGHEST
from neurolm_jax.models.readings import LOWEST, Rows, ZeroProjection, split_rows, sum_segments
from neurolm_jax.models.tokenizer import windowed_spectrum
from neurolm_jax.models.transformer import named

SHRINKAGE = 1e-2  # of the mean power of the window's electrodes, added to that of each
# How much both vary from window to window, so that noise is in units of their own.
PAIR_DEVIATION, SINGLE_DEVIATION = 0.2, 0.75


class ConnectivityReading(nn.Module):
    """Read partial correlations of a window's electrodes, and the power of each that no other electrode explains.

    Both follow from the inverse of the covariance at 1 to 45 Hz. It holds what Riemannian methods read from the
    covariance's logarithm (Barachant et al. 2012), and needs no decomposition. The weight of a pair of electrodes is a
    sum of products of two tables for electrodes.
    """

    rank: int
    features: int
    channels: int
    noise: float = 0.0

    @nn.compact
    def __call__(self, eeg: Rows, deterministic: bool = True) -> jax.Array:  # [B, E + 1, W]
        patches, channel, second, segment = split_rows(eeg)
        normal, shape = named(nn.initializers.normal(1.0), None, None), (self.channels, self.rank)
        left, right, gain = (self.param(name, normal, shape, jnp.float32) for name in ("left", "right", "gain"))
        stands = (segment > 0) & (second == 0)  # [B, E]: the tokens that stand for a window's electrodes
        pairs, single = partial_correlations(windowed_spectrum(patches)[..., LOWEST - 1 : HIGHEST], second, segment)
        if self.noise and not deterministic:
            rng = self.make_rng("noise")
            pairs += self.noise * PAIR_DEVIATION * jax.random.normal(jax.random.fold_in(rng, 0), pairs.shape)
            single += self.noise * SINGLE_DEVIATION * jax.random.normal(jax.random.fold_in(rng, 1), single.shape)
        same = (segment[:, :, None] == segment[:, None, :]) & stands[:, :, None] & stands[:, None, :]
        pairs = jnp.where(same & ~jnp.eye(segment.shape[1], dtype=bool), pairs, 0)  # [B, E, E]
        read = (pairs @ right[channel]) * left[channel] / PAIR_DEVIATION  # [B, E, rank]
        read += single[..., None] * gain[channel] / SINGLE_DEVIATION
        stands = stands[..., None]
        count = sum_segments(stands.astype(jnp.float32), segment)  # electrodes of each window
        total = sum_segments(jnp.where(stands, read, 0), segment) / jnp.maximum(count, 1)
        return ZeroProjection(self.features, name="output")(total.at[:, 0].set(0))


def partial_correlations(spectrum: jax.Array, second: jax.Array, segment: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Relate the electrodes of each window over its seconds and frequencies.

    The covariance has ``SHRINKAGE`` times its mean diagonal added to the diagonal. An electrode is represented by its
    token in the window's first second.

    Args:
      spectrum: [B, E, F] Fourier coefficients of each token.
      second, segment: [B, E] second inside the window, and its number; 0 is padding.

    Returns:
      [B, E, E] Fisher's z of 0.99 times the partial correlation of two electrodes given all others of the window, at
      their tokens; [B, E] log of the power of each that the others do not explain, as a fraction of the window's mean
      power. Other places hold no meaning.
    """
    size = spectrum.shape[1]
    valid = segment > 0
    first = own_second(segment, second).start  # [B, E]: where the token's second begins
    electrode = bidirectional(segment).start + jnp.arange(size) - first
    ids = jnp.where(valid, electrode, size)  # [B, E]: the token that stands for this one's electrode
    together = (first[:, :, None] == first[:, None, :]) & valid[:, :, None] & valid[:, None, :]
    products = spectrum.real @ spectrum.real.mT + spectrum.imag @ spectrum.imag.mT  # [B, E, E]
    products = jnp.where(together, products, 0)
    rows = sum_segments(products, ids)[:, :-1]  # summed over the seconds of the one electrode,
    covariance = sum_segments(rows.mT, ids)[:, :-1]  # then of the other

    stands = valid & (second == 0)
    power = jnp.where(stands, jnp.diagonal(covariance, axis1=1, axis2=2), 0)
    moments = sum_segments(jnp.stack([power, stands.astype(jnp.float32)], -1), segment)
    level = jnp.take_along_axis(moments[..., 0] / jnp.maximum(moments[..., 1], 1), segment, axis=1)  # [B, E]
    level = jnp.where(stands & (level > 0), level, 1)
    # Tokens that stand for no electrode are uncorrelated with all.
    identity = jnp.eye(size)
    shrunk = covariance / level[:, :, None] + jnp.where(stands, SHRINKAGE, 1)[..., None] * identity
    inverse = jnp.linalg.inv(shrunk)
    own = jnp.diagonal(inverse, axis1=1, axis2=2)
    partial = -inverse * jax.lax.rsqrt(own[:, :, None] * own[:, None, :])
    return jnp.arctanh(0.99 * jnp.clip(partial, -1, 1)), -jnp.log(own)
