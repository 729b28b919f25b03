"""A part of what shards hold, by whole recordings, for studies of how much data a model wants."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from neurolm_jax.data.readers import DamagedRecord
from neurolm_jax.data.shards import Records, Shards
from neurolm_jax.errors import UserError


class Chosen:
    """Some records of a source, in their order."""

    def __init__(self, source: Records, records: np.ndarray):
        self._source, self._records = source, records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> bytes:
        return self._source[int(self._records[index])]

    def __getitems__(self, indices: Sequence[int]) -> list[bytes | DamagedRecord]:
        return self._source.__getitems__(self._records[np.asarray(indices, int)].tolist())


def take(shards: Shards, share: float) -> Shards:
    """The recordings that come first in an order of their own and together have at least ``share`` of the hours.

    The order follows from the recordings' numbers alone: the same share is the same part in every run, whatever its
    seed, and a smaller share is part of a larger one. 1 gives the shards as they are.

    Raises:
      UserError: the manifest does not tell which records are of one recording.
    """
    if share == 1 or not len(shards.source):
        return shards
    index = shards.manifest["index"]
    if "recording" not in index:
        raise UserError(f"config.data.share: {shards.path}/manifest.json tells no recordings; prepare the folder again")
    records = _first_records(index["recording"], index["samples"], share)
    return choose(shards, records, str([index["recording"][record] for record in records.tolist()]))


def choose(shards: Shards, records: np.ndarray, name: str, **fields: object) -> Shards:
    """Return shards of some records, given by their places.

    Args:
      name: tells this choice from others of the same shards, in the hash of its content.
      fields: further ones of the manifest that differ.
    """
    columns = shards.manifest["index"].items()
    kept = {key: [column[record] for record in records.tolist()] for key, column in columns}
    content = hashlib.sha256(f"{shards.content} {name}".encode()).hexdigest()
    manifest = shards.manifest | {"index": kept, "records": len(records), "content_hash": content} | fields
    return dataclasses.replace(shards, manifest=manifest, source=Chosen(shards.source, records))


def _first_records(recordings: Sequence[int], samples: Sequence[int], share: float) -> np.ndarray:
    """Places of the records of the first recordings, from each record's recording and length."""
    numbers, recording = np.unique(recordings, return_inverse=True)
    order = sorted(range(len(numbers)), key=lambda i: hashlib.sha256(str(numbers[i]).encode()).digest())
    held = np.cumsum(np.bincount(recording, samples)[order])
    count = 1 + int(np.searchsorted(held, share * held[-1]))
    return np.flatnonzero(np.isin(recording, order[:count]))
