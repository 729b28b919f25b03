"""Which samples share a row, planned ahead, so that every row is a function of (epoch, index).

The plan has one slot for each sample. In every epoch the samples of one size are dealt anew to the slots of that size:
the number of rows never changes, the company does, and any row can be computed without the others.
"""

import numpy as np

OPEN_ROWS = 4096  # rows kept open at once; more would pack hardly tighter


class RowPlan:
    """A packing of samples into rows.

    Args:
      sizes: [N, D] what each sample takes of D resources (EEG tokens, all tokens ...).
      capacity: [D] what a row has.
      seed: of the dealing; None keeps the samples in the plan's order in every epoch.
    """

    def __init__(self, sizes: np.ndarray, capacity: tuple[int, ...], seed: int | None):
        self._seed, self._epochs = seed, {}
        sizes = np.asarray(sizes)
        row_of = first_fit(sizes, np.asarray(capacity))
        self._slots = np.argsort(row_of, kind="stable").astype(np.int32)
        self._stops = np.cumsum(np.bincount(row_of))
        _, kind = np.unique(sizes[self._slots], axis=0, return_inverse=True)
        order, counts = np.argsort(kind.ravel(), kind="stable"), np.bincount(kind.ravel())
        self._groups = np.split(order.astype(np.int32), np.cumsum(counts)[:-1])

    def __len__(self) -> int:
        """Rows in one epoch."""
        return len(self._stops)

    def row(self, index: int) -> tuple[int, list[int]]:
        """Epoch, and the samples of row ``index``, which counts on over epochs."""
        epoch, row = divmod(index, len(self))
        dealt, order = self._epoch(epoch)
        row = order[row]
        begin = self._stops[row - 1] if row else 0
        return epoch, dealt[begin : self._stops[row]].tolist()

    def _epoch(self, epoch):
        """Samples by slot, and the order of the rows; those of two epochs are kept, as reading ahead wants."""
        if self._seed is None:
            epoch = 0
        known = self._epochs.get(epoch)
        if known is None:
            known = self._deal(epoch)
            self._epochs = dict([*list(self._epochs.items())[-1:], (epoch, known)])  # anew: threads read it
        return known

    def _deal(self, epoch):
        if self._seed is None:
            return self._slots, np.arange(len(self))
        rng = np.random.default_rng((self._seed, epoch))
        dealt = self._slots.copy()
        for group in self._groups:
            dealt[group] = rng.permutation(dealt[group])
        return dealt, rng.permutation(len(self))


def first_fit(sizes: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """First-fit decreasing, all samples of one size at a time, over a bounded number of open rows.

    Args:
      sizes: [N, D]; capacity: [D].

    Returns:
      The row of each sample [N].
    """
    if not len(sizes):
        return np.zeros(0, int)
    if (too_large := np.flatnonzero((sizes > capacity).any(axis=1))).size:
        raise ValueError(f"sample {too_large[0]} of size {sizes[too_large[0]]} does not fit a row of {capacity}")
    kinds, kind, counts = np.unique(sizes, axis=0, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(kind.ravel(), kind="stable"), np.cumsum(counts)[:-1])
    row_of = np.empty(len(sizes), int)
    rows, open_rows, free = 0, np.zeros(0, int), np.zeros((0, len(capacity)), int)
    for k in np.argsort(-kinds.max(axis=1), kind="stable"):
        size, waiting = kinds[k], members[k]
        # Each open row takes as many as fit before the next one is asked.
        taken = np.diff(np.minimum(np.cumsum(_room(free, size, len(waiting))), len(waiting)), prepend=0)
        placed = int(taken.sum())
        row_of[waiting[:placed]] = np.repeat(open_rows, taken)
        free = free - taken[:, None] * size
        if rest := len(waiting) - placed:
            each = int(_room(capacity[None], size, rest)[0])
            new = -(-rest // each)
            filled = np.full(new, each)
            filled[-1] = rest - each * (new - 1)
            row_of[waiting[placed:]] = np.repeat(np.arange(rows, rows + new), filled)
            open_rows = np.concatenate([open_rows, np.arange(rows, rows + new)])
            free = np.concatenate([free, capacity - filled[:, None] * size])
            rows += new
        if len(open_rows) > OPEN_ROWS:
            roomiest = np.sort(np.argsort(-free.min(axis=1), kind="stable")[:OPEN_ROWS])
            open_rows, free = open_rows[roomiest], free[roomiest]
    return row_of


def _room(free, size, most):
    """How many samples of a size fit into each row's free resources [R, D], at most ``most``."""
    fits = np.where(size > 0, free // np.maximum(size, 1), most)
    return np.minimum(fits.min(axis=1), most)
