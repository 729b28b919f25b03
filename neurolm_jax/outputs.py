"""Files and folders that appear whole, by rename, or not at all."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator


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
