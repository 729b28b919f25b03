"""From an MNE recording to microvolts at 200 Hz (paper, section 3.1)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from neurolm_jax.eeg.electrodes import VOCABULARY, electrode_id, shared_id
from neurolm_jax.eeg.montage import read_montage, unknown_montage
from neurolm_jax.eeg.reading import corrected, dropped_channels, own_rate
from neurolm_jax.errors import UserError

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

RATE = 200  # Hz
LOWEST_RATE = 64  # Hz, of a recording


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Band edges and mains frequency in Hz; None leaves that step out (slow potentials live below 0.1 Hz)."""

    low: float | None = 0.1
    high: float | None = 75.0
    mains: float | None = None

    def __post_init__(self):
        for name in ("low", "high", "mains"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and 0 < value < float("inf")):
                raise UserError(f"preprocessing: {name}: want Hz, more than 0, or None, not {value!r}")
        if self.low and self.high and self.low >= self.high:
            raise UserError(f"preprocessing: low: want less than high, {self.high:g} Hz, not {self.low:g}")


@dataclasses.dataclass(frozen=True)
class Signal:
    """A recording as the models read it.

    Attributes:
      samples: [C, N] float32 microvolts at 200 Hz.
      electrodes: ids [C].
      flags: [C, N] uint8, what is wrong with each sample, see ``quality.BITS``; None where nobody has looked.
      spans: first and last sample of each part without a jump of time; () for one.
    """

    samples: np.ndarray
    electrodes: tuple[int, ...]
    flags: np.ndarray | None = None
    spans: tuple[tuple[int, int], ...] = ()

    def keep(self, rows: Sequence[int]) -> "Signal":
        """The same recording with some of its channels."""
        flags = None if self.flags is None else self.flags[rows]
        return Signal(self.samples[rows], tuple(self.electrodes[row] for row in rows), flags, self.spans)

    def same_span(self, first: int, last: int) -> bool:
        """Whether no jump of time lies between samples ``first`` and ``last``."""
        return not self.spans or any(begin <= first and last <= end for begin, end in self.spans)


def preprocess(
    raw: "mne.io.BaseRaw",
    settings: Preprocessing,
    name: str,
    channels: Sequence[str] = (),
    places: Mapping[str, int] | None = None,
) -> Signal:
    """Keep known electrodes, band-pass, notch, resample to 200 Hz, convert to microvolts.

    Args:
      raw: an ``mne.io.Raw``, left as it is.
      name: what to call the recording in an error.
      channels: electrodes to keep, by name; () keeps all that the vocabulary has.
      places: electrode id by name of the channels to keep, where they are chosen already: names of a part of a
        recording do not tell what those of all of it told.

    Raises:
      UserError: no known electrode, or too few of them; two channels for one electrode, NaN or infinity among the
        samples, a recording of less than one second or sampled too slowly.
    """
    from neurolm_jax.eeg import quality
    from neurolm_jax.eeg.filtering import mne_clock
    from neurolm_jax.eeg.stretches import stretches
    from neurolm_jax.eeg.timeline import timeline

    raw = corrected(raw)
    if places is None:
        places = checked_channels(raw, name, channels)
    known, electrodes = list(places), tuple(places.values())
    shared = [shared_id(electrode) for electrode in electrodes]
    if len(set(shared)) < len(shared):
        twice = next(channel for channel in known if shared.count(shared_id(places[channel])) > 1)
        raise UserError(f"{name}: more than one channel for electrode {twice}; drop or rename one of them")
    check_rate(raw, name)
    if raw.times[-1] + 1 / raw.info["sfreq"] < 1:
        raise UserError(f"{name}: shorter than one second")

    shape = len(known), mne_clock(float(raw.info["sfreq"]), raw.n_times).length
    samples, flags = np.zeros(shape, np.float32), np.full(shape, quality.BITS["missing"])
    spans: dict[int, tuple[int, int]] = {}
    picks = [raw.ch_names.index(channel) for channel in known]
    for part in stretches(raw, picks, timeline(raw), settings.low, settings.high, settings.mains):
        last = part.first + part.samples.shape[1]
        samples[:, part.first : last], flags[:, part.first : last] = part.samples, part.flags
        spans[part.span] = spans.get(part.span, (part.first,))[0], last
        missing = (part.flags & quality.BITS["missing"]).any(axis=1)
        if missing.any():
            bad = ", ".join(known[row] for row in np.flatnonzero(missing))
            raise UserError(f"{name}: NaN or infinite samples in {bad}; correct or cut the recording")
    return Signal(samples, electrodes, flags, tuple(spans.values()))


def below_nyquist(frequency: float | None, rate: float) -> float | None:
    """A filter's frequency, Hz, or None where samples at ``rate`` Hz have nothing there to filter."""
    return frequency if frequency and frequency < rate / 2 else None


def check_rate(raw: "mne.io.BaseRaw", name: str) -> None:
    """Raises UserError where a recording is sampled too slowly for EEG."""
    rate = min(own_rate(raw), raw.info["sfreq"])
    if rate < LOWEST_RATE:
        raise UserError(f"{name}: sampled at {rate:g} Hz; EEG needs {LOWEST_RATE} Hz or more")


def known_channels(raw: "mne.io.BaseRaw", channels: Sequence[str] = ()) -> dict[str, int]:
    """Electrode id by channel name, of those ``channels`` of a recording that the vocabulary has (() for all)."""
    wanted = {shared_id(electrode) for name in channels if (electrode := electrode_id(name)) is not None}
    places = {name: channel.electrode for name, channel in read_montage(raw).channels.items()}
    return {name: place for name, place in places.items() if not channels or shared_id(place) in wanted}


def checked_channels(raw: "mne.io.BaseRaw", name: str, channels: Sequence[str] = ()) -> dict[str, int]:
    """Electrode id by channel name, as ``known_channels`` has them, of a recording whose names can be trusted.

    Raises:
      UserError: none of its channels is wanted, or most of its electrodes are unknown.
    """
    places = known_channels(raw, channels)
    if channels and not places:
        raise UserError(
            f"{name}: none of its channels is one of the wanted electrodes ({', '.join(raw.ch_names[:8])} ...)"
        )
    if fault := unknown_montage(raw):
        raise UserError(f"{name}: {fault}")
    return places


def choose_channels(
    raw: "mne.io.BaseRaw", told: Mapping[str, str] | None = None
) -> tuple[dict[str, int], dict[str, str]]:
    """Of any recording: electrode id by name of the channels to use, and the reason by name of those left out.

    Args:
      told: names that are left out for reasons known already.
    """
    montage = read_montage(raw)
    chosen: dict[str, int] = {}
    left_out: dict[str, str] = {}
    twins: dict[int, str] = {}
    for name, kind in zip(raw.ch_names, raw.get_channel_types()):
        channel = montage.channels.get(name)
        if told and name in told:
            left_out[name] = told[name]
        elif name in raw.info["bads"]:
            left_out[name] = "marked bad"
        elif channel is None:
            left_out[name] = montage.reasons.get(name, "no electrode of the vocabulary")
        elif kind not in ("eeg", "misc"):
            left_out[name] = f"of type {kind}"
        elif (place := shared_id(channel.electrode)) in twins:
            left_out[name] = f"a second channel at {VOCABULARY[place]}, after {twins[place]}"
        else:
            chosen[name], twins[place] = channel.electrode, name
    return chosen, dropped_channels(raw) | left_out
