"""Files and folders that appear whole, by rename, or not at all."""

import contextlib
import errno
import fcntl
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from neurolm_jax.errors import UserError


@contextlib.contextmanager
def appearing_folder(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder that becomes ``path`` when the block ends well and vanishes when it does not."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def appearing_file(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """The same for a file: its temporary has the same suffix."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".unfinished.{path.name}")
    try:
        yield temporary
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | pathlib.Path, value: Any) -> None:
    """A value as JSON; one that is not finite is a ValueError, since JSON has no such numbers."""
    with appearing_file(path) as file:
        file.write_text(json.dumps(value, indent=1, allow_nan=False))


def begin_work(folder: pathlib.Path, settings: Any) -> None:
    """Make a folder for unfinished work, or go on in that of an earlier run.

    Raises:
      UserError: its work was begun with other settings.
    """
    file = folder / "settings.json"
    if not file.is_file():
        write_json(file, settings)
    elif json.loads(file.read_text()) != settings:
        raise UserError(f"{folder}: unfinished work with other settings; use those again, or remove the folder")


@contextlib.contextmanager
def locked(folder: str | pathlib.Path, wait: bool = False) -> Iterator[None]:
    """A folder that no other process works in meanwhile; where a file system has no locks, this is not looked after.

    Args:
      wait: for the end of one that does.

    Raises:
      UserError: one does, and its end is not waited for.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise UserError(f"{folder}: another process works in it; wait for its end, or end it") from error
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                raise
        yield
