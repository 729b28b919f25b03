"""One recording into records, a few minutes at a time: memory does not grow with its length."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from neurolm_jax.corpus.sources import Source
from neurolm_jax.eeg import quality
from neurolm_jax.eeg.electrodes import parse_channel
from neurolm_jax.eeg.filtering import Filter
from neurolm_jax.eeg.identity import STRETCH, ContentHash, middle, reads_alike, recording_hash
from neurolm_jax.eeg.mains import detect_mains
from neurolm_jax.eeg.opening import Unreadable, accepted, open_raw
from neurolm_jax.eeg.preprocessing import RATE, Preprocessing, choose_channels
from neurolm_jax.eeg.records import Record

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

PIECE = 16  # seconds in one record: a window takes some of them, and little that it does not need
SHORTEST = 2  # seconds of a stretch between bad ones that are worth keeping
MOSTLY_BAD = 0.5  # of a stretch: the channel is left out of it, instead of its bad seconds from all channels


class Unusable(Exception):
    """Nothing of the recording can be used; the message says why."""


class ExcludedRecording(Unusable):
    """It must not be used: it belongs to a set that is tested on."""


@dataclasses.dataclass
class Outcome:
    """What became of a recording, as the manifest has it. Hours are those of the recording, channels counted once.

    outcome: used, skipped or excluded. channels: names of those used; left_out: reason by channel not used.
    dropped_seconds: cut out of all channels; bad_channel_seconds: by kind, what was bad in a channel.
    participant, scan, events: of a BIDS tree, the rows of participants.tsv and scans.tsv, and how often each trial type
    occurs.
    """

    name: str
    outcome: str = "used"
    reason: str | None = None
    hash: str | None = None
    subject: str | None = None
    cohort: str | None = None
    session: str | None = None
    reference: str | None = None
    rate: float | None = None
    mains: float | None = None
    mains_from: str | None = None
    hours: float = 0.0
    recorded_hours: float = 0.0
    channels: list[str] = dataclasses.field(default_factory=list)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    dropped_seconds: int = 0
    bad_channel_seconds: dict[str, int] = dataclasses.field(default_factory=dict)
    participant: dict[str, str] = dataclasses.field(default_factory=dict)
    scan: dict[str, str] = dataclasses.field(default_factory=dict)
    events: dict[str, int] = dataclasses.field(default_factory=dict)


def read(source: Source) -> "mne.io.BaseRaw":
    """An ``mne.io.Raw``, samples still on disk; whatever its parsers raise comes through.

    Raises:
      Unusable: it cannot be opened, and it is told why.
    """
    if source.fault:
        raise Unusable(source.fault)
    try:
        return open_raw(source.path, **accepted(source.path, dict(source.options)))
    except Unreadable as error:
        raise Unusable(str(error)) from error


def records(raw, source: Source, settings: Preprocessing, corpus: str, outcome: Outcome) -> Iterator[Record]:
    """Records of a recording; ``outcome`` is complete when they are.

    Raises:
      Unusable: nothing of it can be used.
    """
    rate, length = float(raw.info["sfreq"]), int(raw.n_times)
    outcome.subject, outcome.cohort, outcome.session = source.subject, source.cohort, source.session
    outcome.reference = source.reference
    outcome.participant, outcome.scan, outcome.events = dict(source.participant), dict(source.scan), dict(source.events)
    outcome.rate, outcome.recorded_hours = rate, length / rate / 3600
    if source.excluded:
        raise ExcludedRecording(source.excluded)
    if length < rate:
        raise Unusable("shorter than one second")
    picks, electrodes = _choose(raw, source, outcome)
    sample = _samples(raw, picks, *middle(raw))
    if fault := quality.unit_fault(quality.deviations(sample, rate)):
        raise Unusable(fault)
    copies = quality.copies(sample)
    for copy, (original, lag) in sorted(copies.items(), reverse=True):
        how = "exactly" if lag == 0 else f"shifted by {abs(lag)} samples"
        outcome.left_out[outcome.channels[copy]] = f"copies {outcome.channels[original]} {how}"
        for sequence in (picks, electrodes, outcome.channels):
            del sequence[copy]
    mains = _mains(raw, source, settings, sample, rate, outcome)

    whole = Filter(rate, length, settings.low, settings.high, mains)
    seconds = whole.clock.length // RATE
    # What is read for filtering makes the hash, where that is what ``recording_hash`` would read.
    alike = not source.left_out and reads_alike(raw, picks, np.delete(sample, list(copies), axis=0))
    digest = ContentHash(len(picks)) if alike else None
    counts, kept = dict.fromkeys(quality.KINDS, 0), 0
    for begin, y, bad in _stretches(raw, picks, whole, digest):
        for kind, flags in bad.items():
            counts[kind] += int(flags.sum())
        for channels, start, end in _good(np.any(list(bad.values()), axis=0)):
            kept += end - start
            for first in range(start, end, PIECE):
                yield Record(
                    samples=y[channels, first * RATE : min(first + PIECE, end) * RATE],
                    electrodes=tuple(electrodes[c] for c in channels),
                    source=corpus,
                    recording=source.name,
                    subject=source.subject,
                    session=source.session,
                    reference=source.reference,
                    start=float(begin + first),
                )
    outcome.hash = digest.hexdigest() if digest else recording_hash(raw)
    outcome.hours, outcome.dropped_seconds = kept / 3600, seconds - kept
    outcome.bad_channel_seconds = {kind: count for kind, count in counts.items() if count}
    if not kept:
        found = ", ".join(f"{kind} {count} channel-seconds" for kind, count in outcome.bad_channel_seconds.items())
        raise Unusable(f"no {SHORTEST} seconds in a row are fit for use ({found or 'too short'})")


def _stretches(raw, picks, whole, digest):
    """For each stretch: its first second, filtered samples [C, S * 200], and which seconds are bad [C, S] by kind."""
    rate, length, seconds = float(raw.info["sfreq"]), int(raw.n_times), whole.clock.length // RATE
    lowest = highest = np.full(len(picks), np.nan)
    for begin in range(0, seconds, STRETCH):
        stop = min(begin + STRETCH, seconds)
        first, last = whole.span(begin * RATE, stop * RATE)
        x = _samples(raw, picks, first, last)
        inside = x[:, round(begin * rate) - first : (length if stop == seconds else round(stop * rate)) - first]
        if digest:
            digest.update(inside)
        finite = np.where(np.isfinite(inside), inside, np.nan)
        lowest, highest = np.fmin(lowest, np.fmin.reduce(finite, 1)), np.fmax(highest, np.fmax.reduce(finite, 1))
        bad = quality.bad_seconds(inside, rate, stop - begin, lowest, highest)
        y = whole.stretch(quality.fill_gaps(x), begin * RATE, stop * RATE)
        bad["huge"] = quality.huge_seconds(y, RATE) & ~np.any(list(bad.values()), axis=0)
        yield begin, y, bad


def _choose(raw, source, outcome):
    """Places in ``raw`` and ids of the channels to use, names into ``outcome``."""
    chosen, left_out = choose_channels(raw, dict(source.left_out))
    outcome.left_out |= left_out
    outcome.channels += chosen
    references = (parse_channel(name).reference for name in chosen)
    outcome.reference = outcome.reference or next(filter(None, references), None)
    picks, electrodes = [raw.ch_names.index(name) for name in chosen], list(chosen.values())
    if not picks:
        names = ", ".join(raw.ch_names[:8])
        raise Unusable(f"none of its {len(raw.ch_names)} channels is an electrode of the vocabulary ({names} ...)")
    return picks, electrodes


def _samples(raw, picks, first, last):
    """Microvolts float64 [C, N]."""
    x = raw.get_data(picks, first, last, verbose="error")
    if x.shape != (len(picks), last - first):
        raise Unusable(f"samples {first} to {last} are not there; its header promises more than the file holds")
    x *= 1e6
    return x


def _mains(raw, source, settings, sample, rate, outcome):
    header = raw.info.get("line_freq")
    known = {"option": settings.mains, "sidecar": source.mains, "header": header}
    for origin, value in known.items():
        if value:
            outcome.mains, outcome.mains_from = float(value), origin
            return outcome.mains
    found = detect_mains(quality.fill_gaps(sample), rate)
    outcome.mains, outcome.mains_from = found, "spectrum" if found else "none seen in the spectrum"
    return found


def _good(bad):
    """Channels [places], first and last second of each part that is good in all of them; bad is bool [C, S]."""
    channels = np.flatnonzero(bad.mean(axis=1) <= MOSTLY_BAD)
    if not len(channels):
        return
    good = np.concatenate([[False], ~bad[channels].any(axis=0), [False]])
    edges = np.flatnonzero(np.diff(good))
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist()):
        if end - start >= min(SHORTEST, bad.shape[1]):
            yield channels, start, end
