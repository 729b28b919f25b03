"""The text-aligned neural tokenizer: VQ temporal-frequency prediction (paper, section 2.2)."""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from neurolm_jax.models.config import HIGHEST, PATCH_SAMPLES, SPECTRUM_BINS, TokenizerConfig
from neurolm_jax.models.neural_transformer import NeuralTransformer
from neurolm_jax.models.placement import over_devices
from neurolm_jax.models.quantizer import CODEBOOK_AXES, Codebook, create_codebook, normalise
from neurolm_jax.models.transformer import Linear

# Added to the power of a patch in 100 microvolts: that of a sine of 0.02 microvolts, far below any amplifier's noise.
POWER_FLOOR = 1e-4
LEAST_VARIANCE = 0.05  # of log power; that of EEG is about 1


class Encoding(NamedTuple):
    """features [B, T, W] of the encoder; z [B, T, D] projected, before it is normalised."""

    features: jax.Array
    z: jax.Array


class TokenizerState(NamedTuple):
    """What the tokenizer gathers while it trains: the codebook, and the moving mean and variance of each feature [W]
    and of the log power in each bin [100]."""

    codebook: Codebook
    feature_mean: jax.Array
    feature_variance: jax.Array
    spectrum_mean: jax.Array
    spectrum_variance: jax.Array


def create_tokenizer_state(config: TokenizerConfig, rng: jax.Array) -> TokenizerState:
    """Random codes, and statistics that change nothing."""
    codebook = create_codebook(rng, config.codes, config.code_width)
    width, bins = config.encoder.width, SPECTRUM_BINS
    return TokenizerState(codebook, jnp.zeros(width), jnp.ones(width), jnp.zeros(bins), jnp.ones(bins))


def with_axes(state: TokenizerState) -> TokenizerState:
    """The same, the codebook's vectors boxed with the names of their axes, as new parameters are."""
    vectors = nn.LogicallyPartitioned(state.codebook.vectors, CODEBOOK_AXES)
    return state._replace(codebook=state.codebook._replace(vectors=vectors))


