"""ArrayRecord shards and the manifest beside them.

A folder of shards appears whole, by rename, or not at all. The manifest says what is in it, so that streams can be
planned without reading a record, and what became of every input.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable

from neurolm_jax.errors import UserError
from neurolm_jax.outputs import appearing_folder

FORMAT = 1
RECORDS_PER_SHARD = 4096


@dataclasses.dataclass(frozen=True)
class Shards:
    """An opened folder. ``source[i]`` is record i as bytes; ``manifest`` is the parsed JSON."""

    path: pathlib.Path
    manifest: dict
    source: "_Source"


def write(path: pathlib.Path, records: Iterable[tuple[bytes, dict]], manifest: dict) -> dict:
    """Write records to ``path`` and return the finished manifest.

    Args:
      records: bytes of each record, and its entry of the manifest's index (lengths, label ...), all with the same keys.
      manifest: its other fields.
    """
    with appearing_folder(path) as folder:
        shards, index, digest = [], {}, hashlib.sha256()
        for i, part in enumerate(_parts(records)):
            file = folder / f"shard-{i:05d}.array_record"
            _write_shard(file, [data for data, _ in part])
            for data, entry in part:
                digest.update(hashlib.sha256(data).digest())
                for key, value in entry.items():
                    index.setdefault(key, []).append(value)
            shards.append({"file": file.name, "records": len(part), "bytes": file.stat().st_size})
        manifest = {
            "format": FORMAT,
            **manifest,
            "records": sum(shard["records"] for shard in shards),
            "content_hash": digest.hexdigest(),
            "shards": shards,
            "index": index,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return manifest


def read_manifest(path: str | pathlib.Path) -> dict:
    file = pathlib.Path(path) / "manifest.json"
    if not file.is_file():
        raise UserError(f"{file}: no such manifest; write the folder with 'python -m neurolm_jax.prepare'")
    try:
        manifest = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid JSON ({error}); prepare the folder again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{file}: not a manifest of format {FORMAT}; prepare the folder again")
    return manifest


def open_shards(path: str | pathlib.Path) -> Shards:
    """Open a folder that ``write`` made.

    Raises:
      UserError: naming the manifest or shard that is missing, truncated or unreadable.
    """
    path = pathlib.Path(path)
    manifest = read_manifest(path)
    files = []
    for shard in manifest["shards"]:
        file = path / pathlib.PurePath(shard["file"]).name
        if not file.is_file():
            raise UserError(f"{file}: the shard is missing; prepare {path} again")
        if file.stat().st_size != shard["bytes"]:
            size = file.stat().st_size
            raise UserError(f"{file}: {size} bytes instead of {shard['bytes']}, the shard is damaged; prepare it again")
        files.append(file)
    return Shards(path, manifest, _Source(files, [shard["records"] for shard in manifest["shards"]]))


class _Source:
    """Random access to the records of several files, with errors that name the file."""

    def __init__(self, files: list[pathlib.Path], counts: list[int]):
        from grain.sources import ArrayRecordDataSource

        self._files, self._counts = files, counts
        try:
            self._source = ArrayRecordDataSource([str(file) for file in files]) if files else []
            found = len(self._source)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{files[0].parent}: unreadable shards ({error}); prepare the folder again") from error
        if found != sum(counts):
            raise UserError(f"{files[0].parent}: {found} records, the manifest has {sum(counts)}; prepare it again")

    def __len__(self) -> int:
        return sum(self._counts)

    def __getitem__(self, index: int) -> bytes:
        try:
            return self._source[index]
        except (ValueError, RuntimeError, IndexError) as error:
            file = self._file_of(index)
            raise UserError(f"{file}: record {index} is unreadable ({error}); prepare it again") from error

    def _file_of(self, index: int) -> pathlib.Path:
        for file, count in zip(self._files, self._counts):
            if index < count:
                return file
            index -= count
        raise IndexError(index)


def _parts(records):
    part = []
    for record in records:
        part.append(record)
        if len(part) == RECORDS_PER_SHARD:
            yield part
            part = []
    if part:
        yield part


def _write_shard(file, records):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(file), "group_size:1")
    for data in records:
        writer.write(data)
    writer.close()
