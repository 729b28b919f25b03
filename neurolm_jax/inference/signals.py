"""Recordings and epochs as windows of microvolts at 200 Hz; memory does not grow with a recording's length."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neurolm_jax.eeg import quality
from neurolm_jax.eeg.electrodes import VOCABULARY
from neurolm_jax.eeg.filtering import mne_pipeline
from neurolm_jax.eeg.mains import detect_mains
from neurolm_jax.eeg.montage import unknown_montage
from neurolm_jax.eeg.preprocessing import RATE, Preprocessing, check_rate, choose_channels
from neurolm_jax.eeg.reading import corrected
from neurolm_jax.eeg.stretches import middle_sample, resampled_spans, stretches
from neurolm_jax.eeg.tasks.readers import duration_of, foreign_bytes
from neurolm_jax.eeg.timeline import timeline
from neurolm_jax.errors import UserError
from neurolm_jax.inference.windows import window_begins

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

UNITS = {"uV": 1.0, "µV": 1.0, "μV": 1.0, "mV": 1e3, "V": 1e6}  # microvolts in each; two letters look like one
TOGETHER = 64  # epochs that are resampled at once


class Window(NamedTuple):
    """samples [C, S * 200] float32 microvolts; bad [S, C], which seconds are bad, see ``quality``."""

    samples: np.ndarray
    bad: np.ndarray


class Recording:
    """A recording of any length, to be read window by window.

    Args:
      name: what to call it in an error.
      settings: band edges, and the mains if they are known for sure.
      left_out: channels that are not used for reasons known already.
      mains: Hz, of a sidecar; by default of the header, else of the spectrum.

    Attributes:
      channels, electrodes: names of the channels used, and the ids of their electrodes.
      left_out: reason by channel not used.
      mains: Hz that are notched, None for none.

    Raises:
      UserError: no known electrode, sampled too slowly, samples that are no EEG's or cannot be read.
    """

    def __init__(
        self,
        raw: "mne.io.BaseRaw",
        name: str,
        settings: Preprocessing = Preprocessing(),
        left_out: Mapping[str, str] | None = None,
        mains: float | None = None,
    ):
        with foreign_bytes(name):
            raw = corrected(raw)
        self._raw, self._name = raw, name
        check_rate(raw, name)
        if duration_of(raw) < 1:
            raise UserError(f"{name}: too short, {duration_of(raw):.1f} s")
        chosen, self.left_out = _choose(raw, name, left_out)
        with foreign_bytes(name):
            sample, _ = middle_sample(raw, list(chosen), name)
        names = list(chosen)
        for copy, (original, _) in quality.copies(sample).items():
            self.left_out[names[copy]] = f"copies {names[original]}"
            del chosen[names[copy]]
        self._picks = [raw.ch_names.index(channel) for channel in chosen]
        self.channels, self.electrodes = tuple(chosen), tuple(chosen.values())
        self.mains = None
        if settings.mains or settings.low or settings.high:
            known = settings.mains or mains or raw.info.get("line_freq")
            self.mains = known or detect_mains(quality.fill_gaps(sample), float(raw.info["sfreq"]))
        self._edges, self._timeline = (settings.low, settings.high), timeline(raw)

    def begins(self, seconds: int, every: float) -> np.ndarray:
        """First samples, at 200 Hz, of its windows, which begin anew after each jump of time.

        Raises:
          UserError: it is shorter than one.
        """
        spans = [(span.first, span.last) for span in resampled_spans(self._raw, self._timeline)]
        begins = window_begins(spans, seconds, every)
        if not len(begins):
            raise UserError(f"{self._name}: too short, {duration_of(self._raw):.1f} s; a window has {seconds} s")
        return begins

    def windows(self, begins: np.ndarray, seconds: int) -> Iterator[Window]:
        """The windows of so many seconds that begin at these samples, in order."""
        length, place, span, first = seconds * RATE, 0, None, 0
        samples = flags = np.zeros((len(self._picks), 0))
        with foreign_bytes(self._name):
            for part in stretches(self._raw, self._picks, self._timeline, *self._edges, self.mains):
                if part.span != span:
                    samples, flags, span, first = part.samples, part.flags, part.span, part.first
                else:
                    unused = int(np.clip(begins[place] - first, 0, samples.shape[1]))
                    samples = np.concatenate([samples[:, unused:], part.samples], axis=1)
                    flags = np.concatenate([flags[:, unused:], part.flags], axis=1)
                    first += unused
                while place < len(begins) and begins[place] + length <= first + samples.shape[1]:
                    here = slice(int(begins[place]) - first, int(begins[place]) - first + length)
                    bad = np.any((flags[:, here] > 0).reshape(len(flags), seconds, RATE), axis=2)
                    yield Window(samples[:, here], bad.T)
                    place += 1
                if place == len(begins):
                    return


class Epochs(NamedTuple):
    """Windows that somebody has cut: microvolts [n, C, T] at 200 Hz, float32, in whole seconds.

    onsets: seconds of their first samples in the recording [n], NaN where they are not known.
    """

    samples: np.ndarray
    onsets: np.ndarray
    channels: tuple[str, ...]
    electrodes: tuple[int, ...]
    left_out: dict[str, str]


def epochs_of(
    windows: Any,
    channels: Sequence[str] | None,
    rate: float | None,
    unit: str | None,
    seconds: int | None,
    longest: int,
    name: str = "epochs",
) -> Epochs:
    """Resample epochs to 200 Hz; of each its middle whole seconds are taken. Nothing is filtered.

    Args:
      windows: an ``mne.Epochs`` of any kind, a list of those, or an array [n, C, T] with ``channels``, ``rate`` and
        ``unit``.
      seconds: of a window, None for all that an epoch has.
      longest: seconds that a window may have.

    Raises:
      UserError: epochs that are too short, too long, of no known electrode, or no EEG by their amplitudes; NaN.
    """
    data, onsets, info = _arrays(windows, channels, rate, unit, name)
    rate = float(info.info["sfreq"])
    check_rate(info, name)
    chosen, left_out = _choose(info, name)
    data = data[:, [info.ch_names.index(channel) for channel in chosen]]
    if not len(data):
        raise UserError(f"{name}: there is none")
    whole = round(data.shape[2] * RATE / rate) // RATE
    if whole < (seconds or 1):
        raise UserError(f"{name}: too short, {data.shape[2] / rate:.2f} s; a window has {seconds or 1} s")
    if (seconds or whole) > longest:
        raise UserError(f"{name}: {seconds or whole} s; the model reads {longest} s or less, so give seconds")
    for number, epoch in enumerate(data):
        if not np.isfinite(epoch).all():
            channel = list(chosen)[int(np.argmin(np.isfinite(epoch).all(axis=1)))]
            raise UserError(f"{name}: NaN or infinite samples in number {number}, channel {channel}; leave it out")
    some = np.concatenate([*data[:TOGETHER]], axis=1)
    if fault := quality.unit_fault(quality.deviations(some, rate)):
        raise UserError(f"{name}: {fault}")
    seconds = seconds or whole
    samples = np.empty((len(data), data.shape[1], seconds * RATE), np.float32)
    begin = 0
    for first in range(0, len(data), TOGETHER):
        y = mne_pipeline(np.asarray(data[first : first + TOGETHER], np.float64), rate, None, None, None)
        begin = (y.shape[2] - seconds * RATE) // 2
        samples[first : first + TOGETHER] = y[:, :, begin : begin + seconds * RATE]
    return Epochs(samples, onsets + begin / RATE, tuple(chosen), tuple(chosen.values()), left_out)


def recording_of(samples: np.ndarray, channels: Sequence[str], rate: float, unit: str | None) -> "mne.io.BaseRaw":
    """An array [C, T] of a whole recording as MNE has them."""
    import mne

    return mne.io.RawArray(samples * (scale_of(unit) * 1e-6), _info(len(samples), channels, rate), verbose="error")


def scale_of(unit: str | None) -> float:
    """Microvolts in a unit.

    Raises:
      UserError: it is not known, or was not told.
    """
    if unit not in UNITS:
        raise UserError(f"unit: an array needs one, 'uV', 'mV' or 'V', not {unit!r}")
    return UNITS[unit]


def electrode_names(electrodes: Sequence[int]) -> tuple[str, ...]:
    """Names of electrodes in the vocabulary."""
    return tuple(VOCABULARY[electrode] for electrode in electrodes)


def is_epochs(x: Any) -> bool:
    """Whether an object has many windows: an array [n, C, T], MNE's epochs, or a list of those."""
    if isinstance(x, (list, tuple)):
        return bool(x) and all(hasattr(part, "events") for part in x)
    return hasattr(x, "events") and hasattr(x, "get_data") or getattr(x, "ndim", 0) == 3


