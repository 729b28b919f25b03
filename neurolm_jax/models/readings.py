"""Readings of a window: features and spectrum of its electrodes, rhythms of virtual ones, its slow waveform.

Each reading returns one vector for each segment of each row, zero before training. A row holds several segments, tokens
time-major with the same electrodes in every second of a segment. Places of segments that do not exist hold zeros.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from neurolm_jax.models.attention import bidirectional, own_second
from neurolm_jax.models.config import HIGHEST
from neurolm_jax.models.tokenizer import standardise_segments, windowed_spectrum
from neurolm_jax.models.transformer import named

Rows = Mapping[str, jax.Array]  # patches [B, E, 200] in 100 microvolts; channel, second, segment [B, E]
LOWEST = 1  # Hz, from which on power is read
# Edges of the bands in which a virtual electrode's power is read, Hz.
BANDS = (LOWEST, 2, 4, 6, 8, 10, 12, 15, 20, 25, 32, HIGHEST)
STRETCHES = 10  # of a second, whose means are its slow waveform
POWER_FLOOR = 1e-4  # of 100 microvolts squared, times the frequency squared


class FeatureReading(nn.Module):
    """Weights of their own for every electrode and feature; over seconds a mean.

    The weights factor into three tables (a canonical decomposition of the given width), so that their number does not
    grow with electrodes times features.
    """

    width: int
    features: int
    channels: int

    @nn.compact
    def __call__(self, features: jax.Array, eeg: Rows) -> jax.Array:  # [B, E, W_encoder] -> [B, E + 1, W]
        read = ElectrodeFactors(self.width, self.channels, name="factors")(features, eeg["channel"])  # [B, E, width]
        return ZeroProjection(self.features, name="output")(mean_over_seconds(read, eeg["second"], eeg["segment"]))


class SpectrumReading(nn.Module):
    """Weights of their own for every electrode and frequency, over seconds a mean of log power.

    A way past the tokenizer, for what its features lose. The window's level is told apart from its form.
    """

    width: int
    features: int
    channels: int
    noise: float = 0.0

    @nn.compact
    def __call__(self, eeg: Rows, deterministic: bool = True) -> jax.Array:  # [B, E + 1, W]
        patches, channel, second, segment = split_rows(eeg)
        spectrum = whitened_spectrum(patches)
        power = jnp.log(jnp.square(spectrum.real) + jnp.square(spectrum.imag) + POWER_FLOOR)  # [B, E, bins]
        valid = (segment > 0)[..., None]
        tokens = sum_segments(valid.astype(jnp.float32), segment)
        level = sum_segments(power.mean(-1, keepdims=True), segment) / jnp.maximum(tokens, 1)  # [B, E + 1, 1]
        level = jnp.take_along_axis(level, segment[..., None], axis=1)
        read = jnp.concatenate([power - level, level], axis=-1)
        if self.noise and not deterministic:
            read += self.noise * window_noise(self.make_rng("noise"), read, segment, second)
        read = ElectrodeFactors(self.width, self.channels, name="factors")(read, channel)
        return ZeroProjection(self.features, name="output")(mean_over_seconds(read, second, segment))


class RhythmReading(nn.Module):
    """Log power of virtual electrodes in bands: spatial filters that are learnt, as in shallow networks for EEG.

    A virtual electrode is a weighted sum of those that a window has, with weights of norm one. Its power is taken
    after the sum, which no function of single electrodes' features can do, and averaged over seconds. Each frequency
    counts as in a spectrum that falls with its square, and the window's level is removed.
    """

    electrodes: int
    features: int
    channels: int
    noise: float = 0.0

    @nn.compact
    def __call__(self, eeg: Rows, deterministic: bool = True) -> jax.Array:  # [B, E + 1, W]
        patches, channel, second, segment = split_rows(eeg)
        normal = nn.initializers.normal(1.0)
        filters = self.param("filters", named(normal, None, None), (self.channels, self.electrodes), jnp.float32)
        valid = segment > 0
        first = own_second(segment, second).start  # [B, E]: where the token's second begins
        begins = valid & (first == jnp.arange(segment.shape[1]))
        spectrum = whitened_spectrum(patches)
        weights = jnp.where(valid[..., None], filters[channel], 0)  # [B, E, electrodes]

        def power(weight):  # [B, E] of one virtual electrode -> [B, E + 1, bands]
            summed = sum_segments(spectrum * weight[..., None], first)[
                :, :-1
            ]  # [B, E, bins], at a second's first token
            squared = jnp.square(summed.real) + jnp.square(summed.imag)
            bands = jnp.where(begins[..., None], squared, 0) @ _POOL
            norm = sum_segments(jnp.square(weight)[..., None], segment)  # [B, E + 1, 1], in all seconds
            return sum_segments(bands, segment) / jnp.maximum(norm, 1e-9)

        found = jax.lax.map(power, jnp.moveaxis(weights, -1, 0))  # [electrodes, B, E + 1, bands]
        read = jnp.moveaxis(jnp.log(found + POWER_FLOOR), 0, 2).reshape(*found.shape[1:3], -1)
        read -= read.mean(-1, keepdims=True)
        read *= jax.lax.rsqrt(jnp.square(read).mean(-1, keepdims=True) + 1e-6)
        if self.noise and not deterministic:
            read += self.noise * jax.random.normal(self.make_rng("noise"), read.shape)
        there = sum_segments(valid[..., None].astype(jnp.float32), segment) > 0
        read = jnp.where(there.at[:, 0].set(False), read, 0) / np.sqrt(self.electrodes)
        return ZeroProjection(self.features, name="output")(read)


class WaveformReading(nn.Module):
    """Weights of their own for every electrode, second and tenth of a second of the waveform, z-scored in its window.

    For what is locked to the window's beginning, such as potentials after a stimulus; factored as the features' are.
    """

    width: int
    features: int
    channels: int
    seconds: int
    noise: float = 0.0

    @nn.compact
    def __call__(self, eeg: Rows, deterministic: bool = True) -> jax.Array:  # [B, E + 1, W]
        patches, channel, second, segment = split_rows(eeg)
        wave = standardise_segments(patches, segment)
        wave = wave.reshape(*wave.shape[:2], STRETCHES, -1).mean(-1)  # [B, E, stretches]
        if self.noise and not deterministic:
            wave += self.noise * jax.random.normal(self.make_rng("noise"), wave.shape)
        normal = nn.initializers.normal(1.0)
        time = self.param("time", named(normal, None, None), (self.seconds, self.width), jnp.float32)
        read = ElectrodeFactors(self.width, self.channels, name="factors")(wave, channel) * time[second]
        valid = (segment > 0)[..., None]
        tokens = sum_segments(valid.astype(jnp.float32), segment)
        read = sum_segments(jnp.where(valid, read, 0), segment) / jnp.sqrt(jnp.maximum(tokens, 1))
        return ZeroProjection(self.features, name="output")(read.at[:, 0].set(0))


def window_noise(rng: jax.Array, features: jax.Array, segment: jax.Array, second: jax.Array) -> jax.Array:
    """Return normal noise [B, E, W] that is the same in all seconds of an electrode in a window.

    Added to features it does to what is learnt from their means what a ridge penalty does to a regression.

    Args:
      features: [B, E, W], whose shape is wanted; segment, second: [B, E], tokens time-major with the same electrodes in
        every second of a segment.
    """
    here = jnp.arange(segment.shape[1]) - own_second(segment, second).start  # place within the second
    first = bidirectional(segment).start + here
    noise = jax.random.normal(rng, features.shape, features.dtype)
    return jnp.take_along_axis(noise, first[..., None], axis=1)


class ElectrodeFactors(nn.Module):
    """[B, E, F] -> [B, E, width]: a table for features, multiplied by one for electrodes."""

    width: int
    channels: int

    @nn.compact
    def __call__(self, x, channel):
        spread = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        down = self.param("down", named(spread, "embed", None), (x.shape[-1], self.width), jnp.float32)
        normal = nn.initializers.normal(1.0)
        gain = self.param("gain", named(normal, None, None), (self.channels, self.width), jnp.float32)
        return x.astype(jnp.float32) @ down * gain[channel]


class ZeroProjection(nn.Module):
    """[..., width] -> [..., W], by a table that starts at zero."""

    features: int

    @nn.compact
    def __call__(self, x):
        shape = x.shape[-1], self.features
        return x @ self.param("up", named(nn.initializers.zeros, None, "embed"), shape, jnp.float32)


def split_rows(eeg: Rows) -> tuple[jax.Array, ...]:
    """Return patches, channel, second and segment of rows of EEG."""
    return tuple(eeg[name] for name in ("patches", "channel", "second", "segment"))


def whitened_spectrum(patches: jax.Array) -> jax.Array:
    """Fourier coefficients [B, E, 45] of patches, multiplied by their frequency: flat for the usual spectrum of EEG."""
    return windowed_spectrum(patches)[..., LOWEST - 1 : HIGHEST] * np.arange(LOWEST, HIGHEST + 1)


def mean_over_seconds(x: jax.Array, second: jax.Array, segment: jax.Array) -> jax.Array:
    """[B, E, width] -> [B, E + 1, width]: over seconds a mean; over electrodes a sum whose size does not grow with
    their number."""
    valid = (segment > 0)[..., None]
    tokens = sum_segments(valid.astype(jnp.float32), segment)
    electrodes = sum_segments((valid & (second == 0)[..., None]).astype(jnp.float32), segment)
    total = sum_segments(jnp.where(valid, x, 0), segment)
    return (total * jnp.sqrt(electrodes) / jnp.maximum(tokens, 1)).at[:, 0].set(0)


def sum_segments(x: jax.Array, ids: jax.Array) -> jax.Array:
    """Sums of x [B, E, F] over tokens with the same id [B, E] -> [B, E + 1, F], at that id."""
    return jax.vmap(lambda values, places: jax.ops.segment_sum(values, places, ids.shape[1] + 1))(x, ids)


def _pool():
    """[bins, bands]: mean over the bins of each band."""
    frequency = np.arange(LOWEST, HIGHEST + 1)[:, None]
    low, high = np.array(BANDS[:-1]), np.array(BANDS[1:])
    inside = (frequency >= low) & ((frequency < high) | ((high == BANDS[-1]) & (frequency == high)))
    return (inside / inside.sum(0)).astype(np.float32)


_POOL = _pool()
