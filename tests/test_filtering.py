"""One pass over stretches gives what MNE's filter, notch_filter and resample give over the whole recording."""

import mne
import numpy as np
import pytest

from neurolm_jax.eeg.filtering import Filter, interpolate
from neurolm_jax.eeg.mains import detect_mains


def background(rate, seconds, channels=3, mains=50.0):
    """Microvolts with EEG's slope, drift of an electrode, an offset as of a DC amplifier, and hum."""
    rng = np.random.default_rng(0)
    count = int(rate * seconds)
    frequency = np.fft.rfftfreq(count, 1 / rate)
    shape = 1 / np.maximum(frequency, 0.5) * (frequency < 0.4 * rate)
    spectrum = shape * (rng.standard_normal((channels, len(frequency), 2)) @ [1, 1j])
    x = np.fft.irfft(spectrum, count)
    x *= 30 / x.std(axis=1, keepdims=True)
    drift = 0.3 * np.cumsum(rng.standard_normal((channels, count)), axis=1) / np.sqrt(rate)
    return x + drift + 8000 * np.arange(channels)[:, None] + 10 * np.sin(2 * np.pi * mains * np.arange(count) / rate)


def plain(x, rate, low, high, mains):
    raw = mne.io.RawArray(x * 1e-6, mne.create_info(len(x), rate, "eeg", verbose="error"), verbose="error")
    raw.filter(low, high if high < rate / 2 else None, verbose="error")
    if mains:
        raw.notch_filter(mains, verbose="error")
    return raw.resample(200, verbose="error").get_data() * 1e6


def in_stretches(x, rate, low, high, mains, seconds):
    whole = Filter(rate, x.shape[1], low, high, mains)
    y = []
    for begin in range(0, whole.clock.length, seconds * 200):
        stop = min(begin + seconds * 200, whole.clock.length)
        first, last = whole.span(begin, stop)
        y.append(whole.stretch(x[:, first:last], begin, stop))
    return np.concatenate(y, axis=1)


@pytest.mark.parametrize("rate", [128, 200, 249.9, 250, 255, 256, 500, 512, 1000])
def test_equals_mne_at_any_rate(rate):
    x = background(rate, 200)
    got, want = in_stretches(x, rate, 0.1, 75.0, 50.0, 64), plain(x, rate, 0.1, 75.0, 50.0)
    assert got.shape == want.shape and got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=0.1)


@pytest.mark.parametrize("seconds", [3, 30, 79, 81])
def test_equals_mne_when_the_recording_is_shorter_than_the_kernels(seconds):
    x = background(250, seconds)
    np.testing.assert_allclose(in_stretches(x, 250, 0.1, 75.0, 60.0, 256), plain(x, 250, 0.1, 75.0, 60.0), atol=0.1)


def test_without_a_high_pass_the_mean_stays():
    x = background(256, 100)
    got = in_stretches(x, 256, None, 75.0, None, 64)
    np.testing.assert_allclose(got, plain(x, 256, None, 75.0, None), atol=0.1)
    np.testing.assert_allclose(got.mean(axis=1), x.mean(axis=1), rtol=1e-3, atol=0.5)


def test_interpolation_of_a_known_curve():
    def curve(t):
        return np.sin(2 * np.pi * 0.2 * t) + np.cos(2 * np.pi * 0.01 * t)

    positions = 20.3 + 2.0001 * np.arange(400)
    np.testing.assert_allclose(interpolate(curve(np.arange(1000))[None], positions, 2)[0], curve(positions), atol=2e-3)


@pytest.mark.parametrize("mains", [50.0, 60.0, None])
def test_mains_are_read_off_the_spectrum(mains):
    x = background(256, 60, channels=5, mains=mains or 0.0)
    assert detect_mains(x + np.random.default_rng(1).standard_normal(x.shape), 256.0) == mains
