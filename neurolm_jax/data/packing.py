"""Which samples share a row, planned ahead, so that every row is a function of (epoch, index).

The plan has one slot for each sample. In every epoch the samples of one size are dealt anew to the slots of that size:
the number of rows never changes, the company does, and any row can be computed without the others.
"""

import functools

import numpy as np

OPEN_ROWS = 512  # rows kept open at once; more would pack hardly tighter


class RowPlan:
    """A packing of samples into rows.

    Args:
      sizes: [N, D] what each sample takes of D resources (EEG tokens, all tokens ...).
      capacity: [D] what a row has.
      seed: of the dealing; None keeps the samples in the plan's order in every epoch.
    """

    def __init__(self, sizes: np.ndarray, capacity: tuple[int, ...], seed: int | None):
        self._seed = seed
        self._rows = first_fit(np.asarray(sizes), np.asarray(capacity))
        slots = np.concatenate([np.array(row, int) for row in self._rows]) if self._rows else np.zeros(0, int)
        _, kind = np.unique(np.asarray(sizes)[slots], axis=0, return_inverse=True)
        self._slots = slots
        self._groups = [np.flatnonzero(kind.ravel() == k) for k in range(kind.max(initial=-1) + 1)]
        self._stops = np.cumsum([len(row) for row in self._rows])

    def __len__(self) -> int:
        """Rows in one epoch."""
        return len(self._rows)

    def row(self, index: int) -> tuple[int, list[int]]:
        """Epoch, and the samples of row ``index``, which counts on over epochs."""
        epoch, row = divmod(index, len(self))
        dealt, order = self._epoch(epoch)
        row = order[row]
        stop = self._stops[row]
        return epoch, dealt[stop - len(self._rows[row]) : stop].tolist()

    @functools.lru_cache(maxsize=2)
    def _epoch(self, epoch):
        if self._seed is None:
            return self._slots, np.arange(len(self))
        rng = np.random.default_rng((self._seed, epoch))
        dealt = self._slots.copy()
        for group in self._groups:
            dealt[group] = rng.permutation(dealt[group])
        return dealt, rng.permutation(len(self))


def first_fit(sizes: np.ndarray, capacity: np.ndarray) -> list[list[int]]:
    """First-fit decreasing over a bounded number of open rows. sizes [N, D], capacity [D] -> samples of each row."""
    if len(sizes) and (too_large := np.flatnonzero((sizes > capacity).any(axis=1))).size:
        raise ValueError(f"sample {too_large[0]} of size {sizes[too_large[0]]} does not fit a row of {capacity}")
    order = np.argsort(-sizes.max(axis=1), kind="stable") if len(sizes) else []
    rows: list[list[int]] = []
    free = np.zeros((0, len(capacity)), int)
    first_open = 0
    for sample in order:
        fits = np.flatnonzero((free[first_open : len(rows)] >= sizes[sample]).all(axis=1))
        if fits.size:
            row = first_open + fits[0]
        else:
            row = len(rows)
            rows.append([])
            if row == len(free):
                free = np.concatenate([free, np.tile(capacity, (max(64, row), 1))])
            first_open = max(first_open, row + 1 - OPEN_ROWS)
        rows[row].append(int(sample))
        free[row] -= sizes[sample]
    return rows
