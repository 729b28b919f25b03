"""Shards in object storage (gs://, s3:// and whatever else fsspec opens): ArrayRecord reads local files alone, so they
are copied, once, and that is said."""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from neurolm_jax.errors import UserError
from neurolm_jax.outputs import appearing_file, locked

if TYPE_CHECKING:  # most data is local
    import fsspec

MANIFEST = "manifest.json"
COMING = ".manifest.json.coming"  # that of a copy which is not whole yet


def is_url(path: str | pathlib.Path) -> bool:
    """Whether a path is an address such as gs://BUCKET/FOLDER."""
    return "://" in str(path)


def cache() -> pathlib.Path:
    """Where copies lie: $NEUROLM_CACHE, or ~/.cache/neurolm_jax."""
    return pathlib.Path(os.environ.get("NEUROLM_CACHE", "~/.cache/neurolm_jax")).expanduser()


def staging(url: str) -> pathlib.Path:
    """Where shards are written that are to lie at ``url``."""
    return cache() / "staging" / hashlib.sha256(url.encode()).hexdigest()[:16]


def localise(url: str) -> pathlib.Path:
    """A local copy of the folder of shards at ``url``.

    What is there already, of the right size and of the same content by both manifests, is not copied again. Of several
    processes of a host one copies, and the others wait for it.

    Raises:
      UserError: the address cannot be opened or read, or holds no manifest; there is no room for the copy.
    """
    files = _open(url)
    folder = cache() / hashlib.sha256(url.encode()).hexdigest()[:16]
    with _told(url, "read"):
        found = {name.rsplit("/", 1)[-1]: (name, size) for name, size in _listed(files, url)}
    if MANIFEST not in found:
        raise UserError(f"{url}/manifest.json: no such manifest; write it with 'python -m neurolm_jax.prepare'")
    if not_files := {".", "..", ""} & found.keys():
        raise UserError(f"{url}: holds what is no file: {', '.join(not_files)}")
    with locked(folder, wait=True):
        _copy(files, url, found, folder)
    return folder


def _copy(files, url, found, folder):
    """The files ``found``, by name (address, size), into a folder that has some of them, perhaps of other samples."""
    from tqdm import tqdm

    manifest, coming = folder / MANIFEST, folder / COMING
    name, _ = found.pop(MANIFEST)
    with _told(url, "read"):
        there = files.cat_file(name)
    # Samples prepared in another way have files of the same sizes; content tells them apart.
    if _content(there) != _content(_bytes(coming) or _bytes(manifest)):
        for file in (manifest, coming, *(folder / name for name in found)):
            file.unlink(missing_ok=True)
    missing = {name: f for name, f in found.items() if not _is_there(folder / name, f[1])}
    if not missing and _bytes(manifest) == there:
        return
    # A manifest is there when all the rest is: a copy that was stopped is none.
    with appearing_file(coming) as unfinished:
        unfinished.write_bytes(there)
    if missing:
        print(f"{url}: ArrayRecord reads no such address; copied to {folder}")
        manifest.unlink(missing_ok=True)
    for name in tqdm(sorted(missing), desc="copy", unit=" files", disable=None):
        with appearing_file(folder / name) as unfinished, _told(missing[name][0], f"copied to {folder}"):
            files.get_file(missing[name][0], str(unfinished))
    coming.rename(manifest)


def upload(folder: pathlib.Path, url: str) -> None:
    """Copy all files under a folder, the manifests last, to ``url``.

    Raises:
      UserError: the address cannot be opened or written to.
    """
    files = _open(url)
    for path in sorted(folder.rglob("*"), key=lambda path: (path.name == MANIFEST, path)):
        if path.is_file():
            name = f"{url.rstrip('/')}/{path.relative_to(folder).as_posix()}"
            with _told(name, "written"):
                files.put_file(str(path), name)


def read_text(url: str) -> str:
    """A small file.

    Raises:
      UserError: it cannot be read.
    """
    files = _open(url)
    with _told(url, "read"):
        return files.read_text(url)


def find(url: str, pattern: str) -> list[str]:
    """Addresses below ``url`` that match a glob pattern.

    Raises:
      UserError: the address cannot be opened or listed.
    """
    files = _open(url)
    with _told(url, "read"):
        return [files.unstrip_protocol(found) for found in sorted(files.glob(f"{url.rstrip('/')}/{pattern}"))]


def _listed(files, url):
    for entry in files.ls(url, detail=True):
        if entry["type"] == "file":
            yield entry["name"], entry["size"]


def _is_there(path, size):
    return path.is_file() and path.stat().st_size == size


def _bytes(file):
    return file.read_bytes() if file.is_file() else b""


def _content(manifest: bytes) -> str:
    """The hash of all records that a manifest tells; of one that tells none, that of its own bytes."""
    try:
        return str(json.loads(manifest)["content_hash"])
    except (ValueError, TypeError, KeyError):
        return hashlib.sha256(manifest).hexdigest()


@contextlib.contextmanager
def _told(url: str, what: str) -> Iterator[None]:
    """What a file system of fsspec complains of, in a line."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(f"{url}: cannot be {what} ({' '.join(str(error).split()) or type(error).__name__})") from error


def _open(url: str) -> "fsspec.AbstractFileSystem":
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)[0]
    except (ImportError, ValueError) as error:
        raise UserError(f"{url}: {error}") from error
