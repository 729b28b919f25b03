"""Tasks that YAML files describe: a question, its answers, and where the labels of recordings stand. No code runs."""

import collections
import functools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from neurolm_jax.eeg.bids import Sidecars, parse_name
from neurolm_jax.eeg.files import Files, files_below, stem_of
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks.base import BINARY, MULTICLASS, SPLITS, Opened, Recording, Task, Window
from neurolm_jax.eeg.tasks.labels import SOURCES, Event, LabelSource, label_source, participant_value, to_number
from neurolm_jax.eeg.tasks.readers import duration_of, read_raw, tiled
from neurolm_jax.errors import UserError
from neurolm_jax.escaping import escape

YAML_SUFFIXES = (".yaml", ".yml")
REQUIRED = ("question", "answers", "seconds", "labels")
OPTIONAL = (
    *("name", "positive", "wordings", "lettered", "channels", "baseline", "low", "high", "mains"),
    *("subject", "split", "offset", "every"),
)
_TOLERANCE = 1e-3  # seconds by which a window may end after its event or recording


def load_described(file: pathlib.Path) -> Task:
    """Read a task from a YAML file.

    Raises:
      UserError: it is no YAML, or lacks a field, or has one that makes no sense.
    """
    fields = _Fields(file, _mapping(file))
    answers = fields.mapping("answers")
    source_name = fields.text("labels")
    if (source := label_source(source_name, tuple(answers), file.parent)) is None:
        raise fields.fault("labels", SOURCES, source_name)
    recordings = functools.partial(
        _recordings,
        source=source,
        labels=tuple(answers),
        subject=fields.pattern("subject"),
        split=fields.column("split"),
        cut=_Cut(fields.whole("seconds"), fields.number("offset", 0.0), fields.number("every", None)),
    )
    defaults = Preprocessing()
    names = ("low", "high", "mains")
    preprocessing = Preprocessing(**{name: fields.number(name, getattr(defaults, name)) for name in names})
    try:
        return Task(
            name=fields.text("name", file.stem),
            question=fields.text("question"),
            answers=answers,
            seconds=fields.whole("seconds"),
            preprocessing=preprocessing,
            recordings=recordings,
            lettered=fields.switch("lettered"),
            positive=fields.text("positive", None),
            wordings=fields.texts("wordings"),
            channels=fields.texts("channels"),
            baseline=fields.number("baseline", 0.0),
            figures=BINARY if len(answers) == 2 else MULTICLASS,
        )
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


class _Cut(NamedTuple):
    """Windows of ``seconds``: from ``offset`` after an event's onset, and every ``every`` while it lasts."""

    seconds: int
    offset: float
    every: float | None

    def windows(self, event: Event, end: float) -> list[Window]:
        """The windows of an event in a recording of ``end`` seconds; one at least, if it lies inside."""
        stop = end if event.duration is None else min(event.onset + event.duration, end)
        begin = event.onset + self.offset
        windows = tiled(stop + _TOLERANCE, self.seconds, event.label, begin, self.every)
        if not windows and event.duration is not None and begin + self.seconds <= end + _TOLERANCE:
            windows = [Window(begin, self.seconds, event.label)]
        return [window for window in windows if window.onset >= 0]


def _recordings(
    path: pathlib.Path, source: LabelSource, labels: Sequence[str], subject: Any, split: str | None, cut: _Cut
) -> Iterator[Recording]:
    files, sidecars, any_file = Files(), Sidecars(), False
    source.begin(path)
    for file in sorted(files_below(path)):
        if not files.is_recording(file):
            continue
        if sidecars.roots(file.parent) and parse_name(file) is None:
            continue  # of a BIDS tree, but no scalp EEG
        later = files.later_part(file)
        if later is not None and later[1] is not False:
            continue  # read with the first part
        any_file = True
        name = escape(file.relative_to(path).as_posix() if file != path else file.name)
        person = _person(file, name, subject)
        side = _side(file, person, split, sidecars) if split else None
        value = source.of_recording(file, name, sidecars)
        left_out = None if value is None or value in labels else f"its label is {value!r}, none of {', '.join(labels)}"
        left_out = f"the first part of the recording, {later[0].name}, is missing" if later else left_out
        opened = functools.partial(_open, file, name, source, value, labels, cut)
        yield Recording(stem_of(name).replace("/", "_"), person, side, opened, left_out=left_out)
    if not any_file:
        raise UserError(f"{path}: holds no recording of a format that MNE reads")
    source.end(path)


