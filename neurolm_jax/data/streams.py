"""Batches by step: the data position of a run is the step, one integer."""

import collections
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

FAULTS = "faults"
AHEAD = 4  # batches that are read ahead of use, at least


class Rows(Protocol):
    """Random access that counts on over epochs: row i is in epoch ``i // len(rows)``.

    What cannot be read is left out of a row, which is then ``Damaged``. ``origins`` names the records of a row;
    ``content`` is a hash of all of them.
    """

    content: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...

    def origins(self, index: int) -> list[str]: ...


class Amount(NamedTuple):
    """distinct: EEG tokens that rows hold in one epoch; each: tokens of a row, on average."""

    distinct: int
    each: float


class CountedRows(Rows, Protocol):
    """Rows of EEG that know how much they hold."""

    @property
    def amount(self) -> Amount: ...


class Damaged(NamedTuple):
    """A row, and what is said of each record that it lacks."""

    row: Any
    faults: list[str]


class Steps:
    """The batch of every step, as far as this process holds it.

    Global batch n is rows ``n * size`` up to ``(n + 1) * size`` of each source, the same for any number of processes.
    If rows of it are ``Damaged``, a batch has ``faults`` too, all that is said of them.

    Args:
      sources: name -> (rows, global batch size).
      local_rows: name -> which rows of a global batch this process reads (``training.mesh.rows_to_read``); all of them
        by default.
    """

    def __init__(
        self,
        sources: Mapping[str, tuple[Rows, int]],
        steps: int,
        local_rows: Mapping[str, Sequence[int]] | None = None,
    ):
        self._sources, self._steps = sources, steps
        self._local_rows = local_rows or {name: range(size) for name, (_, size) in sources.items()}

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        faults: list[str] = []
        for name, (rows, size) in self._sources.items():
            found = rows_at(rows, [step * size + i for i in self._local_rows[name]])
            faults += [fault for row in found if isinstance(row, Damaged) for fault in row.faults]
            batch[name] = stack([row.row if isinstance(row, Damaged) else row for row in found])
        return batch | {FAULTS: faults} if faults else batch

    def origins(self, step: int) -> dict[str, list[list[str]]]:
        """The records of every row of a global batch."""
        return {
            name: [rows.origins(i) for i in range(step * size, (step + 1) * size)]
            for name, (rows, size) in self._sources.items()
        }


def rows_at(rows: Any, indices: Sequence[int]) -> list[Any]:
    """Several rows, read together where their source can."""
    if hasattr(rows, "__getitems__"):
        return rows.__getitems__(indices)
    return [rows[index] for index in indices]


def without_faults(batch: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a batch."""
    return {name: value for name, value in batch.items() if name != FAULTS}


def stack(rows: list[Any]) -> Any:
    """Rows of one structure (nested dicts of arrays) -> the same structure with a leading batch axis."""
    if isinstance(rows[0], dict):
        return {key: stack([row[key] for row in rows]) for key in rows[0]}
    return np.stack(rows)


def iterate(steps: Steps, start: int, threads: int, workers: int = 0) -> Iterator[dict[str, Any]]:
    """Batches from step ``start`` on, read ahead by threads, in ``workers`` processes or in this one."""
    import grain
    from absl import flags

    dataset = grain.MapDataset.source(steps)[start:]
    # Grain has no more threads at work than batches are ahead.
    ahead = max(AHEAD, threads)
    batches = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain's processes read flags of its own, also where there is no command line
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
        batches = batches.mp_prefetch(options, worker_init_fn=_live_as_long_as_the_reader)
    return iter(batches)


def _live_as_long_as_the_reader(*_):
    """Not shorter: a signal to the whole group leaves the reader time to save. Nor longer: it may have been killed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end():
        multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def prefetch(batches: Iterable, ahead: int = 2) -> Iterator:
    """The same, taken ``ahead`` of use: what their making starts, such as copies to a device, goes on meanwhile."""
    batches, waiting = iter(batches), collections.deque()
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting
