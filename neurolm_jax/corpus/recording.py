"""One recording into records, a few minutes at a time: memory does not grow with its length."""

import collections
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from neurolm_jax.corpus.sources import Source
from neurolm_jax.eeg import quality
from neurolm_jax.eeg.electrodes import VOCABULARY
from neurolm_jax.eeg.fingerprint import fingerprint
from neurolm_jax.eeg.identity import ContentHash, middle, reads_alike, recording_hash
from neurolm_jax.eeg.mains import detect_mains
from neurolm_jax.eeg.montage import read_montage, unknown_montage
from neurolm_jax.eeg.opening import Unreadable, accepted, open_raw
from neurolm_jax.eeg.positions import with_places
from neurolm_jax.eeg.preprocessing import RATE, Preprocessing, check_rate, choose_channels
from neurolm_jax.eeg.records import Record
from neurolm_jax.eeg.renaming import rename
from neurolm_jax.eeg.stretches import read_microvolts, stretches
from neurolm_jax.eeg.timeline import timeline

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

PIECE = 16  # seconds in one record: a window takes some of them, and little that it does not need
SHORTEST = 2  # seconds of a stretch between bad ones that are worth keeping


class Unusable(Exception):
    """Nothing of the recording can be used; the message says why."""


class ExcludedRecording(Unusable):
    """It must not be used: it belongs to a set that is tested on."""


@dataclasses.dataclass
class Outcome:
    """What became of a recording, as the manifest has it. Hours are those of the recording, channels counted once.

    outcome: used, skipped or excluded. channels: names of those used, and electrodes: what they are in the vocabulary;
    left_out: reason by channel not used.
    hash: of the samples as read; fingerprint: what exports of other scales share, see ``eeg.fingerprint``.
    dropped_seconds: cut out of all channels; bad_channel_seconds: by kind, what was bad in a channel. jumps: how often
    time jumps, by kind; warnings: how often each was given while the recording was read, by kind.
    participant, scan, events: of a BIDS tree, the rows of participants.tsv and scans.tsv, and how often each trial type
    occurs.
    """

    name: str
    outcome: str = "used"
    reason: str | None = None
    hash: str | None = None
    fingerprint: str = ""
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
    electrodes: list[str] = dataclasses.field(default_factory=list)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    dropped_seconds: float = 0.0
    bad_channel_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    jumps: dict[str, int] = dataclasses.field(default_factory=dict)
    warnings: dict[str, int] = dataclasses.field(default_factory=dict)
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
        raw = open_raw(source.path, **accepted(source.path, dict(source.options)))
    except Unreadable as error:
        raise Unusable(str(error)) from error
    return rename(with_places(raw, dict(source.positions)), dict(source.renaming), source.name)


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
    check_rate(raw, source.name)
    line = timeline(raw)
    outcome.jumps = line.jumps
    picks, electrodes = _choose(raw, source, outcome)
    sample = read_microvolts(raw, picks, *middle(raw))
    deviations = quality.deviations(sample, rate)
    if fault := quality.unit_fault(deviations):
        raise Unusable(fault)
    refused = quality.scale_faults(deviations)
    for copy, (original, lag) in quality.copies(sample).items():
        how = "exactly" if lag == 0 else f"shifted by {abs(lag)} samples"
        refused.setdefault(copy, f"copies {outcome.channels[original]} {how}")
    for channel in sorted(refused, reverse=True):
        outcome.left_out[outcome.channels[channel]] = refused[channel]
        for sequence in (picks, electrodes, outcome.channels, outcome.electrodes):
            del sequence[channel]
    kept_sample = np.delete(sample, list(refused), axis=0)
    mains = _mains(raw, source, settings, kept_sample, rate, outcome)

    # What is read for filtering makes the hash, where that is what ``recording_hash`` would read.
    whole = sum(last - first for first, last in line.spans) == length
    plain = not source.left_out and not quality.scale_faults(deviations)
    digest = ContentHash(len(picks)) if whole and plain and reads_alike(raw, picks, kept_sample) else None
    bad, kept = collections.Counter(), 0
    on_read = digest.update if digest else lambda x: None
    for part in stretches(raw, picks, line, settings.low, settings.high, mains, on_read):
        bad.update(quality.counts(part.flags, RATE))
        for channels, start, end in quality.good_runs(part.flags, SHORTEST * RATE):
            kept += end - start
            for first in range(start, end, PIECE * RATE):
                yield Record(
                    samples=part.samples[channels, first : min(first + PIECE * RATE, end)],
                    electrodes=tuple(electrodes[c] for c in channels),
                    source=corpus,
                    recording=source.name,
                    subject=source.subject,
                    session=source.session,
                    reference=source.reference,
                    start=(part.first + first) / RATE,
                    span=part.span,
                )
    outcome.hash = digest.hexdigest() if digest else recording_hash(raw)
    outcome.fingerprint = fingerprint(raw)
    outcome.hours, outcome.dropped_seconds = kept / RATE / 3600, round(length / rate - kept / RATE, 3)
    outcome.bad_channel_seconds = {kind: round(bad[kind], 3) for kind in quality.KINDS if bad[kind]}
    if not kept:
        found = ", ".join(f"{kind} {count:g} channel-seconds" for kind, count in outcome.bad_channel_seconds.items())
        raise Unusable(f"no {SHORTEST} seconds in a row are fit for use ({found or 'too short'})")


def _choose(raw, source, outcome):
    """Places in ``raw`` and ids of the channels to use, names into ``outcome``."""
    renaming = dict(source.renaming)
    reasons = {renaming.get(name, name): reason for name, reason in source.left_out}
    if fault := unknown_montage(raw, [name for name, reason in reasons.items() if reason.startswith("of type")]):
        raise Unusable(fault)
    chosen, left_out = choose_channels(raw, reasons)
    outcome.left_out |= left_out
    outcome.channels += chosen
    outcome.electrodes += [VOCABULARY[electrode] for electrode in chosen.values()]
    channels = read_montage(raw).channels
    references = (channels[name].reference for name in chosen)
    outcome.reference = outcome.reference or next(filter(None, references), None)
    picks, electrodes = [raw.ch_names.index(name) for name in chosen], list(chosen.values())
    if not picks:
        names = ", ".join(raw.ch_names[:8])
        raise Unusable(f"none of its {len(raw.ch_names)} channels is an electrode of the vocabulary ({names} ...)")
    return picks, electrodes


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
