"""One file over HTTP: resumed where it broke off, and checked.

Pooch, which MNE downloads with, starts a file anew when its connection breaks; nights of sleep are 50 to 100 MB each.
"""

import hashlib
import pathlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from neurolm_jax.errors import JobError
from neurolm_jax.open_data.listing import TIMEOUT, RemoteFile

if TYPE_CHECKING:
    import requests

CHUNK = 1 << 18  # bytes
ATTEMPTS = 5  # in a row that bring no byte
PASSING = (408, 425, 429)  # HTTP's answers of the kind 4xx that may be another one later
PAUSE = 1.0  # seconds before the second attempt; twice as long before each that follows


class Stopped(Exception):
    """The download was called off."""


class _WrongBytes(Exception):
    """What came is not the file."""


def is_there(file: RemoteFile, target: pathlib.Path) -> bool:
    """Whether a file has been fetched already, and is what its home publishes."""
    return target.is_file() and _fault(file, target) is None


def has_hash(path: pathlib.Path, algorithm: str, digest: str) -> bool:
    """Whether a file has a hash, given in hexadecimal."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, algorithm).hexdigest() == digest


def fetch(
    file: RemoteFile,
    target: pathlib.Path,
    session: "requests.Session",
    progress: Callable[[int], object],
    stop: threading.Event,
) -> None:
    """Fetch a file to ``target``; until it is whole and checked it is ``target`` with ``.part`` after its name.

    Args:
      progress: called with the number of bytes that came, less than 0 where a file starts anew.
      stop: set to call it off; what came so far is kept.

    Raises:
      JobError: it could not be had, or is not what its home publishes.
      Stopped: ``stop`` was set.
    """
    part = target.with_name(target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    if part.is_file():
        progress(part.stat().st_size)
    anew = False
    while True:
        try:
            _receive(file, part, session, progress, stop)
            break
        except _WrongBytes as error:
            # Perhaps of an older edition, or damaged here: once more from the beginning.
            progress(-part.stat().st_size)
            part.unlink()
            if anew:
                raise JobError(f"{file.url}: {error}; it was removed") from error
            anew = True
    part.replace(target)


def _receive(file, part, session, progress, stop):
    """Bytes until the file is whole, however often the connection breaks."""
    import requests
    import urllib3

    idle, fault = 0, "no answer"
    while idle < ATTEMPTS:
        begin = part.stat().st_size if part.is_file() else 0
        if begin and (begin == file.size or file.size is None) and _fault(file, part) is None:
            return
        if idle and stop.wait(PAUSE * 2 ** (idle - 1)):
            raise Stopped
        try:
            ended = _request(file, part, begin, session, progress, stop)
            if ended and (file.size is None or part.stat().st_size >= file.size):
                if fault := _fault(file, part):
                    raise _WrongBytes(fault)
                return
            fault = f"ended after {part.stat().st_size:,} of {file.size or 0:,} bytes"
        except requests.HTTPError as error:
            if error.response.status_code not in PASSING and error.response.status_code < 500:
                raise JobError(f"{file.url}: {error}") from error
            fault = str(error)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            fault = f"{type(error).__name__}: {error}"
        idle = 0 if part.is_file() and part.stat().st_size > begin else idle + 1
    raise JobError(f"{file.url}: {fault}; the same command goes on from there")


def _request(file, part, begin, session, progress, stop):
    """Write what one answer brings; whether it was answered to its end."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begin}-"} if begin else {})
    with session.get(file.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # there is nothing after what is here
            return True
        answer.raise_for_status()
        resumed = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {begin}-")
        if begin and not resumed:
            progress(-begin)  # the server knows no ranges
        with part.open("ab" if resumed else "wb") as out:
            # As it comes: iter_content would lose what it has of a chunk in which the connection breaks.
            while chunk := answer.raw.read1(CHUNK):
                if stop.is_set():
                    raise Stopped
                out.write(chunk)
                progress(len(chunk))
    return True


def _fault(file, path):
    """What is wrong with a file, None if nothing."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"has {size:,} bytes, published are {file.size:,}"
    for algorithm, digest in file.hashes.items():
        if not has_hash(path, algorithm, digest):
            return f"its {algorithm} is not the published one, {digest}"
    return None
