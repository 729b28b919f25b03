"""The work on one recording, finished or not there: its records in a file of their own, and its outcome beside it.

A run that was stopped finds the parts it finished and goes on with the others. When every recording has its part, the
parts of recordings that are no copies are put together into shards.
"""

import dataclasses
import hashlib
import json
import pathlib
import zlib
from collections.abc import Sequence

from neurolm_jax.corpus import recording
from neurolm_jax.corpus.recording import Outcome, Unusable
from neurolm_jax.corpus.sources import Source
from neurolm_jax.data import shards
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.records import Record, encode
from neurolm_jax.outputs import appearing_file

INDEX = ("channels", "samples", "start", "montage")


@dataclasses.dataclass(frozen=True)
class Part:
    """outcome: fields of an ``Outcome``; index: as in a manifest; digests: SHA-256 of each record; bytes in all."""

    outcome: dict
    index: dict[str, list]
    digests: list[str]
    bytes: int


def make(source: Source, settings: Preprocessing, corpus: str, folder: pathlib.Path) -> Part:
    """Read a recording and write its part under ``folder``; whatever is wrong with it becomes its outcome."""
    file = records_file(folder, source)
    outcome, index, digests, size = Outcome(source.name), {key: [] for key in INDEX}, [], 0
    file.unlink(missing_ok=True)
    try:
        with appearing_file(file) as unfinished:
            with shards.Writer(unfinished) as writer:
                raw = recording.read(source)
                for record in recording.records(raw, source, settings, corpus, outcome):
                    data = encode(record)
                    writer.write(data)
                    digests.append(hashlib.sha256(data).hexdigest())
                    size += len(data)
                    for key, value in entry(record).items():
                        index[key].append(value)
    except Unusable as error:
        became, reason = "excluded" if isinstance(error, recording.Excluded) else "skipped", str(error)
    except Exception as error:  # noqa: BLE001 (foreign bytes: the parsers of twenty formats fail in as many ways)
        became, reason = "skipped", f"it cannot be read ({_said(error)})"
    else:
        reason = None
    if reason:
        file.unlink(missing_ok=True)
        outcome = dataclasses.replace(outcome, outcome=became, reason=reason, hours=0.0)
        index, digests, size = {key: [] for key in index}, [], 0
    part = Part(dataclasses.asdict(outcome), index, digests, size)
    with appearing_file(_part_file(folder, source)) as unfinished:
        unfinished.write_text(json.dumps(dataclasses.asdict(part)))
    return part


def finished(folder: pathlib.Path, source: Source) -> Part | None:
    """The part of a recording, if it is there."""
    file = _part_file(folder, source)
    return Part(**json.loads(file.read_text())) if file.is_file() else None


def entry(record: Record) -> dict:
    """What the index of a manifest has of a record, beside the number of its recording; ``montage`` tells sets of
    electrodes apart."""
    channels, samples = record.samples.shape
    montage = zlib.crc32(bytes(record.electrodes))
    return {"channels": channels, "samples": samples, "start": record.start, "montage": montage}


def skipped(source: Source, reason: str) -> Part:
    """Of a recording that was not even tried to the end."""
    return Part(dataclasses.asdict(Outcome(source.name, "skipped", reason)), {key: [] for key in INDEX}, [], 0)


def merge(files: Sequence[pathlib.Path], counts: Sequence[int], shard: pathlib.Path) -> int:
    """Put the records of some parts into one shard; returns its size."""
    with appearing_file(shard) as unfinished, shards.Writer(unfinished) as writer:
        for file, count in zip(files, counts):
            source = shards.Source([file], [count])
            for i in range(count):
                writer.write(source[i])
    return shard.stat().st_size


def records_file(folder: pathlib.Path, source: Source) -> pathlib.Path:
    return _part_file(folder, source).with_suffix(".array_record")


def _part_file(folder, source):
    size = source.path.stat().st_size if source.path.exists() else 0
    key = hashlib.sha256(f"{source.path.absolute()} {size} {source.excluded}".encode()).hexdigest()
    return folder / key[:2] / f"{key[:24]}.json"


def _said(error):
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
