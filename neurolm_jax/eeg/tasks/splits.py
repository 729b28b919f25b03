"""Which recordings are learnt from, chosen on and tested on: no subject on two sides."""

from collections.abc import Mapping, Sequence

import numpy as np

from neurolm_jax.eeg.tasks.base import SPLITS, Recording, Task
from neurolm_jax.errors import UserError

WAYS = ("published", "subject", "official")
SHARES = (0.6, 0.2, 0.2)  # of the subjects, where a set has no split of its own
HELD_OUT = 0  # seed of the training items that are kept for validation


def assign(task: Task, recordings: Sequence[Recording], way: str = "published", seed: int = 0) -> dict[str, str]:
    """The split of each recording, by its name.

    Args:
      way: ``published`` is the set's own split, a share of its training subjects kept for validation, and by subjects
        where it has none; ``subject`` parts the subjects even so; ``official`` does as the released code does.
      seed: of choices among subjects; ``official`` makes none.

    Raises:
      UserError: a subject on two sides; a way the task does not have; two recordings of one name; an unknown split.
    """
    names = [recording.name for recording in recordings]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{task.name}: two recordings are called {twice}; remove one of them")
    for recording in recordings:
        if recording.split not in (None, *SPLITS):
            known = ", ".join(SPLITS)
            raise UserError(f"{task.name}: {recording.name} has split {recording.split!r}; known are {known}, None")
    if way == "official":
        if task.official is None:
            raise UserError(f"--split official: the released code has no split of {task.name}")
        return dict(task.official(recordings))
    if way == "subject":
        if any(recording.subject is None for recording in recordings):
            raise UserError(f"--split subject: the subjects of {task.name} are not known")
    if way == "subject" or all(recording.split is None for recording in recordings):
        return _deal(recordings, SHARES, seed)
    if unknown := [recording.name for recording in recordings if recording.split is None]:
        raise UserError(f"{task.name}: {unknown[0]} has no split, others have one; give all of them one, or none")
    found = {recording.name: recording.split for recording in recordings if recording.split}
    training = [recording for recording in recordings if recording.split == "train"]
    if "validation" not in found.values() and task.validation:
        found |= _deal(training, (1 - task.validation, task.validation), seed)
    if not task.within_subjects:
        _refuse_two_sides(task, recordings, found)
    return found


def _deal(recordings, shares, seed):
    """Recordings by name, each subject wholly in one of the splits; every split has a subject if there are enough."""
    subjects = sorted({recording.subject or recording.name for recording in recordings})
    order = np.random.default_rng(seed).permutation(subjects)
    counts = np.maximum(
        np.round(np.array(shares[1:]) * len(subjects)).astype(int), min(1, len(subjects) // len(shares))
    )
    first = len(subjects) - int(counts.sum())
    stops = np.cumsum([first, *counts])
    side = {subject: SPLITS[int(np.searchsorted(stops, i, side="right"))] for i, subject in enumerate(order.tolist())}
    return {recording.name: side[recording.subject or recording.name] for recording in recordings}


def _refuse_two_sides(task: Task, recordings: Sequence[Recording], found: Mapping[str, str]) -> None:
    sides: dict[str, tuple[str, str]] = {}
    for recording in recordings:
        if recording.subject is None:
            continue
        split = found[recording.name]
        other, name = sides.setdefault(recording.subject, (split, recording.name))
        if other != split:
            raise UserError(
                f"{task.name}: subject {recording.subject} is on two sides: {name} in {other}, {recording.name} in"
                f" {split}; remove one of them, or use --split subject"
            )


def by_place(recordings: Sequence[Recording], *parts: tuple[str, int | None]) -> dict[str, str]:
    """Recordings sorted by name: so many of them to the first split, so many to the next; None takes the rest."""
    names, place = sorted(recording.name for recording in recordings), 0
    found: dict[str, str] = {}
    for split, count in parts:
        stop = len(names) if count is None else place + count
        found |= dict.fromkeys(names[place:stop], split)
        place = stop
    return found


def held_out(count: int, share: float) -> np.ndarray:
    """Which of ``count`` training items are kept for validation: bool [count], the same in every run."""
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(HELD_OUT).permutation(count)[: round(share * count)]] = True
    return chosen
