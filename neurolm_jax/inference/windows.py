"""The windows of one task's split, and their crops, as the model and the baselines read them."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from neurolm_jax.data.dialogues import Dialogue, dialogue
from neurolm_jax.data.shards import Shards
from neurolm_jax.eeg.preprocessing import RATE
from neurolm_jax.eeg.records import Record, decode
from neurolm_jax.eeg.tasks import Task

CROPS = 5  # of a window that is longer than its task's whole seconds


@dataclasses.dataclass(frozen=True)
class LabelledWindows:
    """Records of one task with the index of each one's answer."""

    task: Task
    records: list[Record]
    labels: np.ndarray  # [N] place in task.answers


def read_windows(parts: Iterable[tuple[Task, Shards]]) -> dict[str, LabelledWindows]:
    """The windows of each task, by its name; several parts of one task are joined."""
    found: dict[str, LabelledWindows] = {}
    for task, shards in parts:
        before = found[task.name].records if task.name in found else []
        records = before + [decode(shards.source[i]) for i in range(len(shards.source))]
        answers = list(task.answers)
        labels = np.array([answers.index(record.label) for record in records])
        found[task.name] = LabelledWindows(task, records, labels)
    return found


def crops(task: Task, record: Record) -> np.ndarray:
    """First samples of the crops whose answers are averaged: evenly spread over what the window has to spare."""
    spare = record.samples.shape[1] - task.seconds * RATE
    return np.unique(np.linspace(0, spare, CROPS).round().astype(int))


def centred(task: Task, record: Record, label: str | None = None) -> Dialogue:
    """The middle crop of a window."""
    return dialogue(task, record, (record.samples.shape[1] - task.seconds * RATE) // 2, label)