def _open(file, name, source, value, labels, cut):
    raw = read_raw(file)
    end = duration_of(raw)
    if value is not None:
        return Opened(raw, cut.windows(Event(0.0, None, value), end))
    events = list(source.of_signal(file, name, raw))
    windows = [window for event in events if event.label in labels for window in cut.windows(event, end)]
    if not windows:
        counts = collections.Counter(event.label for event in events)
        there = ", ".join(escape(label) for label, _ in counts.most_common(8)) or "none"
        raise UserError(f"{file}: no window of {' or '.join(labels)}; the labels of its events are: {there}")
    return Opened(raw, sorted(windows))


def _person(file, name, pattern):
    if pattern is None:
        if bids := parse_name(file):
            return escape(bids.subject)
        raise UserError(f"{file}: whose it is is not known; give the task a pattern, such as subject: '(S\\d+)_'")
    match = pattern.search(name)
    if match is None:
        raise UserError(f"{file}: the task's subject {pattern.pattern!r} does not match {name}")
    return match[1] if pattern.groups else match[0]


def _side(file, person, column, sidecars):
    side = participant_value(file, column, sidecars)
    if side not in SPLITS:
        raise UserError(f"{file}: {column} of {person} in participants.tsv is {side!r}; want {', '.join(SPLITS)}")
    return side


def _mapping(file: pathlib.Path) -> dict[str, Any]:
    import yaml

    if not file.is_file():
        raise UserError(f"{file}: no such file")
    try:
        # As texts: YAML takes No for a truth value, and 1e3 for a text.
        values = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: want lines of 'field: value', with {', '.join(REQUIRED)}")
    for field in values:
        if field not in (*REQUIRED, *OPTIONAL):
            raise UserError(f"{file}: {field}: no such field; there are {', '.join((*REQUIRED, *OPTIONAL))}")
    for field in REQUIRED:
        if field not in values:
            raise UserError(f"{file}: {field} is missing; a task needs {', '.join(REQUIRED)}")
    return values


class _Fields:
    """The fields of a description, each as what it has to be."""

    def __init__(self, file: pathlib.Path, values: Mapping[str, Any]):
        self.file, self._values = file, values

    def fault(self, field: str, wanted: str, value: Any) -> UserError:
        return UserError(f"{self.file}: {field}: want {wanted}, not {value!r}")

    def text(self, field: str, default: str | None = "") -> Any:
        value = self._values.get(field, default)
        if not isinstance(value, (str, type(default))) or value == "":
            raise self.fault(field, "a text", value)
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        value: Sequence[Any] = self._values.get(field, [])
        value = value.split() if isinstance(value, str) and field == "channels" else value
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise self.fault(field, "a list of texts", value)
        return tuple(value)

    def mapping(self, field: str) -> dict[str, str]:
        value = self._values[field]
        if not isinstance(value, dict) or not all(isinstance(word, str) for word in value.values()):
            raise self.fault(field, "lines of 'label: answer'", value)
        return value

    def whole(self, field: str) -> int:
        value = self._values[field]
        if not isinstance(value, str) or not re.fullmatch(r"\d+", value):
            raise self.fault(field, "whole seconds", value)
        return int(value)

    def number(self, field: str, default: float | None) -> Any:
        """A number, or ``none``."""
        value = self._values.get(field)
        if value is None:
            return default
        if value == "none" and field in ("low", "high", "mains"):
            return None
        number = to_number(value) if isinstance(value, str) else None
        if number is None or (field in ("every", "low", "high", "mains") and number <= 0):
            raise self.fault(field, "a number", value)
        return number

    def switch(self, field: str) -> bool:
        value = self._values.get(field, "false")
        if value not in ("true", "false"):
            raise self.fault(field, "true or false", value)
        return value == "true"

    def pattern(self, field: str) -> re.Pattern[str] | None:
        value = self._values.get(field)
        if value is None:
            return None
        try:
            return re.compile(value)
        except (re.error, TypeError) as error:
            raise self.fault(field, f"a regular expression ({error})", value) from error

    def column(self, field: str) -> str | None:
        value = self._values.get(field)
        if value is None:
            return None
        kind, _, column = value.partition(".") if isinstance(value, str) else ("", "", "")
        if kind != "participants" or not column:
            raise self.fault(field, "participants.COLUMN", value)
        return column
