"""Random access to the records of many shards by a bounded number of open files.

What the operating system refuses (too many files, a share that is gone) says nothing about the records: it is tried
again and then named. Damage is only what ArrayRecord reads and finds wrong.
"""

import collections
import functools
import logging
import pathlib
import re
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from neurolm_jax.errors import UserError

MOST_OPEN = 256  # readers of a process, each with one file
THREADS = 16  # that read files at once, of a process
PAUSES = (0.2, 1.0, 5.0, 20.0)  # seconds before another try
_SYSTEM = re.compile(r"\b\w+\(\) failed: ([^;]+)")  # as in "open() failed: Too many open files; opening ..."


class DamagedRecord(UserError):
    """A record whose bytes are not those that were written."""


class Unreachable(UserError):
    """A shard that the operating system does not let be read, again and again."""


class ShardSource:
    """Random access to the records of several files, with errors that name the file.

    Files are opened when they are first read, and closed when ``MOST_OPEN`` others were read since.

    Args:
      counts, sizes: records and bytes of each file, as the manifest tells; sizes None where it is not known.
    """

    def __init__(self, files: Sequence[pathlib.Path], counts: Sequence[int], sizes: Sequence[int] | None = None):
        self._files = list(map(str, files))
        self._counts, self._sizes = list(counts), list(sizes) if sizes else [None] * len(self._files)
        self._stops = np.cumsum(self._counts, dtype=np.int64)
        self._opened = uuid.uuid4().hex  # readers of files that were written anew since are others

    def __len__(self) -> int:
        return int(self._stops[-1]) if len(self._stops) else 0

    def __getitem__(self, index: int) -> bytes:
        [data] = self.__getitems__([index])
        if isinstance(data, DamagedRecord):
            raise data
        return data

    def __getitems__(self, indices: Sequence[int]) -> list[bytes | DamagedRecord]:
        """Return several records at once, each read of a file a single call; in place of a damaged one its error.

        Raises:
          Unreachable: the operating system does not let a file be read.
        """
        wanted: dict[int, list[tuple[int, int]]] = collections.defaultdict(list)  # file -> (place, number in it)
        for place, index in enumerate(indices):
            if not 0 <= index < len(self):
                raise IndexError(index)
            file = int(np.searchsorted(self._stops, index, side="right"))
            wanted[file].append((place, index - (int(self._stops[file - 1]) if file else 0)))
        found: list[Any] = [None] * len(indices)
        # Storage far away answers late: several files are asked at once.
        over_files = _pool().map if len(wanted) > 1 else map
        data = over_files(self._read, wanted, [[number for _, number in pairs] for pairs in wanted.values()])
        for pairs, records in zip(wanted.values(), data):
            for (place, _), one in zip(pairs, records):
                found[place] = one
        return found

    def check(self, file: int) -> None:
        """Compare a file's size with what the manifest tells.

        Raises:
          UserError: it is missing, or has another size.
        """
        path, size = self._files[file], self._sizes[file]
        try:
            _check_size(path, size)
        except FileNotFoundError as error:
            raise UserError(f"{path}: the shard is missing; prepare {pathlib.Path(path).parent} again") from error
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error}); repair the storage") from error
        except _DamagedFile as error:
            raise UserError(f"{path}: {error}, the shard is damaged; prepare it again") from error

    def _read(self, file, numbers):
        told = self._files[file], self._counts[file], self._sizes[file], self._opened
        try:
            return [self._whole(file, number, data) for number, data in zip(numbers, _read_again(*told, numbers))]
        except _DamagedFile as error:
            return [self._damaged(file, number, str(error)) for number in numbers]
        except (ValueError, RuntimeError, IndexError) as error:
            if len(numbers) == 1:
                return [self._damaged(file, numbers[0], str(error))]
            return [self._read(file, [number])[0] for number in numbers]  # which of them it is

    def _whole(self, file, number, data):
        return data if data else self._damaged(file, number, "it is empty; the file has become shorter")

    def _damaged(self, file, number, why):
        index = number + (int(self._stops[file - 1]) if file else 0)
        return DamagedRecord(f"{self._files[file]}: record {index} is unreadable ({why}); prepare it again")


class _DamagedFile(Exception):
    """A file that is not what the manifest tells; the message says how."""


def _read_again(file: str, count: int, size: int | None, opened: str, numbers: list[int]) -> list[bytes]:
    """Records of a file. What the system refuses is tried again, with a new reader and no other open."""
    for pause in PAUSES:
        try:
            return _reader(file, count, size, opened).read(numbers)
        except (RuntimeError, OSError) as error:
            if not (refused := _refusal(error)):
                raise
            logging.getLogger(__name__).warning(f"{file}: cannot be read ({refused}); another try in {pause:g} s")
        _reader.cache_clear()
        time.sleep(pause)
    try:
        return _reader(file, count, size, opened).read(numbers)
    except (RuntimeError, OSError) as error:
        if not (refused := _refusal(error)):
            raise
        raise Unreachable(
            f"{file}: cannot be read ({refused}), tried {len(PAUSES) + 1} times; the operating system says so, the data"
            " may well be whole: repair the storage or raise its limits, and start again"
        ) from error


def _refusal(error):
    """What the operating system said, where an error is its own; None of what ArrayRecord found wrong."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    found = _SYSTEM.search(str(error))
    return found and found[1]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads that read files, of all sources of a process."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="shards")


@functools.lru_cache(maxsize=MOST_OPEN)
def _reader(file: str, count: int, size: int | None, opened: str) -> Any:
    """A reader of a file; one that is no longer kept is closed when the last thread is done with it."""
    from array_record.python.array_record_module import ArrayRecordReader

    allow_open_files()
    _check_size(file, size)
    reader = ArrayRecordReader(file, options="readahead_buffer_size:0", file_reader_buffer_size=32768)
    if not reader.ok():
        reader.read([0])  # tells why
    if (found := reader.num_records()) != count:
        raise _DamagedFile(f"{found} records in the file, the manifest has {count}")
    return reader


def _check_size(file, size):
    found = pathlib.Path(file).stat().st_size
    if size is not None and found != size:
        raise _DamagedFile(f"{found} bytes instead of {size}")


@functools.cache
def allow_open_files() -> None:
    """Raise the soft limit of open files to the hard one: Linux leaves it at 1,024, which JAX and its data share."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS refuses what it calls unlimited; the limit stays
            logging.getLogger(__name__).info(f"the limit of open files stays at {soft}")
