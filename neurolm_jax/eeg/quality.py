"""What is no EEG: stretches that are missing, flat, clipped, huge or annotated; copies of channels; wrong units.

Rules, on samples as recorded but for "huge", which is about filtered ones. A second of a channel is
  missing: a sample in it is NaN or infinite;
  flat: no sample in it differs from the one before;
  clipped: half a percent of its samples or more lie in runs of three or more at the channel's highest or lowest value;
  huge: a sample of it is beyond 3 millivolts.
A sample is annotated where an annotation of the recording calls it bad.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

KINDS = ("missing", "flat", "clipped", "huge", "annotated")
BITS = {kind: np.uint8(1 << i) for i, kind in enumerate(KINDS)}
_NOT_CLIPPED = np.uint8(sum(BITS.values()) - BITS["clipped"])
_NO_EEG = BITS["missing"] | BITS["huge"] | BITS["annotated"]
MOSTLY_BAD = 0.5  # of a stretch: the channel is left out of it, instead of its bad seconds from all channels
RUN = 3  # samples
LARGEST = 3000.0  # microvolts; up to here int16 records are exact to 0.05
CLIPPED_SHARE = 0.005
LONGEST_LAG = 64  # samples between a channel and its copy
OFF_SCALE = 150.0  # times a recording's median channel, or one part of as many
PLAUSIBLE = (0.05, 20_000.0)  # microvolts: the median deviation of a recording's channels
COMMON = (0.5, 1000.0)  # the same, of nearly all EEG


def bad_seconds(
    x: np.ndarray, rate: float, count: int, lowest: np.ndarray, highest: np.ndarray
) -> dict[str, np.ndarray]:
    """For each kind, which of the ``count`` seconds of x [C, N] are bad: bool [C, count]. The last takes what is left.

    Args:
      lowest, highest: [C], the extremes of each channel so far.
    """
    edges = _edges(x.shape[1], rate, count)

    def any_in_second(flags):
        return np.add.reduceat(flags, edges[:-1], axis=1, dtype=np.int32)

    finite = np.isfinite(x)
    same = np.zeros(x.shape, bool)
    same[:, 1:] = x[:, 1:] == x[:, :-1]
    lengths = np.diff(edges)
    missing = any_in_second(~finite) > 0
    flat = any_in_second(same) >= lengths - 1  # a second's first sample may differ from the second before
    extreme = (x == lowest[:, None]) | (x == highest[:, None])
    clipped = any_in_second(_in_runs(extreme)) >= np.maximum(CLIPPED_SHARE * lengths, RUN)
    return {"missing": missing, "flat": flat & ~missing, "clipped": clipped & ~flat & ~missing}


def huge_seconds(y: np.ndarray, rate: int) -> np.ndarray:
    """Which seconds of filtered samples y [C, N] are huge: bool [C, S]; the last takes what is left, or is shorter."""
    edges = _edges(y.shape[1], rate, max(1, round(y.shape[1] / rate)))
    return np.maximum.reduceat(np.abs(y), edges[:-1], axis=1) > LARGEST


def sample_flags(bad: dict[str, np.ndarray], samples: int, rate: int) -> np.ndarray:
    """Bits of the kinds that each sample's second has: uint8 [C, samples] of bool [C, S] by kind."""
    seconds = sum((flags * BITS[kind] for kind, flags in bad.items()), np.uint8(0))
    lengths = np.diff(_edges(samples, rate, seconds.shape[1]))
    return np.repeat(seconds.astype(np.uint8), lengths, axis=1)


def counts(flags: np.ndarray, rate: int) -> dict[str, float]:
    """Channel-seconds of each kind among flags [C, N], of those that there are."""
    found = {kind: np.count_nonzero(flags & bit) / rate for kind, bit in BITS.items()}
    return {kind: seconds for kind, seconds in found.items() if seconds}


