"""Filtered samples of a recording and what is bad among them, a few minutes at a time.

Every command reads recordings through here: memory does not grow with their length, no filter crosses a jump of time,
and what counts as bad is the same for a corpus, a task and a question.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurolm_jax.eeg import quality
from neurolm_jax.eeg.filtering import Filter, mne_clock
from neurolm_jax.eeg.identity import STRETCH, middle
from neurolm_jax.eeg.preprocessing import RATE
from neurolm_jax.eeg.timeline import Timeline
from neurolm_jax.errors import UserError

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

SHORTEST_SPAN = 1.0  # seconds between two jumps that are worth filtering
CLIPPING_SHOWS = 10.0  # seconds of a span; in less, a slow wave's own peak looks like an amplifier's limit


class Span(NamedTuple):
    """A part of a recording without a jump of time.

    Attributes:
      number: among all spans, also those too short to be filtered.
      start, end: first and last of its samples as recorded.
      first, last: first and last of its samples at 200 Hz; the same where it is too short.
    """

    number: int
    start: int
    end: int
    first: int
    last: int


class Stretch(NamedTuple):
    """A part of a recording, at most ``STRETCH`` seconds of one span.

    Attributes:
      span: its number.
      first: of its samples in the recording, at 200 Hz.
      samples: [C, N] float32 microvolts at 200 Hz.
      flags: [C, N] uint8, what is wrong with each sample, see ``quality.BITS``.
    """

    span: int
    first: int
    samples: np.ndarray
    flags: np.ndarray


def stretches(
    raw: "mne.io.BaseRaw",
    picks: Sequence[int],
    timeline: Timeline,
    low: float | None,
    high: float | None,
    mains: float | None,
    on_read: Callable[[np.ndarray], None] = lambda x: None,
) -> Iterator[Stretch]:
    """Yield the stretches of some channels in the order of time; spans of less than a second are left out.

    Args:
      picks: positions of the channels.
      low, high, mains: of the filters, Hz; None leaves one out.
      on_read: called with all samples [C, n] of the spans as they were read, microvolts, in their order.

    Raises:
      UserError: the file holds fewer samples than its header promises.
    """
    rate = float(raw.info["sfreq"])
    lowest = highest = np.full(len(picks), np.nan)
    names = [raw.ch_names[pick] for pick in picks]
    for span in resampled_spans(raw, timeline):
        start, length, total = span.start, span.end - span.start, span.last - span.first
        if not total:
            on_read(read_microvolts(raw, picks, start, span.end))
            continue
        whole = Filter(rate, length, low, high, mains)
        for begin, stop in bounds(0, total):
            first, last = whole.span(begin, stop)
            x = read_microvolts(raw, picks, start + first, start + last)
            seconds = max(1, round((stop - begin) / RATE))
            inside = x[
                :,
                round(begin / RATE * rate) - first : (length if stop == total else round(stop / RATE * rate)) - first,
            ]
            on_read(inside)
            finite = np.where(np.isfinite(inside), inside, np.nan)
            lowest, highest = np.fmin(lowest, np.fmin.reduce(finite, 1)), np.fmax(highest, np.fmax.reduce(finite, 1))
            bad = quality.bad_seconds(inside, rate, seconds, lowest, highest)
            if length < CLIPPING_SHOWS * rate:
                bad["clipped"][:] = False
            y = whole.stretch(quality.fill_gaps(x), begin, stop)
            centred = y if low else y - np.median(y, axis=1, keepdims=True)
            bad["huge"] = quality.huge_seconds(centred, RATE) & ~np.any(list(bad.values()), axis=0)
            flags = quality.sample_flags(bad, stop - begin, RATE)
            _flag_annotated(flags, timeline.bad, names, (span.first + begin) / RATE)
            yield Stretch(span.number, span.first + begin, y, flags)


def resampled_spans(raw: "mne.io.BaseRaw", timeline: Timeline) -> list[Span]:
    """Return the spans of a recording and where they lie among its samples at 200 Hz."""
    rate = float(raw.info["sfreq"])
    begins = [round(start / rate * RATE) for start, _ in timeline.spans]
    limits = [*begins[1:], mne_clock(rate, raw.n_times).length]  # the next span begins where one ends, to half a sample
    spans = []
    for number, ((start, end), first, limit) in enumerate(zip(timeline.spans, begins, limits)):
        fits = end - start >= SHORTEST_SPAN * rate
        last = min(first + mne_clock(rate, end - start).length, limit) if fits else first
        spans.append(Span(number, start, end, first, last))
    return spans


def middle_sample(raw: "mne.io.BaseRaw", channels: Sequence[str], name: str) -> tuple[np.ndarray, dict[str, str]]:
    """Return the middle of some channels [C, N], microvolts, and reasons by name of those on another scale than EEG.

    Raises:
      UserError: all are, as where a unit is wrong; samples are not there.
    """
    sample = read_microvolts(raw, [raw.ch_names.index(channel) for channel in channels], *middle(raw))
    deviations = quality.deviations(sample, float(raw.info["sfreq"]))
    if fault := quality.unit_fault(deviations):
        raise UserError(f"{name}: {fault}")
    return sample, {channels[i]: reason for i, reason in quality.scale_faults(deviations).items()}


def bounds(first: int, last: int) -> list[tuple[int, int]]:
    """Return first and last sample, at 200 Hz, of the stretches of a span; what is left over goes with the last one."""
    begins = [*range(first, max(last - RATE, first) + 1, STRETCH * RATE)] if first < last else []
    return list(zip(begins, [*begins[1:], last]))


def read_microvolts(raw: "mne.io.BaseRaw", picks: Sequence[int], first: int, last: int) -> np.ndarray:
    """Return samples [C, last - first] of some channels, float64 microvolts.

    Raises:
      UserError: they are not all there.
    """
    x = raw.get_data(picks, first, last, verbose="warning")
    if x.shape != (len(picks), last - first):
        file = next(filter(None, raw.filenames), "recording")
        raise UserError(
            f"{file}: samples {first} to {last} are not there; its header promises more than the file holds"
        )
    x *= 1e6
    return x


def _flag_annotated(flags, bad, names, begin):
    """Mark the samples that annotations call bad, each of which has its second after ``begin``."""
    for onset, end, channels in bad:
        first, last = int(np.floor((onset - begin) * RATE + 0.01)), int(np.ceil((end - begin) * RATE - 0.01))
        if last > 0 and first < flags.shape[1]:
            rows = [i for i, name in enumerate(names) if not channels or name in channels]
            flags[rows, max(first, 0) : last] |= quality.BITS["annotated"]
