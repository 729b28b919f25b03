"""Sources of labels for tasks in YAML: annotations, columns of BIDS tables, folder names, a CSV file."""

import collections
import csv
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from neurolm_jax.eeg.bids import Sidecars, parse_name
from neurolm_jax.eeg.files import stem_of
from neurolm_jax.errors import UserError
from neurolm_jax.escaping import escape

SOURCES = "annotations, events.COLUMN, participants.COLUMN, folder, or a table FILE.csv"


class Event(NamedTuple):
    """Onset and duration in seconds of the recording; a duration of None lasts to the recording's end."""

    onset: float
    duration: float | None
    label: str


def label_source(name: str, labels: Sequence[str], folder: pathlib.Path) -> "LabelSource | None":
    """Return the source that a description names, see ``SOURCES``; a table lies in ``folder``. None of other names."""
    kind, _, column = name.partition(".")
    if name == "annotations":
        return _Annotations()
    if name == "folder":
        return _Folders(labels)
    if name.endswith(".csv"):
        return _Table(folder / name)
    if kind == "events" and column:
        return _EventsTable(column)
    return _Participants(column) if kind == "participants" and column else None


class LabelSource:
    """Where labels stand: of whole recordings, or of events in them."""

    def begin(self, path: pathlib.Path) -> None:
        """Called before the first recording below ``path``."""

    def end(self, path: pathlib.Path) -> None:
        """Called after the last one."""

    def of_recording(self, file: pathlib.Path, name: str, sidecars: Sidecars) -> str | None:
        """The label of a whole recording; None where events have labels."""

    def of_signal(self, file: pathlib.Path, name: str, raw: Any) -> Iterator[Event]:
        """The events of a recording."""
        raise NotImplementedError


class _Annotations(LabelSource):
    def of_signal(self, file, name, raw):
        for annotation in raw.annotations:
            onset = float(annotation["onset"]) - raw.first_time
            yield Event(onset, float(annotation["duration"]), str(annotation["description"]))


class _EventsTable(LabelSource):
    """A column of events.tsv beside a recording of a BIDS tree."""

    def __init__(self, column):
        self._column = column

    def of_signal(self, file, name, raw):
        rows = Sidecars().event_rows(file)
        if not rows:
            raise UserError(f"{file}: has no events.tsv of its own; see the BIDS specification, or use annotations")
        if not any(self._column in row for row in rows):
            known = ", ".join(escape(column) for column in rows[0])
            raise UserError(f"{file}: its events.tsv has no column {self._column}; there are {known}")
        for row in rows:
            onset, duration = to_number(row["onset"]), to_number(row.get("duration", "n/a"))
            if self._column in row and onset is not None:
                yield Event(onset, duration or 0.0, row[self._column])


class _Participants(LabelSource):
    """A column of participants.tsv."""

    def __init__(self, column):
        self._column = column

    def of_recording(self, file, name, sidecars):
        return participant_value(file, self._column, sidecars)


class _Folders(LabelSource):
    """The name of the innermost folder that is a label."""

    def __init__(self, labels):
        self._labels = labels

    def of_recording(self, file, name, sidecars):
        folders = name.split("/")[:-1]
        named = [folder for folder in reversed(folders) if folder in self._labels]
        if not named:
            raise UserError(f"{file}: lies in no folder called {' or '.join(self._labels)}, which tells its label")
        return named[0]


class _Table(LabelSource):
    """Rows of recording, onset, label, and perhaps duration."""

    def __init__(self, file):
        self._file, self._events, self._unused = file, collections.defaultdict(list), set[str]()

    def begin(self, path):
        if not self._file.is_file():
            raise UserError(f"{self._file}: no such file")
        self._events.clear()
        with self._file.open(encoding="utf-8-sig", newline="", errors="replace") as opened:
            rows = csv.DictReader(opened)
            missing = {"recording", "onset", "label"} - set(rows.fieldnames or ())
            if missing:
                raise UserError(f"{self._file}: its first line lacks {', '.join(sorted(missing))}")
            for number, row in enumerate(rows, start=2):
                onset = to_number(row["onset"] or "")
                if onset is None or not row["recording"] or not row["label"]:
                    raise UserError(f"{self._file}:{number}: want a recording, an onset in seconds and a label")
                duration = to_number(row.get("duration") or "n/a") or 0.0
                self._events[row["recording"].strip()].append(Event(onset, duration, row["label"].strip()))
        self._unused = set(self._events)

    def of_recording(self, file, name, sidecars):
        self._unused -= {name, stem_of(name), file.name, stem_of(file.name)}
        return None

    def of_signal(self, file, name, raw):
        for known in (name, stem_of(name), file.name, stem_of(file.name)):
            if known in self._events:
                return iter(self._events[known])
        raise UserError(f"{file}: has no row in {self._file}, which tells its labels")

    def end(self, path):
        if self._unused:
            raise UserError(f"{self._file}: names {sorted(self._unused)[0]}, which is not below {path}")


def participant_value(file: pathlib.Path, column: str, sidecars: Sidecars) -> str:
    """What a person's row of participants.tsv says in a column.

    Raises:
      UserError: no BIDS name, no row, or no such column.
    """
    name = parse_name(file)
    if name is None:
        raise UserError(f"{file}: is not called sub-NAME_..._eeg, so that participants.tsv does not tell who it is")
    row = dict(sidecars.participant(file, name.subject))
    if column not in row:
        known = f"its row has {', '.join(map(escape, row))}" if row else "it has no row"
        raise UserError(f"{file}: participants.tsv tells no {column} of sub-{escape(name.subject)}; {known}")
    return row[column]


def to_number(text: str) -> float | None:
    """Return the finite number that a text is, None of others (n/a)."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
