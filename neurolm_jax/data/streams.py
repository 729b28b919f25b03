"""Batches by step: the data position of a run is the step, one integer."""

import collections
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np


class Rows(Protocol):
    """Random access that counts on over epochs: row i is in epoch ``i // len(rows)``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class Steps:
    """The batch of every step, as far as this process holds it.

    Global batch n is rows ``n * size`` up to ``(n + 1) * size`` of each source; process p of P holds the p-th of P
    equal parts, so the global batch is the same for any number of processes.

    Args:
      sources: name -> (rows, global batch size).
    """

    def __init__(self, sources: Mapping[str, tuple[Rows, int]], steps: int, process: int = 0, processes: int = 1):
        self._sources, self._steps, self._process, self._processes = sources, steps, process, processes

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        batch = {}
        for name, (rows, size) in self._sources.items():
            part = size // self._processes
            first = step * size + self._process * part
            batch[name] = stack([rows[i] for i in range(first, first + part)])
        return batch


def stack(rows: list[Any]) -> Any:
    """Rows of one structure (nested dicts of arrays) -> the same structure with a leading batch axis."""
    if isinstance(rows[0], dict):
        return {key: stack([row[key] for row in rows]) for key in rows[0]}
    return np.stack(rows)


def iterate(steps: Steps, start: int, threads: int, workers: int = 0, ahead: int = 4) -> Iterator[dict[str, Any]]:
    """Batches from step ``start`` on, read ahead by threads, in ``workers`` processes or in this one."""
    import grain

    dataset = grain.MapDataset.source(steps)[start:]
    batches = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
    if workers:
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=ahead))
    return iter(batches)


def prefetch(batches: Iterable, ahead: int = 2) -> Iterator:
    """The same, taken ``ahead`` of use: what their making starts, such as copies to a device, goes on meanwhile."""
    batches, waiting = iter(batches), collections.deque()
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting
