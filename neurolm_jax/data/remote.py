"""Shards in object storage (gs://, s3:// and whatever else fsspec opens): ArrayRecord reads local files alone, so they
are copied, once, and that is said."""

import hashlib
import os
import pathlib

from neurolm_jax.errors import UserError
from neurolm_jax.outputs import appearing_file


def is_url(path: str | pathlib.Path) -> bool:
    return "://" in str(path)


def cache() -> pathlib.Path:
    """Where copies lie: $NEUROLM_CACHE, or ~/.cache/neurolm_jax."""
    return pathlib.Path(os.environ.get("NEUROLM_CACHE", "~/.cache/neurolm_jax")).expanduser()


def staging(url: str) -> pathlib.Path:
    """Where shards are written that are to lie at ``url``."""
    return cache() / "staging" / hashlib.sha256(url.encode()).hexdigest()[:16]


def localise(url: str) -> pathlib.Path:
    """A local copy of the folder of shards at ``url``; what is there already, of the right size, is not copied again.

    Raises:
      UserError: the address cannot be opened or holds no manifest.
    """
    from tqdm import tqdm

    files = _open(url)
    folder = cache() / hashlib.sha256(url.encode()).hexdigest()[:16]
    try:
        found = {name.rsplit("/", 1)[-1]: (name, size) for name, size in _listed(files, url)}
    except (OSError, ValueError) as error:
        raise UserError(f"{url}: cannot be read ({error})") from error
    if "manifest.json" not in found:
        raise UserError(f"{url}/manifest.json: no such manifest; write it with 'python -m neurolm_jax.prepare'")
    if not_files := {".", "..", ""} & found.keys():
        raise UserError(f"{url}: holds what is no file: {', '.join(not_files)}")
    missing = {name: f for name, f in found.items() if not _is_there(folder / name, f[1])}
    missing["manifest.json"] = found["manifest.json"]  # small, and of no telling size
    if len(missing) > 1:
        print(f"{url}: ArrayRecord reads no such address; copied to {folder}")
    # The manifest last: a copy that was stopped is none.
    for name in tqdm(sorted(missing, key=lambda n: n == "manifest.json"), desc="copy", unit=" files", disable=None):
        with appearing_file(folder / name) as unfinished:
            files.get_file(missing[name][0], str(unfinished))
    return folder


def upload(folder: pathlib.Path, url: str) -> None:
    """Copy all files under a folder, the manifests last, to ``url``."""
    files = _open(url)
    for path in sorted(folder.rglob("*"), key=lambda path: (path.name == "manifest.json", path)):
        if path.is_file():
            files.put_file(str(path), f"{url.rstrip('/')}/{path.relative_to(folder).as_posix()}")


def read_text(url: str) -> str:
    """A small file.

    Raises:
      UserError: it cannot be read.
    """
    files = _open(url)
    try:
        return files.read_text(url)
    except (OSError, ValueError) as error:
        raise UserError(f"{url}: cannot be read ({error})") from error


def find(url: str, pattern: str) -> list[str]:
    """Addresses below ``url`` that match a glob pattern."""
    files = _open(url)
    return [files.unstrip_protocol(found) for found in sorted(files.glob(f"{url.rstrip('/')}/{pattern}"))]


def _listed(files, url):
    for entry in files.ls(url, detail=True):
        if entry["type"] == "file":
            yield entry["name"], entry["size"]


def _is_there(path, size):
    return path.is_file() and path.stat().st_size == size


def _open(url):
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)[0]
    except (ImportError, ValueError) as error:
        raise UserError(f"{url}: {error}") from error
