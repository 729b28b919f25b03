"""One window of a task, cut from a prepared signal and judged."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from neurolm_jax.eeg import quality
from neurolm_jax.eeg.preprocessing import RATE, Signal
from neurolm_jax.eeg.quality import Fitness
from neurolm_jax.eeg.records import Record
from neurolm_jax.eeg.tasks import Recording, Task
from neurolm_jax.eeg.tasks.base import Window
from neurolm_jax.errors import UserError

CROSSES_JUMP = "time jumps within it"


def check_window(task: Task, recording: Recording, window: Window, begin: float, end: float) -> None:
    """Refuse a window that is not of the task, or not between seconds ``begin`` and ``end``.

    Raises:
      UserError: naming it.
    """
    if window.label not in task.answers:
        known = ", ".join(task.answers)
        raise UserError(f"{recording.name}: label {window.label!r} at {window.onset:g} s is none of {known}")
    if not window.duration * RATE >= task.seconds * RATE - 0.5:
        raise UserError(
            f"{recording.name}: a window of {window.duration:g} s at {window.onset:g} s; {task.name} asks about"
            f" {task.seconds} s"
        )
    tolerance = 1 / RATE
    if not begin - tolerance <= window.onset <= window.onset + window.duration <= end + tolerance:  # nor NaN
        raise UserError(
            f"{recording.name}: its labels want seconds {window.onset:g} to {window.onset + window.duration:g},"
            f" it has {begin:g} to {end:g}"
        )


def labelled_record(task: Task, recording: Recording, signal: Signal, window: Window) -> tuple[Record, Fitness]:
    """A window of a prepared signal, told from its baseline where the task says so, and what it is fit for."""
    # The whole window even where its edges lie between samples.
    length = round(window.duration * RATE)
    begin = min(round(window.onset * RATE), signal.samples.shape[1] - length)
    if begin < 0:
        raise UserError(f"{recording.name}: too short for its window of {window.duration:g} s")
    begin, fit = judge_window(signal, begin, length)
    record = cut(task, recording, signal, begin, begin + length, window.label, fit.channels)
    return dataclasses.replace(record, samples=from_baseline(task, record.samples)), fit


def judge_window(signal: Signal, begin: int, length: int) -> tuple[int, Fitness]:
    """First sample of a window, moved by one if that keeps it within a span, and what the window is fit for."""
    begins = [b for b in (begin, begin + 1, begin - 1) if b >= 0 and signal.same_span(b, b + length)]
    if begins:
        return begins[0], quality.fitness(signal.flags[:, begins[0] : begins[0] + length])
    return begin, quality.fitness(signal.flags[:, begin : begin + length])._replace(fault=CROSSES_JUMP)


def from_baseline(task: Task, samples: np.ndarray) -> np.ndarray:
    """A window's samples [C, N] minus the mean of each channel's first ``task.baseline`` seconds."""
    if not task.baseline:
        return samples
    return samples - samples[:, : round(task.baseline * RATE)].mean(axis=1, keepdims=True)


def cut(
    task: Task,
    recording: Recording,
    signal: Signal,
    begin: int,
    stop: int,
    label: str | None = None,
    channels: Sequence[int] | np.ndarray | None = None,
) -> Record:
    """Samples ``begin`` to ``stop`` of some channels, all by default, as a record."""
    rows = range(len(signal.electrodes)) if channels is None else channels
    return Record(
        samples=signal.samples[rows, begin:stop],
        electrodes=tuple(signal.electrodes[row] for row in rows),
        source=task.name,
        recording=recording.name,
        subject=recording.subject,
        start=begin / RATE,
        label=label,
    )
