"""What a downstream task is: where its recordings are, what is asked about them, which answers are allowed."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from neurolm_jax.eeg.electrodes import electrode_id
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.errors import UserError

SPLITS = ("train", "validation", "test")
BINARY = ("balanced_accuracy", "auc_pr", "auroc")  # figures that are published for a set with two classes
MULTICLASS = ("balanced_accuracy", "kappa", "weighted_f1")  # and with more
FIGURES = tuple(dict.fromkeys(BINARY + MULTICLASS))


class Window(NamedTuple):
    """A labelled stretch of a recording: onset and duration in seconds."""

    onset: float
    duration: float
    label: str


class Opened(NamedTuple):
    """A recording that was opened, and its labels.

    Attributes:
      raw: an ``mne.io.Raw`` with channels named as electrodes, its samples perhaps still on disk.
      windows: the labelled stretches of it.
      whole: the file's own, where ``raw`` is a stretch of it and MNE's ``read_raw`` would not read the file alike: what
        holds one must not be learnt from where the other is tested on.
    """

    raw: Any
    windows: Sequence[Window]
    whole: Any = None


@dataclasses.dataclass(frozen=True)
class Recording:
    """What lies on one side of the split.

    Attributes:
      name: unique in its set.
      subject: None where the set does not tell.
      split: train, validation or test as the set is published, None where it has no split of its own.
      open: reads header and labels. Raises UserError, naming the file, for what is missing or wrong there.
      span: seconds of ``raw`` that are the recording's own; what lies around them is there for filters alone.
      left_out: why the recording is never used, for the manifest; None where it is.
    """

    name: str
    subject: str | None
    split: str | None
    open: Callable[[], Opened]
    span: tuple[float, float] | None = None
    left_out: str | None = None


@dataclasses.dataclass(frozen=True)
class Task:
    """A question about windows of ``seconds`` whole seconds.

    Attributes:
      name: a word, of which its folder and its figures are called.
      question: without "Question:" and options.
      answers: label as the data set writes it -> answer in words.
      seconds: whole seconds of a window.
      preprocessing: of its recordings, wherever they are read.
      recordings: the recordings under a path, cheaply: no sample is read before they are opened.
      lettered: the words are options (A), (B) ..., and the answer is a letter.
      positive: of two labels, the one that areas under curves are about.
      wordings: other questions that ask the same, see ``prompts``.
      channels: electrodes that are used, by name; () for all that the vocabulary has.
      rates: in Hz, of the set's files; () where they differ.
      validation: share of the training subjects kept for validation, where the set's own split has none.
      within_subjects: the published split parts each subject's trials, not the subjects.
      official: split of recordings as the released code makes it (name -> split), where it has one.
      figures: names of the measures that are published for the set.
      published: model -> figures.
      baseline: seconds from a window's start whose mean is subtracted from each channel; 0 leaves windows as they are.
      scored: False where a set is too small for a figure to mean anything.
      cohort: what its subjects' names are unique in; sets of one cohort name the same person alike. By default the set
        itself.
    """

    name: str
    question: str
    answers: Mapping[str, str]
    seconds: int
    preprocessing: Preprocessing
    recordings: Callable[[pathlib.Path], Iterable[Recording]]
    lettered: bool = False
    positive: str | None = None
    wordings: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    rates: tuple[float, ...] = ()
    validation: float = 0.2
    within_subjects: bool = False
    official: Callable[[Sequence[Recording]], Mapping[str, str]] | None = None
    figures: tuple[str, ...] = BINARY
    published: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    baseline: float = 0.0
    scored: bool = True
    cohort: str = ""

    def __post_init__(self):
        for field, (kind, wanted) in _KINDS.items():
            value = getattr(self, field)
            if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
                raise UserError(f"task {self.name}: {field}: want {wanted}, not {value!r}")
        for field, kind in {"channels": str, "rates": (int, float), "wordings": str, "figures": str}.items():
            if not all(isinstance(value, kind) for value in getattr(self, field)):
                raise UserError(f"task {self.name}: {field}: want {_KINDS[field][1]}, not {getattr(self, field)!r}")
        if not all(isinstance(value, str) for pair in self.answers.items() for value in pair):
            raise UserError(f"task {self.name}: answers: want a text for each label, not {self.answers!r}")
        words, told_apart = list(self.answers.values()), {w.strip().casefold() for w in self.answers.values()}
        faults = {
            "name: want a word of letters, digits, - and _": re.fullmatch(r"[\w-]+", self.name),
            "answers: want two labels or more, each with words of its own": 1 < len(words) == len(told_apart - {""}),
            "answers: want two to 26 options": not self.lettered or len(words) <= 26,
            f"positive: want one of {self.labels}, or None": self.positive in (None, *self.answers),
            "seconds: want whole seconds, 1 or more": self.seconds >= 1,
            f"baseline: want seconds from 0 to {self.seconds}": 0 <= self.baseline <= self.seconds,
            "channels: want electrodes of the vocabulary": None not in map(electrode_id, self.channels),
            "rates: want numbers in Hz": all(0 < rate < float("inf") for rate in self.rates),
            "published: want model -> measure -> number": all(isinstance(m, Mapping) for m in self.published.values()),
            "validation: want a share from 0 to 1": 0 <= self.validation < 1,
            f"figures: want some of {', '.join(FIGURES)}": set(self.figures) <= set(FIGURES),
        }
        for fault, fine in faults.items():
            if not fine:
                raise UserError(f"task {self.name}: {fault}, not {getattr(self, fault.partition(':')[0])!r}")

    @property
    def labels(self) -> list[str]:
        """In the order of classes."""
        return list(self.answers)


_SEVERAL = (tuple, list)
# What a task's fields are, and how that is told.
_KINDS = {
    "name": (str, "a text"),
    "question": (str, "a text"),
    "answers": (Mapping, "label -> answer"),
    "seconds": (int, "whole seconds"),
    "preprocessing": (Preprocessing, "a Preprocessing"),
    "recordings": (Callable, "a function of a path"),
    "lettered": (bool, "True or False"),
    "wordings": (_SEVERAL, "a tuple of texts"),
    "channels": (_SEVERAL, "a tuple of electrodes' names"),
    "rates": (_SEVERAL, "a tuple of numbers, in Hz"),
    "validation": ((int, float), "a share from 0 to 1"),
    "within_subjects": (bool, "True or False"),
    "official": ((Callable, type(None)), "a function of recordings, or None"),
    "figures": (_SEVERAL, "a tuple of names"),
    "published": (Mapping, "model -> figures"),
    "baseline": ((int, float), "seconds"),
    "scored": (bool, "True or False"),
    "cohort": (str, "a text"),
}