class Fitness(NamedTuple):
    """What a window may be used for.

    Attributes:
      channels: positions of those that are left [K]; one that is bad over most of the window is not.
      fault: why the window cannot be used, None if it can.
      marks: kinds of what is bad in it, of all channels.
    """

    channels: np.ndarray
    fault: str | None
    marks: tuple[str, ...]


def fitness(flags: np.ndarray) -> Fitness:
    """Judge a window by its flags [C, N].

    A channel that is missing, flat, huge or annotated over more than half of the window is left out of it. The window
    is not fit where that holds for all channels, or where one that remains is missing, huge or annotated anywhere.
    """
    bad = flags & _NOT_CLIPPED > 0
    channels = _mostly_good(bad)
    marks = tuple(kind for kind, bit in BITS.items() if (flags & bit).any())
    if not len(channels) or bad.all(axis=0).mean() > MOSTLY_BAD:
        return Fitness(channels, describe([kind for kind in marks if kind != "clipped"]), marks)
    left = np.bitwise_or.reduce(flags[channels], axis=None) & _NO_EEG
    return Fitness(channels, describe([kind for kind, bit in BITS.items() if left & bit]) or None, marks)


def good_runs(flags: np.ndarray, shortest: int) -> list[tuple[np.ndarray, int, int]]:
    """Channels, first and last sample of each part of flags [C, N] that is good in all of them and has ``shortest``
    samples or more, or is all there is. Channels that are bad over most of it are none of them."""
    bad = flags > 0
    channels = _mostly_good(bad)
    if not len(channels):
        return []
    good = np.concatenate([[False], ~bad[channels].any(axis=0), [False]])
    edges = np.flatnonzero(np.diff(good))
    shortest = min(shortest, flags.shape[1])
    runs = zip(edges[::2].tolist(), edges[1::2].tolist())
    return [(channels, first, last) for first, last in runs if last - first >= shortest]


def fill_gaps(x: np.ndarray) -> np.ndarray:
    """Samples that are not finite become a line between their neighbours, so that filters do not spread them."""
    finite = np.isfinite(x)
    if finite.all():
        return x
    x = np.where(finite, x, 0.0)
    places = np.arange(x.shape[1])
    for channel in np.flatnonzero(~finite.all(axis=1)):
        good = finite[channel]
        if good.any():
            x[channel, ~good] = np.interp(places[~good], places[good], x[channel, good])
    return x


def copies(x: np.ndarray) -> dict[int, tuple[int, int]]:
    """Channels that repeat an earlier one of x [C, N]: channel -> (original, lag in samples).

    A copy agrees with its original, at one lag of at most ``LONGEST_LAG``, to a thousandth of its deviation at nine in
    ten samples.
    """
    found: dict[int, tuple[int, int]] = {}
    length = x.shape[1]
    x = np.nan_to_num(x, posinf=0, neginf=0)
    deviation = x.std(axis=1)
    if length < 8 * LONGEST_LAG:
        return found
    for channel in range(1, len(x)):
        tolerance = 1e-3 * deviation[channel]
        if not deviation[channel]:
            continue
        # Where this channel moves most, what came before and after in the others?
        key_length = LONGEST_LAG
        inside = x[channel, LONGEST_LAG:-LONGEST_LAG]
        moves = np.convolve(np.abs(np.diff(inside)), np.ones(key_length), "valid")
        start = LONGEST_LAG + int(moves.argmax())
        key = x[channel, start : start + key_length]
        alike = np.abs(deviation[:channel] / deviation[channel] - 1) <= 0.1
        originals = np.array([i for i in np.flatnonzero(alike) if i not in found], int)
        around = x[originals, start - LONGEST_LAG : start + key_length + LONGEST_LAG]
        views = np.lib.stride_tricks.sliding_window_view(around, key_length, axis=1)  # [originals, lags, key]
        first, lags = np.nonzero(np.abs(views[:, :, 0] - key[0]) <= tolerance)  # few of them, to be looked at whole
        match = (np.abs(views[first, lags] - key) <= tolerance).all(axis=1)
        for original, lag in zip(originals[first[match]].tolist(), (lags[match] - LONGEST_LAG).tolist()):
            here = x[channel, max(0, -lag) : length - max(0, lag)]  # x[channel, t] == x[original, t + lag]
            there = x[original, max(0, lag) : length - max(0, -lag)]
            if (np.abs(here - there) <= tolerance).mean() >= 0.9:
                found[channel] = (original, lag)
                break
    return found


