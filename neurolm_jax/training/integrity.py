"""Whether the files of a checkpoint are those that were written: their SHA-256 digests lie among them."""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

FILE = "digests.json"
METADATA = "_CHECKPOINT_METADATA"  # Orbax writes the time of the commit into it, after all else
UNTOLD = {FILE, METADATA}
THREADS = 8


def write_digests(folder: pathlib.Path) -> None:
    """Write the digests of all files under a folder into it."""
    names = _files(folder)
    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(zip(names, pool.map(lambda name: _digest(folder / name), names)))
    (folder / FILE).write_text(json.dumps(found, indent=0))


def fault(folder: pathlib.Path, parts: Sequence[str]) -> str | None:
    """What is wrong with the files of a folder under some of its parts (``weights`` ...); None where nothing is."""
    try:
        wanted = json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        return f"{FILE} is missing"
    except (OSError, ValueError) as error:
        return f"{FILE} is unreadable ({error})"
    if not isinstance(wanted, dict):
        return f"{FILE} is unreadable"
    try:
        json.loads((folder / METADATA).read_text())
    except (OSError, ValueError):
        return f"{METADATA} is missing or unreadable"
    names = [name for name in wanted if name.split("/")[0] in parts]
    if missing := set(parts) - {name.split("/")[0] for name in names}:
        return f"{', '.join(sorted(missing))} is missing"
    there = set(_files(folder))
    if missing := [name for name in names if name not in there]:
        return f"{missing[0]} is missing"
    with ThreadPoolExecutor(THREADS) as pool:
        for name, digest in zip(names, pool.map(lambda name: _try(folder / name), names)):
            if digest != wanted[name]:
                return f"{name} is not what was written"
    return None


def _files(folder):
    """Names of all files under a folder, as they stand there: a digest's name can lead nowhere else."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in UNTOLD)


def _try(file):
    try:
        return _digest(file)
    except OSError as error:
        return str(error)


def _digest(file):
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
