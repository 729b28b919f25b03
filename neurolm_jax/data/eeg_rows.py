"""Rows of EEG tokens for the tokenizer and for autoregression."""

from collections.abc import Sequence

import numpy as np

from neurolm_jax.data.packing import RowPlan
from neurolm_jax.data.shards import Shards
from neurolm_jax.eeg.electrodes import PAD
from neurolm_jax.eeg.preprocessing import RATE
from neurolm_jax.eeg.records import decode
from neurolm_jax.errors import UserError

MICROVOLTS = 100.0  # the models read EEG in units of 100 microvolts


class EEGRows:
    """Windows of whole seconds over all records of some shards, packed into rows of ``length`` tokens.

    A window is as long as fits a row (``length // channels`` seconds, at most ``seconds``); what a record has left over
    moves its windows' start at random while training.

    Args:
      seed: of order and starts; None for a fixed order and fixed starts (evaluation).
    """

    def __init__(self, corpora: Sequence[Shards], length: int, seconds: int, seed: int | None):
        self._sources = [shards.source for shards in corpora]
        self._length, self._seed = length, seed
        windows = [window for k, shards in enumerate(corpora) for window in _windows(k, shards, length, seconds)]
        if not windows:
            raise UserError(f"no EEG of a second or more in {', '.join(str(s.path) for s in corpora)}")
        # columns: corpus, record, start second, seconds, spare samples, tokens
        self._windows = np.array(windows, np.int64)
        self._plan = RowPlan(self._windows[:, 5:], (length,), seed)

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        epoch, samples = self._plan.row(index)
        row = empty_row(self._length)
        place = 0
        for segment, sample in enumerate(samples, start=1):
            corpus, number, start, seconds, spare, _ = self._windows[sample]
            record = decode(self._sources[corpus][int(number)])
            moved = 0
            if self._seed is not None and spare:
                moved = np.random.default_rng((self._seed, epoch, sample)).integers(spare + 1)
            begin = start * RATE + moved
            place = fill_row(row, place, segment, record.samples[:, begin : begin + seconds * RATE], record.electrodes)
        return row


def empty_row(length: int) -> dict[str, np.ndarray]:
    """A row of padding: patches [T, 200] float32 in 100 microvolts, channel, second and segment [T] int32."""
    return {
        "patches": np.zeros((length, RATE), np.float32),
        "channel": np.full(length, PAD, np.int32),
        "second": np.zeros(length, np.int32),
        "segment": np.zeros(length, np.int32),
    }


def fill_row(row: dict, place: int, segment: int, samples: np.ndarray, electrodes: Sequence[int]) -> int:
    """Put samples [C, S * 200] in microvolts at ``place`` of a row, time-major; returns the next free place."""
    channels, seconds = len(samples), samples.shape[1] // RATE
    stop = place + channels * seconds
    patches = samples.reshape(channels, seconds, RATE).swapaxes(0, 1).reshape(-1, RATE)
    row["patches"][place:stop] = patches / MICROVOLTS
    row["channel"][place:stop] = np.tile(np.asarray(electrodes, np.int32), seconds)
    row["second"][place:stop] = np.repeat(np.arange(seconds, dtype=np.int32), channels)
    row["segment"][place:stop] = segment
    return stop


def _windows(corpus, shards, length, seconds):
    index = shards.manifest["index"]
    for number, (channels, samples) in enumerate(zip(index.get("channels", []), index.get("samples", []))):
        whole = samples // RATE
        longest = min(length // channels, seconds)
        if longest == 0:
            raise UserError(f"{shards.path}: record {number} has {channels} channels, a row only {length} tokens")
        for start in range(0, whole, longest):
            size = min(longest, whole - start)
            yield corpus, number, start, size, samples - whole * RATE, size * channels
