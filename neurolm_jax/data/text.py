"""Rows of text, from shards of tokens."""

import functools

import msgpack
import numpy as np

from neurolm_jax.data.shards import DamagedRecord, Shards
from neurolm_jax.data.streams import Damaged
from neurolm_jax.errors import UserError

BLOCK = 8192  # tokens in a record


def empty_text(length: int) -> np.ndarray:
    """A row of ``TextRows`` without any text, int32 [length + 1]."""
    return np.zeros(length + 1, np.int32)


class TextRows:
    """Pieces of ``length + 1`` tokens: int32 [length + 1], inputs and targets overlapping by all but one."""

    def __init__(self, shards: Shards, length: int, seed: int | None):
        if shards.manifest.get("kind") != "text":
            raise UserError(f"{shards.path}: not text shards; write them with 'python -m neurolm_jax.prepare text'")
        if not 0 < length < BLOCK:
            raise UserError(f"text_length must lie between 1 and {BLOCK - 1}, not {length}")
        self.content = shards.content
        self._path, self._source, self._length, self._seed = shards.path, shards.source, length, seed
        self._pieces = (BLOCK - 1) // length  # in a record
        if not len(self._source):
            raise UserError(f"{shards.path}: no text in it")

    def __len__(self) -> int:
        return len(self._source) * self._pieces

    def __getitem__(self, index: int) -> np.ndarray | Damaged:
        """In place of a record that cannot be read, the same piece of the next one that can."""
        first, piece = self._place(index)
        faults = []
        for record in range(first, first + len(self._source)):
            try:
                data = self._source[record % len(self._source)]
            except DamagedRecord as error:
                faults.append(str(error))
                continue
            tokens = np.frombuffer(msgpack.unpackb(data)["tokens"], "<u2")
            row = tokens[piece * self._length : (piece + 1) * self._length + 1].astype(np.int32)
            return Damaged(row, faults) if faults else row
        raise UserError(f"{self._path}: no record can be read; prepare the text again")

    def origins(self, index: int) -> list[str]:
        record, piece = self._place(index)
        return [f"{self._path}: record {record}, from token {piece * self._length}"]

    def _place(self, index):
        """Record of a row, and its piece of that."""
        epoch, piece = divmod(index, len(self))
        if self._seed is not None:
            piece = self._order(epoch)[piece]
        return divmod(int(piece), self._pieces)

    @functools.lru_cache(maxsize=2)
    def _order(self, epoch):
        return np.random.default_rng((self._seed, epoch)).permutation(len(self))
