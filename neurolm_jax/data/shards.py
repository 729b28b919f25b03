"""ArrayRecord shards and the manifest beside them.

A folder of shards appears whole, by rename, or not at all. The manifest says what is in it, so that streams can be
planned without reading a record, and what became of every input.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from neurolm_jax.command import UNWRITABLE
from neurolm_jax.data import remote
from neurolm_jax.data.readers import DamagedRecord, ShardSource
from neurolm_jax.data.streams import Rows
from neurolm_jax.errors import UserError
from neurolm_jax.outputs import appearing_folder

FORMAT = 1
SHARD_BYTES = 2**30  # a shard is closed when it has this many
FEW = 64  # shards whose sizes are looked at when a folder is opened; of more, each when it is first read


class Records(Protocol):
    """Random access to records as bytes, one or several at once: then a damaged one is replaced by its error."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> bytes: ...

    def __getitems__(self, indices: Sequence[int]) -> list[bytes | DamagedRecord]: ...


@dataclasses.dataclass(frozen=True)
class Shards:
    """An opened folder. ``source[i]`` is record i as bytes; ``manifest`` is the parsed JSON."""

    path: pathlib.Path
    manifest: dict
    source: "Records"

    @property
    def content(self) -> str:
        """Hash of all records."""
        return self.manifest["content_hash"]


def content_of(parts: Iterable[Shards | Rows]) -> str:
    """Hash of all that several folders, or sources of rows, hold, in their order."""
    return hashlib.sha256(" ".join(part.content for part in parts).encode()).hexdigest()


class Writer:
    """Records into one ArrayRecord file: a record a group, so that each can be read alone; not compressed, which would
    save EEG 2% and take three times as long to read.

    Raises:
      OSError: from any of its methods, where a disk is full or must not be written.
    """

    def __init__(self, file: pathlib.Path):
        from array_record.python.array_record_module import ArrayRecordWriter

        self._file = file
        with _unwritable_told(file):
            self._writer = ArrayRecordWriter(str(file), "group_size:1,uncompressed")
        self.records = self.bytes = 0

    def write(self, data: bytes) -> None:
        """Add a record."""
        with _unwritable_told(self._file):
            self._writer.write(data)
        self.records += 1
        self.bytes += len(data)

    def close(self) -> None:
        """Write what is left; the file is whole then."""
        with _unwritable_told(self._file):
            self._writer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@contextlib.contextmanager
def _unwritable_told(file: pathlib.Path) -> Iterator[None]:
    """ArrayRecord has the system's complaint in words alone; as an OSError it ends a command with one line."""
    try:
        yield
    except RuntimeError as error:
        for number in UNWRITABLE:
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number), str(file)) from error
        raise


class FolderWriter:
    """Records into as many shards as they fill, and the manifest at the end."""

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._shard: Writer | None = None
        self._shards, self._index, self._digests = [], {}, []

    def write(self, data: bytes, entry: dict) -> None:
        """A record, and its entry of the manifest's index (lengths, label ...), all with the same keys."""
        if self._shard is None:
            self._shard = Writer(self._folder / shard_name(len(self._shards)))
        self._shard.write(data)
        self._digests.append(hashlib.sha256(data).digest())
        for key, value in entry.items():
            self._index.setdefault(key, []).append(value)
        if self._shard.bytes >= SHARD_BYTES:
            self._close()

    def finish(self, fields: dict) -> dict:
        """Write the manifest with these further fields, and return it."""
        self._close()
        return write_manifest(self._folder, fields, self._shards, self._index, self._digests)

    def _close(self):
        if self._shard is None:
            return
        self._shard.close()
        file = self._folder / shard_name(len(self._shards))
        self._shards.append({"file": file.name, "records": self._shard.records, "bytes": file.stat().st_size})
        self._shard = None


def write(path: pathlib.Path, records: Iterable[tuple[bytes, dict]], fields: dict) -> dict:
    """Write records, each with its entry of the index, to ``path``; return the manifest, which has ``fields`` too."""
    with appearing_folder(path) as folder:
        writer = FolderWriter(folder)
        for data, entry in records:
            writer.write(data, entry)
        return writer.finish(fields)


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.array_record"


def write_manifest(folder: pathlib.Path, fields: dict, shards: list[dict], index: dict, digests: list[bytes]) -> dict:
    """The manifest of some shards: each with its file, records and bytes; index and SHA-256 of every record."""
    manifest = {
        "format": FORMAT,
        **fields,
        "records": sum(shard["records"] for shard in shards),
        "content_hash": hashlib.sha256(b"".join(digests)).hexdigest(),
        "shards": shards,
        "index": index,
    }
    head, numbers = json.dumps({k: v for k, v in manifest.items() if k != "index"}, indent=1), json.dumps(index)
    (folder / "manifest.json").write_text(f'{head[:-2]},\n "index": {numbers}\n}}')
    return manifest


def read_manifest(path: str | pathlib.Path) -> dict:
    """The manifest of a folder, or of one at an address.

    Raises:
      UserError: there is none, or it is none.
    """
    file = f"{path}/manifest.json" if remote.is_url(path) else pathlib.Path(path) / "manifest.json"
    if isinstance(file, pathlib.Path) and not file.is_file():
        raise UserError(f"{file}: no such manifest; write the folder with 'python -m neurolm_jax.prepare'")
    try:
        manifest = json.loads(file.read_text() if isinstance(file, pathlib.Path) else remote.read_text(file))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid JSON ({error}); prepare the folder again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{file}: not a manifest of format {FORMAT}; prepare the folder again")
    return manifest


def _ill_formed(manifest):
    """The field of a manifest, if any, that is not what ``write_manifest`` writes: it may come from anywhere."""
    kinds = {"records": int, "content_hash": str, "shards": list, "index": dict}
    for field, kind in kinds.items():
        if not isinstance(manifest.get(field), kind):
            return field
    for shard in manifest["shards"]:
        fields = {"file": str, "records": int, "bytes": int}
        if not isinstance(shard, dict) or not all(isinstance(shard.get(name), kind) for name, kind in fields.items()):
            return "shards"
    count = manifest["records"]
    if sum(shard["records"] for shard in manifest["shards"]) != count:
        return "shards"
    columns = manifest["index"].values()
    return "index" if any(not isinstance(column, list) or len(column) != count for column in columns) else None


def open_shards(path: str | pathlib.Path) -> Shards:
    """Open a folder that ``write`` made, or a copy of it if it lies at an address such as gs://.

    Raises:
      UserError: naming the manifest or shard that is missing or, of ``FEW`` shards, truncated.
    """
    path = remote.localise(str(path)) if remote.is_url(path) else pathlib.Path(path)
    manifest = read_manifest(path)
    if wrong := _ill_formed(manifest):
        raise UserError(f"{path}/manifest.json: its {wrong} is not what a manifest has; prepare the folder again")
    files = [path / pathlib.PurePath(shard["file"]).name for shard in manifest["shards"]]
    there = {entry.name for entry in os.scandir(path)}
    if missing := [file for file in files if file.name not in there]:
        raise UserError(f"{missing[0]}: the shard is missing; prepare {path} again")
    told = ([shard[field] for shard in manifest["shards"]] for field in ("records", "bytes"))
    source = ShardSource(files, *told)
    for number in range(len(files) if len(files) <= FEW else 0):
        source.check(number)
    return Shards(path, manifest, source)
