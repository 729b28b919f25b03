"""Files that tasks are read from."""

import contextlib
import hashlib
import pathlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neurolm_jax.eeg.bids import Sidecars
from neurolm_jax.eeg.files import files_below, not_fetched
from neurolm_jax.eeg.opening import Unreadable, open_raw
from neurolm_jax.eeg.positions import read_places, with_places
from neurolm_jax.eeg.tasks.base import Window
from neurolm_jax.errors import UserError

if TYPE_CHECKING:  # MNE takes a second to import
    import mne


def read_ts(file: pathlib.Path) -> tuple[np.ndarray, list[str]]:
    """The trials [N, C, T] and labels of a ``.ts`` file: after ``@data`` a trial a line, channels split by colons.

    Raises:
      UserError: no such file, or a line that is not of that form.
    """
    if fault := not_fetched(file):
        raise UserError(f"{file}: {fault}")
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    lines = iter(file.read_text(encoding="utf-8", errors="replace").splitlines())
    trials, labels = [], []
    for line in lines:
        if line.strip().lower() == "@data":
            break
    for line in filter(str.strip, lines):
        *channels, label = line.strip().split(":")
        try:
            trials.append(np.array([channel.split(",") for channel in channels], np.float64))
        except ValueError as error:
            raise UserError(f"{file}: trial {len(trials)} is not numbers split by commas and colons") from error
        labels.append(label)
    if not trials or len({trial.shape for trial in trials}) > 1:
        raise UserError(f"{file}: no trials after @data, or trials of different shapes")
    return np.stack(trials), labels


def microvolt_raw(samples: np.ndarray, names: Iterable[str], rate: float) -> "mne.io.RawArray":
    """An ``mne.io.RawArray`` of samples [C, T] in microvolts."""
    import mne

    info = mne.create_info(list(names), rate, "eeg", verbose="error")
    return mne.io.RawArray(samples * 1e-6, info, verbose="error")


def read_raw(file: pathlib.Path, reader: str = "read_raw", **options: Any) -> "mne.io.BaseRaw":
    """An ``mne.io.Raw`` of any format, or of that of one of ``mne.io``'s readers; samples still on disk. What MNE reads
    loosely is corrected, see ``eeg/reading.py``.

    Its channels have the places that an ``electrodes.tsv`` beside it tells, where the file itself tells none.

    Args:
      options: of the reader.

    Raises:
      UserError: MNE cannot read it.
    """
    with foreign_bytes(file):
        raw = open_raw(file, None if reader == "read_raw" else reader, **options)
    sidecars = Sidecars()
    raw = with_places(raw, read_places(pathlib.Path(file), sidecars))
    for sidecar, fault in sidecars.faults.items():
        warnings.warn(f"{sidecar.name}: {fault}", stacklevel=2)
    return raw


@contextlib.contextmanager
def foreign_bytes(name: str | pathlib.Path) -> Iterator[None]:
    """Whatever a parser raises on bytes from elsewhere becomes a UserError that names them, and says so where a file's
    content is not fetched."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Unreadable as error:
        raise UserError(f"{name}: {error}") from error
    except Exception as error:  # noqa: BLE001 (the parsers of twenty formats fail in as many ways)
        if isinstance(name, pathlib.Path) and (fault := not_fetched(name)):
            raise UserError(f"{name}: {fault}") from error
        raise UserError(f"{name}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())})") from error


def read_lines(file: pathlib.Path) -> list[str]:
    """The lines of a label file.

    Raises:
      UserError: it is no text.
    """
    with foreign_bytes(file):
        return file.read_text(encoding="utf-8-sig").splitlines()


def files_under(path: pathlib.Path, pattern: str, what: str) -> list[pathlib.Path]:
    """Files that match ``pattern``, in whatever case, anywhere below a folder, sorted; see ``files.files_below``.

    Raises:
      UserError: there is none.
    """
    named = [(file, pathlib.PurePath(file.relative_to(path).as_posix().lower())) for file in files_below(path)]
    found = sorted(f for f, name in named if name.match(pattern.lower()) and not f.name.startswith("."))
    if not found:
        raise UserError(f"{path}: holds no {what} ({pattern})")
    return found


def subjects_by_content(subjects: Mapping[pathlib.Path, str]) -> dict[pathlib.Path, str]:
    """Give one name to subjects who share a file, byte for byte: file -> subject, the first of their names.

    Where a set has the same file under two people, they may not be on two sides of a split.

    Raises:
      UserError: the content of one is not fetched.
    """
    name_of, first_with = {subject: subject for subject in subjects.values()}, {}
    for file, subject in subjects.items():
        if fault := not_fetched(file):
            raise UserError(f"{file}: {fault}")
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").digest()
        kept, other = name_of[first_with.setdefault(digest, subject)], name_of[subject]
        name_of = {known: kept if name == other else name for known, name in name_of.items()}
    return {file: name_of[subject] for file, subject in subjects.items()}


def folder_called(path: pathlib.Path, name: str) -> pathlib.Path:
    """The folder of a name at or below ``path``, where a set's other folders repeat its files' names; ``path`` itself
    if there is none."""
    if path.name == name:
        return path
    return next(iter(sorted(inner for inner in path.rglob(name) if inner.is_dir())), path)


def labels_beside(file: pathlib.Path, name: str) -> pathlib.Path:
    """The label file called ``name`` beside a recording.

    Raises:
      UserError: it is missing.
    """
    found = file.with_name(name)
    if fault := not_fetched(found):
        raise UserError(f"{file}: its label file is {fault}")
    if not found.is_file():
        raise UserError(f"{file}: its label file {name} is missing; download it, or leave the recording out")
    return found


def tiled(duration: float, seconds: float, label: str, begin: float = 0.0, step: float | None = None) -> list[Window]:
    """Windows of so many seconds one after the other, or every ``step``, that lie wholly before ``duration``."""
    step = step or seconds
    spare = duration - begin - seconds + 1e-6  # sums of fractions of a second
    count = int(spare // step) + 1 if spare >= 0 else 0
    return [Window(begin + i * step, seconds, label) for i in range(count)]


def around(first: float, last: float, seconds: float, label: str, duration: float) -> Window:
    """A window with an event from second ``first`` to ``last`` in its middle. Near an end of the recording it is moved
    inside; of an event that begins after the end it stays outside, where ``prepare`` refuses it."""
    onset = (first + last - seconds) / 2
    if first < duration:
        onset = min(max(onset, 0), duration - seconds)
    return Window(onset, seconds, label)


def duration_of(raw: "mne.io.BaseRaw") -> float:
    """Seconds."""
    return raw.n_times / raw.info["sfreq"]
