"""The work on one recording, finished or not there: its records in a file of their own, and its outcome beside it.

A run that was stopped finds the parts it finished and goes on with the others. When every recording has its part, the
parts of recordings that are no copies are put together into shards.
"""

import dataclasses
import hashlib
import json
import pathlib
import zlib
from collections.abc import Iterator, Sequence

from neurolm_jax.corpus import recording
from neurolm_jax.corpus.recording import ExcludedRecording, Outcome, Unusable
from neurolm_jax.corpus.sources import Source
from neurolm_jax.data import shards
from neurolm_jax.eeg.opening import said
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.reading import warnings_by_kind
from neurolm_jax.eeg.records import Record, encode
from neurolm_jax.errors import UserError
from neurolm_jax.escaping import escape_all
from neurolm_jax.outputs import appearing_file

INDEX = ("channels", "samples", "start", "montage", "span")


@dataclasses.dataclass(frozen=True)
class Part:
    """outcome: fields of an ``Outcome``; index: as in a manifest; digests: SHA-256 of each record; bytes in all."""

    outcome: dict
    index: dict[str, list]
    digests: list[str]
    bytes: int


def make(source: Source, settings: Preprocessing, corpus: str, folder: pathlib.Path) -> Part:
    """Read a recording and write its part under ``folder``; whatever is wrong with it becomes its outcome.

    Raises:
      UserError: there is not enough memory to read it.
      OSError: the part cannot be written; it says nothing about the recording.
    """
    file = records_file(folder, source)
    outcome, index, digests, size = Outcome(source.name), {key: [] for key in INDEX}, [], 0
    file.unlink(missing_ok=True)
    try:
        with (
            warnings_by_kind(outcome.warnings),
            appearing_file(file) as unfinished,
            shards.Writer(unfinished) as writer,
        ):
            for data, told in _records(source, settings, corpus, outcome):
                writer.write(data)
                digests.append(hashlib.sha256(data).hexdigest())
                size += len(data)
                for key, value in told.items():
                    index[key].append(value)
    except Unusable as error:
        became = "excluded" if isinstance(error, ExcludedRecording) else "skipped"
        outcome = dataclasses.replace(outcome, outcome=became, reason=str(error), hours=0.0)
        index, digests, size = {key: [] for key in index}, [], 0
    part = Part(escape_all(dataclasses.asdict(outcome)), index, digests, size)
    with appearing_file(_part_file(folder, source)) as unfinished:
        unfinished.write_text(json.dumps(dataclasses.asdict(part)))
    return part


def _records(source, settings, corpus, outcome) -> Iterator[tuple[bytes, dict]]:
    """Of a recording, each with its entry of the index; whatever its bytes make a parser raise is ``Unusable``. What
    the caller does with a record is outside of this."""
    try:
        for record in recording.records(recording.read(source), source, settings, corpus, outcome):
            yield encode(record), entry(record)
    except Unusable:
        raise
    except UserError as error:
        raise Unusable(str(error)) from error
    except MemoryError as error:
        raise UserError(f"{source.path}: not enough memory to read it; take fewer --workers, or remove it") from error
    except Exception as error:  # noqa: BLE001 (foreign bytes: the parsers of twenty formats fail in as many ways)
        raise Unusable(f"it cannot be read ({said(error)})") from error


def finished(folder: pathlib.Path, source: Source) -> Part | None:
    """The part of a recording, if it is there."""
    file = _part_file(folder, source)
    part = Part(**json.loads(file.read_text())) if file.is_file() else None
    return part if part and part.index.keys() == set(INDEX) else None  # one of an earlier version has less


def entry(record: Record) -> dict:
    """What the index of a manifest has of a record, beside the number of its recording; ``montage`` tells sets of
    electrodes apart, ``span`` parts between which time jumps."""
    channels, samples = record.samples.shape
    montage = zlib.crc32(bytes(record.electrodes))
    return {"channels": channels, "samples": samples, "start": record.start, "montage": montage, "span": record.span}


def skipped(source: Source, reason: str) -> Part:
    """Of a recording that was not even tried to the end."""
    outcome = Outcome(source.name, "skipped", reason)
    return Part(escape_all(dataclasses.asdict(outcome)), {key: [] for key in INDEX}, [], 0)


def merge(files: Sequence[pathlib.Path], counts: Sequence[int], shard: pathlib.Path) -> int:
    """Put the records of some parts into one shard; returns its size."""
    with appearing_file(shard) as unfinished, shards.Writer(unfinished) as writer:
        for file, count in zip(files, counts):
            source = shards.ShardSource([file], [count])
            for i in range(count):
                writer.write(source[i])
    return shard.stat().st_size


def records_file(folder: pathlib.Path, source: Source) -> pathlib.Path:
    """Where the records of a recording's part are."""
    return _part_file(folder, source).with_suffix(".array_record")


def _part_file(folder, source):
    """By all that path, sidecars and file system tell of the recording: a part of what it was before is none of it. No
    file is looked at here, so that it is the same in every process and on every machine."""
    known = dataclasses.replace(source, path=source.path.absolute())
    key = hashlib.sha256(repr(known).encode("utf-8", "surrogateescape")).hexdigest()
    return folder / key[:2] / f"{key[:24]}.json"