class Tokenizer(nn.Module):
    """Encoder and projection to code space, two decoders with their heads, domain classifier."""

    config: TokenizerConfig

    def setup(self) -> None:
        c = self.config
        width = c.encoder.width
        decoder = dataclasses.replace(c.encoder, layers=c.decoder_layers, causal=False)
        self.encoder = NeuralTransformer(c.encoder)
        self.code_projection = TanhHead(c.code_width, width, jax.lax.Precision.HIGHEST)  # it decides codes
        self.decoder_frequency = NeuralTransformer(decoder, from_patches=False)
        self.decoder_raw = NeuralTransformer(decoder, from_patches=False)
        self.head_frequency = TanhHead(SPECTRUM_BINS, width)
        self.head_raw = TanhHead(PATCH_SAMPLES, width)
        if c.spectrum_head:
            self.spectrum_head = Linear(SPECTRUM_BINS, ("embed", None))
        self.domain_hidden = Linear(c.domain_width, ("embed", None))
        self.domain_output = Linear(2, (None, None))

    def encode(self, patches: jax.Array, channel: jax.Array, second: jax.Array, segment: jax.Array) -> Encoding:
        """patches [B, T, 200] in 100 microvolts, ids [B, T] -> Encoding. The projection runs in float32."""
        features = self.encoder(patches, channel, second, segment)
        return Encoding(features, self.code_projection(features.astype(jnp.float32)))

    def decode(
        self, vectors: jax.Array, channel: jax.Array, second: jax.Array, segment: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Code vectors [B, T, D] -> predicted spectra [B, T, 100] and patches [B, T, 200], both z-scored."""
        ids = channel, second, segment
        frequency = self.decoder_frequency(vectors, *ids).astype(jnp.float32)
        raw = self.decoder_raw(vectors, *ids).astype(jnp.float32)
        return self.head_frequency(frequency), self.head_raw(raw)

    def feature_spectrum(self, features: jax.Array) -> jax.Array:
        """Log power as a linear function of the features themselves [..., W] -> [..., 100], standardised."""
        return self.spectrum_head(features.astype(jnp.float32))

    def domain_logits(self, x: jax.Array) -> jax.Array:
        """Is x [..., W] EEG (class 0) or text (class 1)? -> [..., 2]."""
        return self.domain_output(jax.nn.gelu(self.domain_hidden(x.astype(jnp.float32)), approximate=False))

    def __call__(self, patches, channel, second, segment):
        """All parts once, for initialisation."""
        encoding = self.encode(patches, channel, second, segment)
        rebuilt = self.decode(normalise(encoding.z), channel, second, segment)
        spectrum = self.feature_spectrum(encoding.features) if self.config.spectrum_head else None
        return encoding, rebuilt, spectrum, self.domain_logits(encoding.features)


class TanhHead(nn.Module):
    """Linear, tanh, Linear."""

    features: int
    width: int
    precision: jax.lax.Precision | None = None  # of both products

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.tanh(Linear(self.width, ("embed", "mlp"), precision=self.precision, name="hidden")(x))
        return Linear(self.features, ("mlp", None), precision=self.precision, name="output")(x)


@jax.custom_vjp
def reverse_gradient(x: jax.Array, strength: jax.Array) -> jax.Array:
    """Identity whose gradient is multiplied by ``-strength`` (domain-adversarial training)."""
    return x


reverse_gradient.defvjp(
    lambda x, strength: (x, strength),
    lambda strength, gradient: ((-strength * gradient).astype(gradient.dtype), jnp.zeros_like(strength)),
)


def reconstruction_targets(
    config: TokenizerConfig, state: TokenizerState, patches: jax.Array, segment: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return what the decoders predict: spectra [B, T, 100] and patches [B, T, 200].

    The patches, and the paper's amplitude spectra, are z-scored over their whole segment, of which a constant one gives
    zeros. Log power is standardised in each bin by the state's statistics and then centred in each patch: amplifiers
    and heads differ more in level than in anything else, and codes would tell little more than that.

    Args:
      patches: [B, T, 200]; segment: [B, T], 0 is padding.
    """
    raw = standardise_segments(patches, segment)
    if config.spectrum_target == "log_power":
        power = standard_log_power(state, patches)
        level = power.sum(-1, keepdims=True) / HIGHEST
        return jnp.where(np.arange(1, SPECTRUM_BINS + 1) <= HIGHEST, power - level, 0), raw
    return amplitude_spectra(patches, segment), raw


def standard_log_power(state: TokenizerState, patches: jax.Array) -> jax.Array:
    """Log power [..., 100] of patches [..., 200], each bin standardised by the state's statistics; 0 above ``HIGHEST``.

    Bins that hold nothing, above a recording's pass band, vary by less than ``LEAST_VARIANCE`` and stay near zero.
    """
    power = (log_power(patches) - state.spectrum_mean) * jax.lax.rsqrt(state.spectrum_variance + LEAST_VARIANCE)
    return jnp.where(np.arange(1, SPECTRUM_BINS + 1) <= HIGHEST, power, 0)


def amplitude_spectra(patches: jax.Array, segment: jax.Array) -> jax.Array:
    """Amplitude spectra of patches [B, T, 200], z-scored over all 200 bins of their segment [B, T] -> [B, T, 100]."""
    names = ("batch", "length", None)
    # Each device its own: XLA would bring all patches together for a Fourier transform.
    spectra = over_devices(lambda _, x: jnp.abs(jnp.fft.fft(x, axis=-1)), [names], [lambda spec: spec], patches)
    return standardise_segments(spectra, segment)[..., :SPECTRUM_BINS]


def log_power(patches: jax.Array) -> jax.Array:
    """Log power of each patch at 1 to 100 Hz: [..., 200] in 100 microvolts -> [..., 100]."""
    return jnp.log(jnp.square(jnp.abs(windowed_spectrum(patches))) + POWER_FLOOR)


def windowed_spectrum(patches: jax.Array) -> jax.Array:
    """Fourier coefficients of patches at 1 to 100 Hz: [..., 200] -> complex [..., 100].

    The mean is removed and a Hann window applied, so that slow waves do not leak into every bin.
    """
    window = jnp.asarray(np.hanning(PATCH_SAMPLES), jnp.float32)
    names = ("batch", "length", None)

    def local(_, x):
        return jnp.fft.rfft((x - x.mean(-1, keepdims=True)) * window, axis=-1)[..., 1:]

    return over_devices(local, [names], [lambda spec: spec], patches)


def standardise_segments(x: jax.Array, segment: jax.Array) -> jax.Array:
    """z-score of x [B, T, F] over all that has the same segment [B, T], with the unbiased deviation."""

    def row(x, segment):
        def total(values):
            return jax.ops.segment_sum(values, segment, len(segment) + 1)[segment]  # [T]

        count = jnp.maximum(total(jnp.full(len(x), x.shape[-1], jnp.float32)), 2)
        centred = x - (total(x.sum(-1)) / count)[:, None]
        deviation = jnp.sqrt(total(jnp.square(centred).sum(-1)) / (count - 1))[:, None]
        # Below a thousandth of a microvolt there is nothing but rounding.
        return jnp.where(deviation > 1e-5, centred / jnp.maximum(deviation, 1e-5), 0)

    return jax.vmap(row)(x, segment)
