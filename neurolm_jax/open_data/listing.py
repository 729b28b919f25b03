"""The list of a set's files that its home publishes: URL, size and hash of each."""

import collections
import dataclasses
import json
import re
from typing import TYPE_CHECKING

from neurolm_jax.errors import JobError
from neurolm_jax.open_data.registry import OpenSet

if TYPE_CHECKING:
    import requests

TIMEOUT = (20, 60)  # seconds, to connect and between bytes


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """path: below the set's folder; size: bytes, None if not published; hashes: hexadecimal digest by algorithm."""

    path: str
    url: str
    size: int | None
    hashes: dict[str, str]


def published_files(source: OpenSet, session: "requests.Session") -> list[RemoteFile]:
    """Read the list of a set's files from its home, and keep those that are wanted.

    Raises:
      JobError: the list cannot be had, or is not what it should be.
    """
    import requests

    try:
        answer = session.get(source.list, timeout=TIMEOUT)
        answer.raise_for_status()
        files = _READERS[source.kind](answer.text, source.list)
    except requests.RequestException as error:
        raise JobError(f"{source.name}: its list of files cannot be had: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(
            f"{source.name}: {source.list} is not a list of files ({type(error).__name__}: {error})"
        ) from error
    wanted = [file for file in files if re.fullmatch(source.pattern, file.path)]
    if not wanted:
        raise JobError(f"{source.name}: {source.list} has none of its files, which are called {source.pattern}")
    for file in wanted:
        if file.path.startswith("/") or ".." in file.path.split("/"):
            raise JobError(f"{source.name}: {source.list} names a file outside the set's folder, {file.path!r}")
    return sorted(wanted, key=lambda file: file.path)


def _sha256sums(text, url):
    base, files = url.rpartition("/")[0], []
    for line in filter(str.strip, text.splitlines()):
        digest, path = line.split(maxsplit=1)
        path = path.strip().removeprefix("*").removeprefix("./")
        files.append(RemoteFile(path, f"{base}/{path}", None, {"sha256": _hexadecimal(digest, 64)}))
    return files


def _figshare(text, url):
    """Names that occur twice get the file's id in front, as in figshare's own archive of an article."""
    entries = json.loads(text)
    count = collections.Counter(entry["name"] for entry in entries)
    return [
        RemoteFile(
            entry["name"] if count[entry["name"]] == 1 else f"{entry['id']}_{entry['name']}",
            entry["download_url"],
            int(entry["size"]),
            {"md5": _hexadecimal(entry.get("computed_md5") or entry["supplied_md5"], 32)},
        )
        for entry in entries
    ]


def _zenodo(text, url):
    return [
        RemoteFile(
            entry["key"],
            entry["links"]["self"],
            int(entry["size"]),
            {"md5": _hexadecimal(entry["checksum"].removeprefix("md5:"), 32)},
        )
        for entry in json.loads(text)["files"]
    ]


def _hexadecimal(digest, digits):
    if not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", digest):
        raise ValueError(f"{digest!r} is no hash of {digits} hexadecimal digits")
    return digest.lower()


_READERS = {"sha256sums": _sha256sums, "figshare": _figshare, "zenodo": _zenodo}
