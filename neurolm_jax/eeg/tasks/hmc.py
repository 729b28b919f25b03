"""HMC, the sleep staging database of Haaglanden Medisch Centrum: which sleep stage is this? (Alvarez-Estevez 2022)

``recordings/SN001.edf`` with ``SN001_sleepscoring.txt`` beside it, a CSV of 30 s epochs. A recording is of a subject of
its own, and the set has no split: subjects are parted 60 / 20 / 20.
"""

import csv
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks.base import MULTICLASS, Opened, Recording, Task, Window
from neurolm_jax.eeg.tasks.readers import files_under, labels_beside, read_lines, read_raw
from neurolm_jax.eeg.tasks.splits import by_place
from neurolm_jax.errors import UserError

SECONDS = 30
STAGE = "Sleep stage "


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    for file in files_under(path, "SN???.edf", "recording of HMC"):
        yield Recording(file.stem, file.stem, None, functools.partial(_open, file))


def _open(file):
    labels = labels_beside(file, f"{file.stem}_sleepscoring.txt")
    windows = []
    for number, row in enumerate(csv.DictReader(read_lines(labels), skipinitialspace=True), start=2):
        annotation = (row.get("Annotation") or "").strip()
        if not annotation.startswith(STAGE):
            continue  # lights off and on
        try:
            onset, duration = float(row["Recording onset"]), float(row["Duration"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{labels}: line {number} has no 'Recording onset' and 'Duration'") from error
        label = annotation.removeprefix(STAGE)
        if label not in TASK.answers:
            raise UserError(f"{labels}: line {number}: {annotation!r} is none of {', '.join(TASK.answers)}")
        if duration == SECONDS:
            windows.append(Window(onset, SECONDS, label))
    if not windows:
        raise UserError(f"{labels}: holds no epoch of {SECONDS} s")
    return Opened(read_raw(file), windows)


def official(found: Sequence[Recording]) -> Mapping[str, str]:
    """The first 100 files by name for training, the next 25 for validation, the rest for test."""
    return by_place(found, ("train", 100), ("validation", 25), ("test", None))


TASK = Task(
    name="hmc",
    question="Which sleep type does this EEG segment belong to?",
    answers={"W": "Wake", "N1": "NREM-1", "N2": "NREM-2", "N3": "NREM-3", "R": "REM"},
    lettered=True,
    wordings=("In which sleep stage was this EEG recorded?", "Which stage of sleep is this?"),
    seconds=SECONDS,
    preprocessing=Preprocessing(mains=50.0),
    channels=("F4", "C4", "O2", "C3"),
    rates=(256.0,),
    recordings=recordings,
    official=official,
    figures=MULTICLASS,
    published={"NeuroLM-B": {"balanced_accuracy": 0.6737}, "NeuroLM-XL": {"balanced_accuracy": 0.576}},
)
