"""Rows of text, from shards of tokens."""

import functools

import msgpack
import numpy as np

from neurolm_jax.data.shards import DamagedRecord, Shards
from neurolm_jax.data.streams import Damaged
from neurolm_jax.errors import UserError

BLOCK = 8192  # tokens in a record
NO_TEXT = -1  # in place of every token of a row that counts for nothing


def empty_text(length: int) -> np.ndarray:
    """A row of ``TextRows`` without any text, int32 [length + 1]."""
    return np.zeros(length + 1, np.int32)


class TextRows:
    """Pieces of ``length + 1`` tokens of all records one after another: int32 [length + 1]. The last token of a piece,
    a target alone, is the first of the next: every token is read."""

    def __init__(self, shards: Shards, length: int, seed: int | None):
        if shards.manifest.get("kind") != "text":
            raise UserError(f"{shards.path}: not text shards; write them with 'python -m neurolm_jax.prepare text'")
        if not 0 < length < BLOCK:
            raise UserError(f"text_length must lie between 1 and {BLOCK - 1}, not {length}")
        self.content = shards.content
        self._path, self._source, self._length, self._seed = shards.path, shards.source, length, seed
        if not len(self._source):
            raise UserError(f"{shards.path}: no text in it")
        self._tokens = len(self._source) * BLOCK

    def __len__(self) -> int:
        return (self._tokens - 1) // self._length

    def __getitem__(self, index: int) -> np.ndarray | Damaged:
        """In place of tokens that cannot be read, those a record further on that can."""
        begin, faults = self._place(index), []
        for _ in range(len(self._source)):
            first, last = begin // BLOCK, (begin + self._length) // BLOCK
            found = self._source.__getitems__(range(first, last + 1))
            if damaged := [str(data) for data in found if isinstance(data, DamagedRecord)]:
                faults += [fault for fault in damaged if fault not in faults]
                begin += BLOCK
                if begin + self._length >= self._tokens:
                    begin %= BLOCK
                    if begin + self._length >= self._tokens:  # of a single record
                        break
                continue
            tokens = np.concatenate([np.frombuffer(msgpack.unpackb(data)["tokens"], "<u2") for data in found])
            offset = begin - first * BLOCK
            row = tokens[offset : offset + self._length + 1].astype(np.int32)
            return Damaged(row, faults) if faults else row
        raise UserError(f"{self._path}: no record can be read; prepare the text again")

    def origins(self, index: int) -> list[str]:
        record, token = divmod(self._place(index), BLOCK)
        return [f"{self._path}: record {record}, from token {token}"]

    def _place(self, index):
        """The first token of a row."""
        epoch, piece = divmod(index, len(self))
        if self._seed is not None:
            piece = self._order(epoch)[piece]
        return int(piece) * self._length

    @functools.lru_cache(maxsize=2)
    def _order(self, epoch):
        return np.random.default_rng((self._seed, epoch)).permutation(len(self))
