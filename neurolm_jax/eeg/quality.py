"""What is no EEG: stretches that are missing, flat, clipped or huge; channels that copy another; wrong units.

Rules, on samples as recorded but for the last, which is on filtered ones. A second of a channel is
  missing: a sample in it is NaN or infinite;
  flat: no sample in it differs from the one before;
  clipped: half a percent of its samples or more lie in runs of three or more at the channel's highest or lowest value;
  huge: a sample of it is beyond 3 millivolts.
"""

import numpy as np

KINDS = ("missing", "flat", "clipped", "huge")
RUN = 3  # samples
LARGEST = 3000.0  # microvolts; up to here int16 records are exact to 0.05
CLIPPED_SHARE = 0.005
LONGEST_LAG = 64  # samples between a channel and its copy
PLAUSIBLE = (0.05, 20_000.0)  # microvolts: the median deviation of a recording's channels


def bad_seconds(
    x: np.ndarray, rate: float, count: int, lowest: np.ndarray, highest: np.ndarray
) -> dict[str, np.ndarray]:
    """For each kind, which of the first ``count`` seconds of x [C, N] are bad: bool [C, count].

    Args:
      lowest, highest: [C], the extremes of each channel so far.
    """
    edges = np.minimum(np.round(np.arange(count + 1) * rate).astype(int), x.shape[1])
    x = x[:, : edges[-1]]

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
    """Which whole seconds of filtered samples y [C, N] are huge: bool [C, N // rate]."""
    seconds = y.shape[1] // rate
    return np.abs(y[:, : seconds * rate]).reshape(len(y), seconds, rate).max(axis=2) > LARGEST


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
    typical = float(np.median(positive))
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


def _in_runs(flags):
    """Which true entries of flags [C, N] lie in runs of at least ``RUN``."""
    inside = np.zeros_like(flags)
    run = flags[:, : flags.shape[1] - RUN + 1].copy()
    for i in range(1, RUN):
        run &= flags[:, i : flags.shape[1] - RUN + 1 + i]
    for i in range(RUN):
        inside[:, i : flags.shape[1] - RUN + 1 + i] |= run
    return inside
