"""Fingerprints by which a recording is known again after it was exported anew: scaled, rounded, in another container.

A fingerprint has up to ``len(BEGINS)`` pieces of ``LENGTH`` seconds, each of which tells how the power of the EEG goes
up and down in steps of a sixteenth of a second: for each channel the log of its power from ``BAND[0]`` to ``BAND[1]``
Hz, less the channel's own median, and of all channels the median. Gains, offsets, the order of channels, a few
channels that are lost, line noise and slow drifts change little of it. Pieces begin at fixed times, so that what an
export adds or cuts at the end does not matter; a copy whose beginning is cut off is not known again.

Exact copies are known by ``identity.recording_hash``. The agreement of two fingerprints is a correlation; see
``AGREEMENT``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neurolm_jax.eeg.preprocessing import choose_channels

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

BEGINS = (0, 16, 64, 256, 1024)  # seconds at which pieces begin
LENGTH = 4  # seconds of a piece
WINDOW, STEP = 1 / 8, 1 / 16  # seconds of the windows whose power is taken, and between their beginnings
VALUES = round(LENGTH / STEP)  # in a whole piece
LEAST_VALUES = 48  # in a piece of a shorter recording, for it to tell anything: 3 s; blinks of 2 s look alike
LEAST_DEVIATION = 0.15  # of the log power over a piece; less is a flat line or a steady tone
BAND = (7.0, 33.0)  # Hz: above drifts, below the mains
LEVELS = 16  # of a value as stored, over +-``RANGE`` standard deviations
RANGE = 3.0
# Correlation from which on two recordings are one, and with fewer than ``MANY`` values in common. Of 5,356 pairs of
# different recordings, many of one person, none reached 0.33; resampled, filtered and noisy copies had 0.84 and more.
AGREEMENT, AGREEMENT_OF_FEW = 0.7, 0.9
MANY = 2 * VALUES
BLOCK = 1024  # fingerprints that are compared with all others at once


def fingerprint(raw: "mne.io.BaseRaw", first: int = 0, last: int | None = None) -> str:
    """Return the fingerprint of samples ``first`` to ``last`` of an ``mne.io.Raw``, of all electrodes that the
    vocabulary has; "" where nothing tells them from others (too short, flat, periodic, or no electrode)."""
    names, rate = list(choose_channels(raw)[0]), float(raw.info["sfreq"])
    last = raw.n_times if last is None else last
    courses = []
    for begin in BEGINS if names else ():
        start = first + round(begin * rate)
        stop = min(start + round((LENGTH + WINDOW - STEP) * rate), last)
        if stop - start < round((LEAST_VALUES + 1) * STEP * rate):
            break
        courses.append(course(raw.get_data(names, start, stop, verbose="error"), rate))
    # A piece that agrees with itself, some steps later, is periodic and tells no more than a phase: two recordings that
    # have such a rhythm may agree as much. Of real recordings it is so of one piece in eighty.
    limit = AGREEMENT if len(courses) > 1 else AGREEMENT_OF_FEW
    pieces = [_encode(values, limit) for values in courses]
    return ".".join(pieces) if any(pieces) else ""


def course(x: np.ndarray, rate: float) -> np.ndarray:
    """Return the log power of samples x [C, N] in each window, relative to its median: [V], the median over channels.

    Channels whose power is zero or not finite tell nothing; [0] where all are like that.
    """
    length = round(WINDOW * rate)
    begins = np.round(np.arange(0, (x.shape[1] - length) / rate + 1e-9, STEP) * rate).astype(int)[:VALUES]
    windows = np.stack([x[:, begin : begin + length] for begin in begins], axis=1) if len(begins) else x[:, None, :0]
    windows = np.nan_to_num(windows - windows.mean(axis=-1, keepdims=True))  # [C, V, W]
    # Some zeros behind each window make the spectrum finer than 8 Hz; its resolution stays what it is.
    points = 4 * length
    spectrum = np.abs(np.fft.rfft(windows * np.hanning(length), points)) ** 2
    frequencies = np.fft.rfftfreq(points, 1 / rate)
    power = spectrum[..., (frequencies >= BAND[0]) & (frequencies <= BAND[1])].sum(axis=-1)  # [C, V]
    usual = np.median(power, axis=1, keepdims=True)
    alive = (usual[:, 0] > 0) & np.isfinite(usual[:, 0])
    if not alive.any():
        return np.zeros(0)
    return np.median(np.log(np.maximum(power[alive] / usual[alive], 1e-3)), axis=0)


def _encode(values, limit):
    """One character for each value; "" where they tell nothing, as where they repeat themselves within half of their
    length (the beats of a steady tone) with a correlation of ``limit`` or more."""
    if len(values) < LEAST_VALUES or values.std() < LEAST_DEVIATION or _highest_autocorrelation(values) >= limit:
        return ""
    scaled = (values - values.mean()) / values.std() / RANGE  # mostly in -1 ... 1
    levels = np.clip(np.floor((scaled + 1) / 2 * LEVELS), 0, LEVELS - 1).astype(int)
    return "".join(f"{level:x}" for level in levels.tolist())


def _highest_autocorrelation(values):
    return max(np.corrcoef(values[:-lag], values[lag:])[0, 1] for lag in range(2, len(values) // 2 + 1))


class Known:
    """Fingerprints that others are compared with; all at once, as there may be many."""

    def __init__(self, fingerprints: Sequence[str]):
        self._pieces = _decode(fingerprints)

    def match(self, fingerprints: Sequence[str]) -> list[int | None]:
        """Return which of the known fingerprints each one agrees with best; None where none agrees."""
        found: list[int | None] = []
        for begin in range(0, len(fingerprints), BLOCK):
            values, there = _decode(fingerprints[begin : begin + BLOCK])
            found += self._match(values, there) if len(self._pieces[0]) else [None] * len(values)
        return found

    def _match(self, values, there):
        """values [M, P, V], and which of them are there."""
        best, highest = np.full(len(values), -1), np.full(len(values), -np.inf)
        for begin in range(0, len(self._pieces[0]), BLOCK):
            part = slice(begin, begin + BLOCK)
            correlation, count = _agreement(values, there, *(array[part] for array in self._pieces))
            above = correlation - np.where(count >= MANY, AGREEMENT, AGREEMENT_OF_FEW)
            place = above.argmax(axis=1)
            height = above[np.arange(len(values)), place]
            better = height > highest
            best[better], highest[better] = begin + place[better], height[better]
        return [int(one) if height >= 0 else None for one, height in zip(best, highest)]


def agreement(one: str, other: str) -> float:
    """Return the correlation of two fingerprints over the pieces that both have; -inf where they have none."""
    return float(_agreement(*_decode([one]), *_decode([other]))[0][0, 0])


def _decode(fingerprints):
    """Values [N, P, V] about zero, and which of them are there."""
    values = np.zeros((len(fingerprints), len(BEGINS), VALUES), np.float32)
    there = np.zeros(values.shape, np.float32)
    for number, text in enumerate(fingerprints):
        for place, piece in enumerate(text.split(".")[: len(BEGINS)]):
            levels = np.array([int(character, LEVELS) for character in piece[:VALUES]], np.float32)
            values[number, place, : len(levels)] = levels - (LEVELS - 1) / 2
            there[number, place, : len(levels)] = 1
    return values, there


def _agreement(a, a_there, b, b_there):
    """Correlation [M, N] of values [M, P, V] and [N, P, V] where both are there, each piece about its own mean; and how
    many values that are."""
    covariance = np.zeros((len(a), len(b)))
    a_variance, b_variance, counts = (np.zeros_like(covariance) for _ in range(3))
    for piece in range(len(BEGINS)):
        x, y, x_there, y_there = (array[:, piece] for array in (a, b, a_there, b_there))
        count = x_there @ y_there.T
        used = count >= LEAST_VALUES
        counts += np.where(used, count, 0)
        count = np.maximum(count, 1)
        x_sum, y_sum = x @ y_there.T, x_there @ y.T
        covariance += np.where(used, x @ y.T - x_sum * y_sum / count, 0)
        a_variance += np.where(used, np.square(x) @ y_there.T - np.square(x_sum) / count, 0)
        b_variance += np.where(used, x_there @ np.square(y).T - np.square(y_sum) / count, 0)
    scale = np.sqrt(a_variance * b_variance)
    return np.where(scale > 0, covariance / np.where(scale > 0, scale, 1), -np.inf), counts
