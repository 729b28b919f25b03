"""A recording of the user's own, read, filtered and judged as a corpus is."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from neurolm_jax.eeg import quality
from neurolm_jax.eeg.electrodes import MIDLINE, VOCABULARY
from neurolm_jax.eeg.mains import detect_mains
from neurolm_jax.eeg.montage import read_montage, unknown_montage
from neurolm_jax.eeg.preprocessing import Preprocessing, Signal, choose_channels, known_channels, preprocess
from neurolm_jax.eeg.stretches import middle_sample
from neurolm_jax.eeg.tasks.readers import foreign_bytes
from neurolm_jax.eeg.timeline import timeline
from neurolm_jax.errors import UserError

if TYPE_CHECKING:  # MNE takes a second to import
    import mne


def choose(
    raw: "mne.io.BaseRaw", wanted: Sequence[str], name: str
) -> tuple[dict[str, int], dict[str, str], tuple[str, ...]]:
    """Return electrode id by name of the channels to use, the reasons for the others, and what to say about them.

    Args:
      wanted: electrodes that the model was trained with; () for all.

    Raises:
      UserError: no channel is a known electrode, or too few are.
    """
    if fault := unknown_montage(raw):
        raise UserError(f"{name}: {fault}")
    chosen, left_out = choose_channels(raw)
    if not chosen:
        reasons = "; ".join(f"{channel}: {reason}" for channel, reason in list(left_out.items())[:4])
        raise UserError(f"{name}: no channel is left of it ({reasons})")
    trained = {channel: electrode for channel, electrode in known_channels(raw, wanted).items() if channel in chosen}
    if not trained:
        notes = ("none of its electrodes is among those that the task was trained with",)
        return chosen, left_out, (*notes, *_midline_references(raw, chosen))
    others = [channel for channel in chosen if channel not in trained]
    left_out |= dict.fromkeys(others, "not among the electrodes of the task")
    return trained, left_out, _midline_references(raw, trained)


def _midline_references(raw, channels):
    """Notes on channels that are measured against an electrode on the scalp, and read as if they were not."""
    montage = read_montage(raw).channels
    against = [name for name in channels if montage[name].reference in MIDLINE]
    if not against:
        return ()
    read = ", ".join(f"{name} as {VOCABULARY[channels[name]]}" for name in against[:4])
    return (f"measured against an electrode on the scalp, and read as the first one: {read}",)


class Prepared(NamedTuple):
    """A recording as the model reads it.

    Attributes:
      signal: of the channels.
      channels: their names.
      refused: reason by name of those that are dead or of another scale.
      mains: Hz that were notched, None for none.
    """

    signal: Signal
    channels: list[str]
    refused: dict[str, str]
    mains: float | None


def prepare(
    raw: "mne.io.BaseRaw", places: Mapping[str, int], settings: Preprocessing, mains: float | None, name: str
) -> Prepared:
    """Filter some channels as training does, without those that are dead or of another scale.

    Args:
      places: electrode id by name of the channels.
      mains: Hz, None to have it found.

    Raises:
      UserError: samples that are no EEG's, or cannot be read.
    """
    channels = list(places)
    with foreign_bytes(name):
        sample, refused = middle_sample(raw, channels, name)
    if settings.mains or settings.low or settings.high:
        detected = detect_mains(quality.fill_gaps(sample), float(raw.info["sfreq"]))
        mains = mains or raw.info.get("line_freq") or detected or settings.mains
    settings = dataclasses.replace(settings, mains=mains and float(mains))
    channels = [channel for channel in channels if channel not in refused]
    with foreign_bytes(name):
        signal = preprocess(raw, settings, name, places={channel: places[channel] for channel in channels})
    fit = quality.fitness(signal.flags).channels
    if 0 < len(fit) < len(channels):
        dead = quality.MOSTLY_BAD
        refused |= {c: f"bad in more than {dead:.0%} of the recording" for i, c in enumerate(channels) if i not in fit}
        channels = [channels[i] for i in fit]
        signal = signal.keep(fit)
    return Prepared(signal, channels, refused, settings.mains)


def reading_notes(
    marks: Sequence[Sequence[str]], raw: "mne.io.BaseRaw", warnings: Mapping[str, int]
) -> tuple[str, ...]:
    """Return what to say about windows' marks, jumps of time and warnings by kind."""
    notes = []
    bad = collections.Counter(kind for kinds in marks for kind in kinds)
    if bad:
        words = ", ".join(f"{quality.describe([kind])} in {count:,}" for kind, count in bad.items())
        notes.append(f"{sum(map(bool, marks)):,} of {len(marks):,} windows are partly bad: {words}")
    if jumps := timeline(raw).jumps:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in jumps.items())
        notes.append(f"time jumps within the recording ({kinds}); no window crosses a jump")
    return (*notes, *warning_notes(warnings))


def warning_notes(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Return what to say about warnings that were given while a recording was read, counted by kind."""
    return tuple(f"while reading, {count:,} times: {kind}" for kind, count in counts.items())
