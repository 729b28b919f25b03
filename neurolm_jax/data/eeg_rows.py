"""Rows of EEG tokens for the tokenizer and for autoregression."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from neurolm_jax.data.packing import RowPlan
from neurolm_jax.data.shards import DamagedRecord, Shards, content_of
from neurolm_jax.data.streams import Amount, Damaged
from neurolm_jax.eeg.electrodes import PAD, shared_id
from neurolm_jax.eeg.preprocessing import RATE
from neurolm_jax.eeg.records import unpack
from neurolm_jax.errors import UserError

MICROVOLTS = 100.0  # the models read EEG in units of 100 microvolts


class Runs(NamedTuple):
    """Stretches without a gap, each of one or more records in a row: arrays [R]."""

    first: np.ndarray  # record
    records: np.ndarray
    channels: np.ndarray
    samples: np.ndarray  # in all


class EEGRows:
    """Windows of whole seconds over all records of some shards, packed into rows of ``length`` tokens.

    A window is as long as fits a row (``length // channels`` seconds, at most ``seconds``), and may go over from one
    record to the next; the last one of a run takes what is left. While training, what a run has left over of a second
    moves its windows' start at random; with ``random_start`` they start anywhere in their run.

    Args:
      seed: of order and starts; None for a fixed order and fixed starts (evaluation).
      literal_names: see ``fill_row``.
    """

    def __init__(
        self,
        corpora: Sequence[Shards],
        length: int,
        seconds: int,
        seed: int | None,
        random_start: bool = False,
        literal_names: bool = False,
    ):
        self._sources, self._paths = [shards.source for shards in corpora], [shards.path for shards in corpora]
        self.content = content_of(corpora)
        self._length, self._seed, self._random_start = length, seed, random_start
        self._literal_names = literal_names
        parts, self._runs, self._record_stops = [], [], []
        for corpus, shards in enumerate(corpora):
            runs = find_runs(shards.manifest["index"])
            parts.append(_windows(corpus, shards.path, runs, length, seconds))
            self._runs.append(runs)
            self._record_stops.append(np.cumsum(shards.manifest["index"].get("samples", []), dtype=np.int64))
        # columns: corpus, run, start second in it, seconds, tokens
        self._windows = np.concatenate(parts) if parts else np.zeros((0, 5), np.int32)
        if not len(self._windows):
            raise UserError(f"no EEG of a second or more in {', '.join(str(s.path) for s in corpora)}")
        self._plan = RowPlan(self._windows[:, 4:], (length,), seed)

    def __len__(self) -> int:
        return len(self._plan)

    @property
    def amount(self) -> Amount:
        tokens = int(self._windows[:, 4].sum(dtype=np.int64))
        return Amount(tokens, tokens / len(self))

    def __getitem__(self, index: int) -> dict[str, np.ndarray] | Damaged:
        [row] = self.__getitems__([index])
        return row

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, np.ndarray] | Damaged]:
        """Several rows, whose records are read together."""
        wanted = []  # of each row, of each of its windows: corpus, and (record, first and last sample) of its parts
        for index in indices:
            epoch, samples = self._plan.row(index)
            wanted.append([(int(self._windows[sample, 0]), list(self._parts(sample, epoch))) for sample in samples])
        numbers: dict[int, dict[int, Any]] = {}
        for corpus, parts in (window for windows in wanted for window in windows):
            numbers.setdefault(corpus, {}).update((number, None) for number, _, _ in parts)
        for corpus, records in numbers.items():
            records.update(zip(records, self._sources[corpus].__getitems__(list(records))))
        return [self._fill(windows, numbers) for windows in wanted]

    def _fill(self, windows, numbers):
        """A row of windows, from records by corpus and number."""
        row = empty_shard_row(self._length)
        place, faults = 0, []
        for segment, (corpus, parts) in enumerate(windows, start=1):
            try:
                found = [self._cut(corpus, *part, numbers[corpus][part[0]]) for part in parts]
            except DamagedRecord as error:
                faults.append(str(error))
                continue
            second = 0
            for record, x in found:
                begin, seconds = place, x.shape[1] // RATE
                place = fill_row(row, place, segment, x, record.electrodes, second, self._literal_names)
                row["scale"][begin:place] = np.tile(record.scale / MICROVOLTS, seconds)
                second += seconds
        return Damaged(row, faults) if faults else row

    def origins(self, index: int) -> list[str]:
        """The folder and the first record of each window."""
        _, samples = self._plan.row(index)
        found = []
        for corpus, run, start, seconds, _ in self._windows[samples].tolist():
            runs, stops = self._runs[corpus], self._record_stops[corpus]
            first = int(runs.first[run])
            begin = start * RATE + (int(stops[first - 1]) if first else 0)
            record = int(np.searchsorted(stops, begin, side="right"))
            found.append(f"{self._paths[corpus]}: record {record}, {seconds} s about second {start} of its run")
        return found

    def _parts(self, sample, epoch):
        """The records that a window lies in: number, first and last sample in it, whole seconds."""
        corpus, run, start, seconds, _ = self._windows[sample].tolist()
        runs, stops = self._runs[corpus], self._record_stops[corpus]
        # Where a run has several records, windows keep to whole seconds: then each second lies in one record.
        grain = 1 if runs.records[run] == 1 else RATE
        total, begin = int(runs.samples[run]), start * RATE
        if self._seed is not None:
            spare = total - seconds * RATE if self._random_start else total % RATE
            drawn = int(np.random.default_rng((self._seed, epoch, sample)).integers(spare // grain + 1)) * grain
            begin = drawn if self._random_start else begin + drawn
        first = int(runs.first[run])
        begin += int(stops[first - 1]) if first else 0
        end = begin + seconds * RATE
        while begin < end:
            number = int(np.searchsorted(stops, begin, side="right"))
            offset, stop = int(stops[number - 1]) if number else 0, min(end, int(stops[number]))
            yield number, begin - offset, stop - offset
            begin = stop

    def _cut(self, corpus, number, first, last, data):
        """A record, and its int16 samples [C, n * 200] from ``first`` to ``last``."""
        if isinstance(data, DamagedRecord):
            raise data
        record, stops, runs = unpack(data), self._record_stops[corpus], self._runs[corpus]
        run = int(np.searchsorted(runs.first, number, side="right")) - 1
        told = int(runs.channels[run]), int(stops[number]) - (int(stops[number - 1]) if number else 0)
        if record.samples.shape != told:
            raise DamagedRecord(
                f"{self._paths[corpus]}: record {number} has {' x '.join(map(str, record.samples.shape))} samples,"
                f" the manifest tells {' x '.join(map(str, told))}; prepare the folder again"
            )
        return record, record.samples[:, first:last]


def empty_row(length: int, dtype: type[np.number] = np.float32) -> dict[str, np.ndarray]:
    """A row of padding: patches [T, 200] in 100 microvolts, or in units of a ``scale``; channel, second and segment [T]
    int32."""
    return {
        "patches": np.zeros((length, RATE), dtype),
        "channel": np.full(length, PAD, np.int32),
        "second": np.zeros(length, np.int32),
        "segment": np.zeros(length, np.int32),
    }


def empty_shard_row(length: int) -> dict[str, np.ndarray]:
    """The same as rows of shards are: patches int16 in units of ``scale`` [T]."""
    return empty_row(length, np.int16) | {"scale": np.zeros(length, np.float32)}


def fill_row(
    row: dict,
    place: int,
    segment: int,
    samples: np.ndarray,
    electrodes: Sequence[int],
    second: int = 0,
    literal_names: bool = False,
) -> int:
    """Put samples [C, S * 200], from a segment's ``second`` on, at ``place`` of a row, time-major; returns where they
    end.

    Records have electrodes as the recording names them. Unless ``literal_names``, T3, T4, T5 and T6 become T7, T8, P7
    and P8, which are the same places: the models learn one row of a table for both. Released models have learnt a row
    for each name.
    """
    electrodes = electrodes if literal_names else [shared_id(electrode) for electrode in electrodes]
    channels, seconds = len(samples), samples.shape[1] // RATE
    stop = place + channels * seconds
    row["patches"][place:stop] = samples.reshape(channels, seconds, RATE).swapaxes(0, 1).reshape(-1, RATE)
    row["channel"][place:stop] = np.tile(np.asarray(electrodes, np.int32), seconds)
    row["second"][place:stop] = np.repeat(np.arange(second, second + seconds, dtype=np.int32), channels)
    row["segment"][place:stop] = segment
    return stop


def float_patches(eeg: dict) -> Any:
    """Patches [..., T, 200] of rows in 100 microvolts. Rows of shards hold the records' int16 and a scale for each
    token, half the bytes on the way to the device, where this is computed."""
    return eeg["patches"] * eeg["scale"][..., None] if "scale" in eeg else eeg["patches"]


def find_runs(index: dict) -> Runs:
    """Which records go on where the one before them ended. Without ``start`` in the index, none does."""
    channels, samples = (np.asarray(index.get(key, []), np.int64) for key in ("channels", "samples"))
    begins = np.ones(len(samples), bool)
    if "start" in index:
        start, recording, montage = (np.asarray(index[key]) for key in ("start", "recording", "montage"))
        goes_on = samples[:-1] % RATE == 0
        goes_on &= np.abs(start[1:] - start[:-1] - samples[:-1] / RATE) < 0.5 / RATE
        begins[1:] = ~goes_on | (recording[1:] != recording[:-1]) | (montage[1:] != montage[:-1])
        span = np.asarray(index.get("span", np.zeros(len(samples), int)))  # shards of earlier versions tell none
        begins[1:] |= span[1:] != span[:-1]
    first = np.flatnonzero(begins)
    records = np.diff(np.append(first, len(samples)))
    total = np.add.reduceat(samples, first) if len(first) else samples
    return Runs(first, records, channels[first], total)


def _windows(corpus, path, runs, length, seconds):
    """Windows [N, 5] of all runs: corpus, run, start second, seconds, tokens."""
    longest = np.minimum(length // np.maximum(runs.channels, 1), seconds)
    if (longest == 0).any():
        run = int(np.flatnonzero(longest == 0)[0])
        record, channels = runs.first[run], runs.channels[run]
        raise UserError(
            f"{path}: record {record} has {channels} channels, a row only {length} tokens; raise config.row_length"
        )
    whole = runs.samples // RATE
    counts = -(-whole // longest)
    run = np.repeat(np.arange(len(whole)), counts)
    rank = np.arange(len(run)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = rank * longest[run]
    size = np.minimum(longest[run], whole[run] - start)
    columns = np.full(len(run), corpus), run, start, size, size * runs.channels[run]
    return np.stack(columns, axis=1).astype(np.int32)