def deviations(x: np.ndarray, rate: float) -> np.ndarray:
    """Median over seconds of each channel's standard deviation within the second, of x [C, N]: slow drifts do not
    count."""
    window = int(rate)
    parts = x[:, : x.shape[1] // window * window].reshape(len(x), -1, window)
    found = parts.std(axis=-1)
    return np.median(np.where(np.isfinite(found), found, 0), axis=1)


def unit_fault(deviations: np.ndarray) -> str | None:
    """What is wrong with channels' standard deviations [C] in microvolts, in words; None if they can be EEG's."""
    positive = deviations[deviations > 0]
    if not positive.size:
        return None
    typical = _typical(positive)
    if typical < PLAUSIBLE[0]:
        return (
            f"amplitudes of {typical:.1e} microvolts are far below EEG's: a wrong unit, as when volts are stored as"
            " microvolts; correct the header or multiply the samples"
        )
    if typical > PLAUSIBLE[1]:
        return (
            f"amplitudes of {typical:.1e} microvolts are far above EEG's: a wrong unit, as when microvolts are read as"
            " volts; correct the header or divide the samples"
        )
    return None


def scale_faults(deviations: np.ndarray) -> dict[int, str]:
    """Channels whose standard deviations [C], microvolts, are not on the scale of the others: channel -> reason.

    The median of the channels that can be EEG's is taken for right. Channels that do not move at all are none of these.
    """
    positive = deviations[deviations > 0]
    typical = _typical(positive) if positive.size else 0.0
    found = {}
    for channel, deviation in enumerate(deviations.tolist()):
        ratio = deviation / typical if typical else 1.0
        outside = not PLAUSIBLE[0] <= deviation <= PLAUSIBLE[1] or not 1 / OFF_SCALE < ratio < OFF_SCALE
        if deviation > 0 and ratio != 1 and outside:
            far = "above" if ratio > 1 else "below"
            found[channel] = (
                f"amplitudes of {deviation:.1e} microvolts, far {far} the other channels' {typical:.1e}: a wrong unit,"
                " or no contact"
            )
    return found


def _mostly_good(bad):
    """Rows of bad [C, N] that are good over half or more of where not all are bad."""
    elsewhere = bad[:, ~bad.all(axis=0)]
    if not elsewhere.shape[1]:
        return np.zeros(0, int)
    return np.flatnonzero(elsewhere.mean(axis=1) <= MOSTLY_BAD)


def _typical(positive):
    """Median of deviations [C], of those that can be EEG's if a third can."""
    like_eeg = positive[(positive > COMMON[0]) & (positive < COMMON[1])]
    return float(np.median(like_eeg if 3 * len(like_eeg) >= len(positive) else positive))


def describe(kinds: Sequence[str]) -> str:
    """Kinds in words."""
    return ", ".join("marked BAD" if kind == "annotated" else kind for kind in kinds)


def _edges(samples, rate, count):
    """First sample of each of ``count`` seconds, and the end, which takes or gives what is left."""
    edges = np.minimum(np.round(np.arange(count + 1) * rate).astype(int), samples)
    edges[-1] = samples
    return edges


def _in_runs(flags):
    """Which true entries of flags [C, N] lie in runs of at least ``RUN``."""
    inside = np.zeros_like(flags)
    run = flags[:, : flags.shape[1] - RUN + 1].copy()
    for i in range(1, RUN):
        run &= flags[:, i : flags.shape[1] - RUN + 1 + i]
    for i in range(RUN):
        inside[:, i : flags.shape[1] - RUN + 1 + i] |= run
    return inside