class _Described(NamedTuple):
    """As much of an ``mne.io.Raw`` as choosing channels wants."""

    info: Any
    ch_names: list[str]

    def get_channel_types(self) -> list[str]:
        return self.info.get_channel_types()


def _arrays(windows, channels, rate, unit, name):
    """Microvolts [n, C, T] of all channels, onsets [n], and what describes them."""
    if not hasattr(windows, "ndim"):
        if channels is not None or rate is not None or unit is not None:
            raise UserError(f"{name}: MNE's objects know their channels, rate and unit (volts); leave them out")
        parts = list(windows) if isinstance(windows, (list, tuple)) else [windows]
        # Which of those on disk are dropped is known when they are read.
        parts = [part if part.preload else part.copy().drop_bad(verbose="error") for part in parts]
        if len({(tuple(part.ch_names), part.info["sfreq"], len(part.times)) for part in parts}) > 1:
            raise UserError(f"{name}: of different channels, rates or lengths")
        data = np.concatenate([part.get_data(verbose="error") for part in parts]) * 1e6
        onsets = np.concatenate([part.events[:, 0] / part.info["sfreq"] + part.tmin for part in parts])
        return data, onsets, _Described(parts[0].info, parts[0].ch_names)
    if channels is None or rate is None:
        raise UserError(f"{name}: an array needs channels, their names, and rate, in Hz")
    windows = np.asarray(windows)
    if windows.dtype.kind not in "fiu":
        raise UserError(f"{name}: want an array of numbers, not of {windows.dtype}")
    info = _info(windows.shape[1], channels, rate)
    return windows * scale_of(unit), np.full(len(windows), np.nan), _Described(info, info.ch_names)


def _info(count, channels, rate):
    import mne

    channels = [str(channel) for channel in channels]
    if len(channels) != count:
        raise UserError(f"channels: {len(channels)} names of {count} channels")
    if twice := [channel for channel in channels if channels.count(channel) > 1]:
        raise UserError(f"channels: {twice[0]} is named twice")
    if not (np.isscalar(rate) and 0 < rate < float("inf")):
        raise UserError(f"rate: want Hz, more than 0, not {rate!r}")
    return mne.create_info(channels, float(rate), "eeg", verbose="error")


def _choose(raw, name, left_out=None):
    if fault := unknown_montage(raw):
        raise UserError(f"{name}: {fault}")
    chosen, left_out = choose_channels(raw, left_out)
    if not chosen:
        raise UserError(f"{name}: none of its channels is a known electrode ({', '.join(raw.ch_names[:8])} ...)")
    return chosen, left_out
