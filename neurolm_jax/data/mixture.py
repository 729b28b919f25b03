"""Several sources of rows in given shares."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from neurolm_jax.data.shards import content_of
from neurolm_jax.data.streams import Amount, CountedRows, rows_at

PERIOD = 1024  # rows, within which every source has just its share


class Mixture:
    """Rows of several sources, each with its share of every ``PERIOD`` rows, in an order drawn anew for each.

    Row i is a function of the seed and i; each source counts on over its own epochs.

    Args:
      weights: of the sources, in any unit.
    """

    def __init__(self, sources: Sequence[CountedRows], weights: Sequence[float], seed: int | None):
        self._sources, self._seed = sources, seed or 0
        self.content = content_of(sources)
        self._counts = apportion(np.asarray(weights, float), PERIOD)

    def __len__(self) -> int:
        return sum(map(len, self._sources))

    @property
    def amount(self) -> Amount:
        """Of sources with a share alone."""
        used = [(count, source.amount) for count, source in zip(self._counts, self._sources) if count]
        return Amount(sum(one.distinct for _, one in used), sum(count * one.each for count, one in used) / PERIOD)

    def __getitem__(self, index: int) -> Any:
        source, index = self._place(index)
        return self._sources[source][index]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        found: list[Any] = [None] * len(indices)
        places = [self._place(index) for index in indices]
        for source in sorted({source for source, _ in places}):
            here = [number for number, place in enumerate(places) if place[0] == source]
            for number, row in zip(here, rows_at(self._sources[source], [places[number][1] for number in here])):
                found[number] = row
        return found

    def origins(self, index: int) -> list[str]:
        source, index = self._place(index)
        return self._sources[source].origins(index)

    def _place(self, index):
        """The source of a row, and which of its rows it is."""
        period, place = divmod(index, PERIOD)
        source, rank = (int(column[place]) for column in self._order(period))
        return source, period * int(self._counts[source]) + rank

    @functools.lru_cache(maxsize=4)
    def _order(self, period):
        """Of each row in a period: its source, and how many of that source came before."""
        source = np.random.default_rng((self._seed, period)).permutation(
            np.repeat(range(len(self._counts)), self._counts)
        )
        rank = np.zeros(PERIOD, int)
        for k, count in enumerate(self._counts):
            rank[source == k] = np.arange(count)
        return source, rank


def apportion(weights: np.ndarray, total: int) -> np.ndarray:
    """``total`` in whole parts as near to the weights as can be, by largest remainders."""
    exact = weights / weights.sum() * total
    parts = np.floor(exact).astype(int)
    parts[np.argsort(parts - exact, kind="stable")[: total - parts.sum()]] += 1
    return parts
