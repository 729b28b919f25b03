"""Band-pass, notch and resampling to 200 Hz in one pass, a stretch of a recording at a time.

A whole recording comes out as from MNE's ``filter``, ``notch_filter`` and ``resample``, one after the other, with their
defaults: the kernels are MNE's own, and so is the clock. But there is one transform forth and one back, and memory is
bounded by the stretch, not by the recording.
"""

import fractions
import functools
import math
from typing import NamedTuple

import numpy as np

from neurolm_jax.eeg.preprocessing import RATE, below_nyquist

GUARD = 10.0  # seconds beside a stretch, over which it fades in and out, so that its ends do not ring
TAPS = 16  # of the interpolation between samples
EXACT = 1e-3  # samples; clocks nearer than this count as one


class Clock(NamedTuple):
    """Output sample k lies at ``(k + offset) * scale`` output periods after the first input sample."""

    length: int
    offset: float
    scale: float


class Filter:
    """Maps stretches of a recording of ``length`` samples at ``rate`` Hz to 200 Hz.

    Args:
      low, high: band edges, Hz; None leaves that edge open, and so does a high edge above the Nyquist frequency.
      mains: frequency of the notch, Hz, or None.
    """

    def __init__(self, rate: float, length: int, low: float | None, high: float | None, mains: float | None):
        self._kernel = _kernel(rate, low, high, mains)
        self._keeps_mean = not low
        self._input_length = length
        short = length < 2 * max(len(self._kernel), round(GUARD * rate))
        self._plain = (rate, low, high, mains) if short else None
        self.clock = mne_clock(rate, length)
        ends = [(k + self.clock.offset) * self.clock.scale - k for k in (0, self.clock.length - 1)]
        self._oversampled = 2 if max(map(abs, ends)) > EXACT else 1
        # ``step`` samples of the input are ``out_step`` of what is transformed back: where both grids meet.
        ratio = fractions.Fraction(rate / (RATE * self._oversampled)).limit_denominator(4000)
        self._step, self._out_step = ratio.numerator, ratio.denominator
        self._fade = np.sin(np.linspace(0, np.pi / 2, round(GUARD * rate))) ** 2
        self._margin = -(-(len(self._kernel) // 2 + len(self._fade)) // self._step)  # steps
        self._gains: dict[int, np.ndarray] = {}

    def span(self, begin: int, stop: int) -> tuple[int, int]:
        """First and last sample of the input that ``stretch`` wants for samples ``begin`` to ``stop`` of the output."""
        if self._plain:
            return 0, self._input_length
        first, steps = self._steps(begin, stop)
        return max(0, first * self._step), min((first + steps) * self._step, self._input_length)

    def stretch(self, x: np.ndarray, begin: int, stop: int) -> np.ndarray:
        """From finite samples x [C, N] of ``span``: ``begin`` to ``stop`` of the output, float32 [C, stop - begin]."""
        if self._plain:
            return mne_pipeline(x, *self._plain)[:, begin:stop].astype(np.float32)
        first, steps = self._steps(begin, stop)
        x, mean = self._padded(x, first * self._step, (first + steps) * self._step)
        y = self._transform(x, steps)
        start = first * self._out_step
        if self._oversampled == 1:
            y = y[:, begin - start : stop - start]
        else:
            positions = (np.arange(begin, stop) + self.clock.offset) * self.clock.scale * self._oversampled - start
            y = interpolate(y, positions, self._oversampled)
        return y + mean if self._keeps_mean else y

    def _steps(self, begin, stop):
        """First step and their number."""
        place = [(k + self.clock.offset) * self.clock.scale * self._oversampled for k in (begin, stop)]
        first = math.floor(place[0] / self._out_step) - self._margin
        return first, _fast_length(math.ceil(place[1] / self._out_step) + 1 + self._margin - first)

    def _padded(self, x, first, last):
        """x about its mean, and that; before and after the recording it goes on, mirrored about the end."""
        mean = x.mean(axis=1, keepdims=True)
        x = np.asarray(x - mean, np.float32)
        parts = [x]
        if first < 0:
            parts.insert(0, _mirrored(x, -first)[:, ::-1])
        if last > self._input_length:
            parts.append(_mirrored(x[:, ::-1], last - self._input_length))
        x = np.concatenate(parts, axis=1)
        x[:, : len(self._fade)] *= self._fade.astype(np.float32)
        x[:, -len(self._fade) :] *= self._fade[::-1].astype(np.float32)
        return x, mean.astype(np.float32)

    def _transform(self, x, steps):
        import scipy.fft

        length, out_length = steps * self._step, steps * self._out_step
        if length not in self._gains:
            # Zero phase: the kernel's middle at sample 0. It is symmetric, so its spectrum is real.
            wrapped, half = np.zeros(length), len(self._kernel) // 2
            wrapped[: half + 1] = self._kernel[half:]
            wrapped[length - half :] = self._kernel[:half]
            gain = scipy.fft.rfft(wrapped).real * (out_length / length)
            self._gains[length] = gain[: out_length // 2 + 1].astype(np.float32)
        gain = self._gains[length]
        spectrum = scipy.fft.rfft(x, axis=1)[:, : len(gain)]
        spectrum *= gain
        return scipy.fft.irfft(spectrum, out_length, axis=1)


def mne_pipeline(x: np.ndarray, rate: float, low: float | None, high: float | None, mains: float | None) -> np.ndarray:
    """The same by MNE's functions on the whole recording x [C, N]; where that is shorter than the kernels, what lies
    beyond its ends matters, and each of the functions goes on there in its own way."""
    import mne

    high, mains = below_nyquist(high, rate), below_nyquist(mains, rate)
    if low or high:
        x = mne.filter.filter_data(x, rate, low, high, verbose="error")
    if mains:
        x = mne.filter.notch_filter(x, rate, mains, verbose="error")
    return x if rate == RATE else mne.filter.resample(x, RATE, rate, npad="auto", verbose="error")


def mne_clock(rate: float, length: int) -> Clock:
    """The clock of ``mne.io.Raw.resample``.

    It pads to a power of two and rounds the padding's and the whole's new length, which moves samples by up to half a
    period; at rates such as 256 Hz nothing is rounded and the clock is exact.
    """
    ratio = RATE / rate
    if ratio == 1:
        return Clock(length, 0.0, 1.0)
    padded = 2 ** math.ceil(math.log2(length + 2 * min(length // 8, 100)))
    left = (padded - length) // 2
    scale = padded * ratio / max(round(padded * ratio), 1)
    return Clock(max(round(ratio * length), 1), round(ratio * left) - ratio * left / scale, scale)


def interpolate(x: np.ndarray, positions: np.ndarray, step: int) -> np.ndarray:
    """x [C, N], with nothing above half its Nyquist frequency, between its samples: at ``positions`` [K], which advance
    by very nearly ``step``."""
    whole = np.floor(positions).astype(int)
    away = positions - whole
    drift = whole - step * np.arange(len(whole))
    y = np.empty((len(x), len(positions)), np.float32)
    edges = np.flatnonzero(np.diff(drift, prepend=drift[0] - 1, append=drift[-1] - 1))
    for begin, stop in zip(edges, edges[1:]):  # where the whole parts advance by just ``step``
        taps = np.arange(1 - TAPS // 2, TAPS // 2 + 1)
        distance = away[begin:stop, None] - taps
        weights = np.sinc(distance) * np.i0(9 * np.sqrt(np.maximum(1 - (2 * distance / TAPS) ** 2, 0))) / np.i0(9)
        part = np.zeros((len(x), stop - begin), np.float32)
        for tap, weight in zip(taps, weights.astype(np.float32).T):
            first = whole[begin] + tap
            part += x[:, first : first + step * (stop - begin - 1) + 1 : step] * weight
        y[:, begin:stop] = part
    return y


@functools.lru_cache(maxsize=64)
def _kernel(rate, low, high, mains):
    """Zero-phase FIR of odd length; a corpus has few rates, and its design takes as long as minutes of EEG."""
    import mne

    high, mains = below_nyquist(high, rate), below_nyquist(mains, rate)
    kernel = np.ones(1)
    if low or high:
        kernel = mne.filter.create_filter(None, rate, low, high, verbose="error")
    if mains:
        # As MNE's notch_filter by default: a band of mains / 200 with edges of half a hertz.
        edge = 0.5
        below, above = mains - mains / 400 - edge, mains + mains / 400 + edge
        widths = {"l_trans_bandwidth": edge, "h_trans_bandwidth": edge}
        notch = mne.filter.create_filter(None, rate, above, below, **widths, verbose="error")
        kernel = np.convolve(kernel, notch)
    return kernel


def _mirrored(x, count):
    """``count`` samples before the first of x, nearest first: mirrored about it as far as x goes, then zero."""
    mirrored = 2 * x[:, :1] - x[:, 1 : 1 + count]
    return np.pad(mirrored, ((0, 0), (0, count - mirrored.shape[1])))


def _fast_length(steps):
    import scipy.fft

    return scipy.fft.next_fast_len(steps, real=True)
