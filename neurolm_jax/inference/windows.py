"""The windows of one task, and their crops, as the model and the baselines read them."""

import copy
from collections.abc import Iterable, Sequence

import numpy as np

from neurolm_jax.data.folds import subjects
from neurolm_jax.data.shards import Shards
from neurolm_jax.eeg.electrodes import recorded_electrodes, shared_id
from neurolm_jax.eeg.preprocessing import RATE
from neurolm_jax.eeg.records import Record, decode
from neurolm_jax.eeg.tasks import Task
from neurolm_jax.errors import UserError

DRAWN = 0  # seed of the windows that are drawn where there are too many
CROPS = 5  # of a window that is longer than its task's whole seconds


class Windows:
    """Labelled windows of one task; a window's samples are read when they are asked for.

    labels [N]: place in ``task.labels``. channels, samples [N]: of each window; montages [N]: a number that tells its
    set of electrodes. groups [N]: its subject, or its recording where the set does not tell subjects: windows of one
    group are no independent evidence. recordings [N]: of each window. electrodes: ids of all that occur, T3 as T7 and
    so on (``shared_id``). content_hash: of all of them.
    """

    def __init__(self, task: Task, parts: Sequence[Shards]):
        self.task, self._parts = task, parts
        indices = [shards.manifest["index"] for shards in parts]
        names = [label for index in indices for label in index.get("label", [])]
        for label in sorted(set(names) - set(task.answers)):
            raise UserError(f"{parts[0].path}: label {label!r} is not one of task {task.name}'s {task.labels}")
        self.labels = np.array([task.labels.index(label) for label in names], int)
        self.channels, self.samples, self.montages = (
            np.array([value for index in indices for value in index.get(key, [])], int)
            for key in ("channels", "samples", "montage")
        )
        self.groups = _per_record(parts, subjects)
        self.recordings = _per_record(parts, lambda part: [r["name"] for r in part.manifest["recordings"]])
        self.content_hash = "-".join(shards.manifest["content_hash"] for shards in parts)
        used = [r for shards in parts for r in shards.manifest["recordings"] if r["outcome"] == "used"]
        self.electrodes = sorted({shared_id(electrode) for r in used for electrode in recorded_electrodes(r)})
        self._stops = np.cumsum([len(shards.source) for shards in parts])
        self._numbers = np.arange(len(self.labels))

    @property
    def manifests(self) -> list[dict]:
        """Of its shards."""
        return [part.manifest for part in self._parts]

    def __len__(self) -> int:
        return len(self.labels)

    def at_most(self, count: int) -> "Windows":
        """All of them, or as many drawn at random, the same in every run."""
        if len(self) <= count:
            return self
        chosen = np.sort(np.random.default_rng(DRAWN).permutation(len(self))[:count])
        few = copy.copy(self)
        for name in ("labels", "channels", "samples", "montages", "groups", "recordings", "_numbers"):
            setattr(few, name, getattr(self, name)[chosen])
        return few

    def __getitem__(self, number: int) -> Record:
        number = int(self._numbers[number])
        part = int(np.searchsorted(self._stops, number, side="right"))
        before = int(self._stops[part - 1]) if part else 0
        return decode(self._parts[part].source[number - before])


def read_windows(parts: Iterable[tuple[Task, Shards]]) -> dict[str, Windows]:
    """The windows of each task, by its name; several parts of one task are joined."""
    found: dict[str, list] = {}
    tasks = {}
    for task, shards in parts:
        found.setdefault(task.name, []).append(shards)
        tasks[task.name] = task
    return {name: Windows(tasks[name], shards) for name, shards in found.items()}


def _per_record(parts, name):
    """Names [N] of all records' recordings, where ``name`` gives those of a part's recordings."""
    names = [(name(part), part.manifest["index"].get("recording", [])) for part in parts]
    return np.array([of_part[number] for of_part, numbers in names for number in numbers], object)


def window_begins(spans: Iterable[tuple[int, int]], seconds: int, every: float) -> np.ndarray:
    """Return first samples [N] of the windows, every so many seconds from the beginning of each span on.

    Spans are given by their first and last sample; no window crosses from one to the next.
    """
    begins = [np.zeros(0, int)]
    for first, last in spans:
        spare = last - first - seconds * RATE
        steps = np.arange(0, spare + 1, min(every * RATE, max(spare, 0) + 1))
        begins.append(first + np.unique(np.round(steps).astype(int)))
    return np.concatenate(begins)


def check_every(every: float) -> None:
    """Raises UserError where the seconds from window to window are less than a sample, or no number."""
    if not 1 / RATE <= every < float("inf"):
        raise UserError(f"every: want {1 / RATE:g} s or more, not {every:g}")


def crops(task: Task, samples: int) -> np.ndarray:
    """First samples of the crops whose answers are averaged: evenly spread over what a window of so many samples has to
    spare."""
    spare = samples - task.seconds * RATE
    return np.unique(np.linspace(0, spare, CROPS).round().astype(int))


def middle(windows: Windows, number: int) -> tuple[Record, int]:
    """A window, and where its middle crop begins."""
    return windows[number], centre(windows.task, windows.samples[number])


def centre(task: Task, samples: int) -> int:
    """First sample of the middle crop."""
    return (samples - task.seconds * RATE) // 2
