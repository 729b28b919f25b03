"""What a downstream task is: where its recordings are, what is asked about them, which answers are allowed."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.errors import UserError


class Window(NamedTuple):
    """A labelled stretch of a recording: onset and duration in seconds."""

    onset: float
    duration: float
    label: str


@dataclasses.dataclass(frozen=True)
class Recording:
    """raw: an ``mne.io.Raw`` with channels named as electrodes; split: train, validation or test."""

    name: str
    split: str
    raw: Any
    windows: list[Window]
    subject: str | None = None


@dataclasses.dataclass(frozen=True)
class Task:
    """A question about windows of ``seconds`` whole seconds.

    answers: label as the data set writes it -> answer in words, with its leading space.
    recordings: reads the data set's files under a path.
    baseline: seconds from a window's start whose mean is subtracted from each channel; 0 leaves windows as they are.
    scored: False where a set is too small for a figure to mean anything.
    """

    name: str
    question: str
    answers: dict[str, str]
    seconds: int
    preprocessing: Preprocessing
    recordings: Callable[[pathlib.Path], Iterator[Recording]]
    baseline: float = 0.0
    scored: bool = True


def read_ts(file: pathlib.Path) -> tuple[np.ndarray, list[str]]:
    """The trials [N, C, T] and labels of a ``.ts`` file: after ``@data`` a trial a line, channels split by colons.

    Raises:
      UserError: no such file, or a line that is not of that form.
    """
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


def microvolt_raw(samples: np.ndarray, names: Iterable[str], rate: float):
    """An ``mne.io.RawArray`` of samples [C, T] in microvolts."""
    import mne

    info = mne.create_info(list(names), rate, "eeg", verbose="error")
    return mne.io.RawArray(samples * 1e-6, info, verbose="error")


def held_out(count: int, share: float, seed: int = 0) -> np.ndarray:
    """Which of ``count`` training items are kept for validation: bool [count], the same in every run."""
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(seed).permutation(count)[: round(share * count)]] = True
    return chosen
