"""What makes a recording the same recording under another name: its samples."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neurolm_jax.eeg import quality
from neurolm_jax.eeg.preprocessing import choose_channels

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

LOOK = 120  # seconds in the middle that are looked at for unit, copies of channels and mains
STRETCH = 256  # seconds read at a time


class ContentHash:
    """SHA-256 of samples as read, fed a stretch at a time: channel by channel, then over the channels' digests."""

    def __init__(self, channels: int):
        self._channels = [hashlib.sha256() for _ in range(channels)]

    def update(self, x: np.ndarray) -> None:
        """Go on with samples x [C, N], microvolts."""
        for digest, samples in zip(self._channels, np.ascontiguousarray(x, np.float64)):
            digest.update(samples)

    def hexdigest(self) -> str:
        return hashlib.sha256(b"".join(digest.digest() for digest in self._channels)).hexdigest()


def recording_hash(raw: "mne.io.BaseRaw", first: int = 0, last: int | None = None) -> str:
    """Of samples ``first`` to ``last`` of an ``mne.io.Raw``: of all electrodes that the vocabulary has and that are no
    copies of others, whichever of them a task reads or a sidecar calls bad. "" if there are none.

    Samples are read in stretches of their own: where MNE resamples channels, which ``reading.corrected`` avoids, they
    depend on what is read at once (see ``reads_alike``).
    """
    names = list(choose_channels(raw)[0])
    if not names:
        return ""
    copies = quality.copies(raw.get_data(names, *middle(raw), verbose="warning") * 1e6)
    picks = [name for place, name in enumerate(names) if place not in copies]
    found, step = ContentHash(len(picks)), round(STRETCH * raw.info["sfreq"])
    last = raw.n_times if last is None else last
    for begin in range(first, last, step):
        found.update(raw.get_data(picks, begin, min(begin + step, last), verbose="warning") * 1e6)
    return found.hexdigest()


def reads_alike(raw: "mne.io.BaseRaw", picks: Sequence[str], sample: np.ndarray) -> bool:
    """Whether a part of the middle, whose ``sample`` is in microvolts, is the same if read alone."""
    first, last = middle(raw)
    third = (last - first) // 3
    alone = raw.get_data(picks, first + third, first + 2 * third, verbose="warning") * 1e6
    return np.array_equal(alone, sample[:, third : 2 * third], equal_nan=True)


def middle(raw: "mne.io.BaseRaw") -> tuple[int, int]:
    """First and last sample of the ``LOOK`` seconds in the middle of a recording, or of all of it."""
    length = round(LOOK * raw.info["sfreq"])
    first = max(0, (raw.n_times - length) // 2)
    return first, min(raw.n_times, first + length)
