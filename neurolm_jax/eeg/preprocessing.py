"""From an MNE recording to microvolts at 200 Hz (paper, section 3.1)."""

import dataclasses

import numpy as np

from neurolm_jax.eeg.electrodes import electrode_id
from neurolm_jax.errors import UserError

RATE = 200  # Hz


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Band edges and mains frequency in Hz; None leaves that step out (slow potentials live below 0.1 Hz)."""

    low: float | None = 0.1
    high: float | None = 75.0
    mains: float | None = None


@dataclasses.dataclass(frozen=True)
class Signal:
    """samples [C, N] float32 microvolts at 200 Hz, and the C electrode ids."""

    samples: np.ndarray
    electrodes: tuple[int, ...]


def preprocess(raw, settings: Preprocessing, name: str) -> Signal:
    """Keep known electrodes, band-pass, notch, resample to 200 Hz, convert to microvolts.

    Args:
      raw: an ``mne.io.Raw``, left as it is.
      name: what to call the recording in an error.

    Raises:
      UserError: no known electrode, two channels for one electrode, NaN or infinity among the samples, a recording of
        less than one second.
    """
    places = {channel: electrode_id(channel) for channel in raw.ch_names}
    known = [channel for channel, place in places.items() if place is not None]
    if not known:
        raise UserError(f"{name}: none of its channels is a known electrode ({', '.join(raw.ch_names[:8])} ...)")
    electrodes = tuple(places[channel] for channel in known)
    if len(set(electrodes)) < len(electrodes):
        twice = next(channel for channel in known if electrodes.count(places[channel]) > 1)
        raise UserError(f"{name}: more than one channel for electrode {twice}; drop or rename one of them")
    if raw.times[-1] + 1 / raw.info["sfreq"] < 1:
        raise UserError(f"{name}: shorter than one second")

    raw = raw.copy().load_data(verbose="error").pick(known, verbose="error")
    bad = [channel for channel, x in zip(known, raw.get_data()) if not np.isfinite(x).all()]
    if bad:
        raise UserError(f"{name}: NaN or infinite samples in {', '.join(bad)}; mend or cut the recording")
    nyquist = raw.info["sfreq"] / 2
    high = settings.high if settings.high and settings.high < nyquist else None
    if settings.low or high:
        raw.filter(settings.low, high, picks="all", verbose="error")
    if settings.mains and settings.mains < nyquist:
        raw.notch_filter(settings.mains, picks="all", verbose="error")
    raw.resample(RATE, verbose="error")
    return Signal(np.float32(raw.get_data() * 1e6), electrodes)
