"""Workload (EEGMAT): rest or mental arithmetic? (Zyma 2019)

``SubjectNN_1.edf`` at rest, ``SubjectNN_2.edf`` while subtracting. Of each the last minute is used, in windows of 4 s
every 2 s. The set has no split: subjects are parted 60 / 20 / 20.
"""

import functools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks.base import BINARY, Opened, Recording, Task
from neurolm_jax.eeg.tasks.readers import duration_of, files_under, read_raw, tiled
from neurolm_jax.eeg.tasks.splits import by_place
from neurolm_jax.errors import UserError

SECONDS, STEP, LAST = 4, 2, 60
ELECTRODES = tuple("Fp1 Fp2 F3 F4 F7 F8 T3 T4 C3 C4 T5 T6 P3 P4 O1 O2 Fz Cz Pz".split())
LABELS = {"1": "low", "2": "high"}


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    for file in files_under(path, "*.edf", "recording of EEGMAT"):
        match = re.fullmatch(r"(Subject\d+)_(\d)", file.stem)
        if not match or match[2] not in LABELS:
            raise UserError(f"{file}: is not called SubjectNN_1.edf or SubjectNN_2.edf, which tells its label")
        yield Recording(file.stem, match[1], None, functools.partial(_open, file, LABELS[match[2]]))


def _open(file, label):
    raw = read_raw(file)
    duration = duration_of(raw)
    if duration < LAST:
        raise UserError(f"{file}: too short, {duration:.1f} s; the last {LAST} s are used")
    return Opened(raw, tiled(duration, SECONDS, label, begin=duration - LAST, step=STEP))


def official(found: Sequence[Recording]) -> Mapping[str, str]:
    """The first 52 files by name for training, the next 10 for validation, the rest for test: whole subjects."""
    return by_place(found, ("train", 52), ("validation", 10), ("test", None))


TASK = Task(
    name="workload",
    question="Is this EEG segment of high workload?",
    answers={"high": "Yes", "low": "No"},
    positive="high",
    wordings=("Was the person doing mental arithmetic in this EEG segment?", "Does this EEG show mental effort?"),
    seconds=SECONDS,
    preprocessing=Preprocessing(mains=50.0),
    channels=ELECTRODES,
    rates=(500.0,),
    recordings=recordings,
    official=official,
    figures=BINARY,
    published={"NeuroLM-B": {"balanced_accuracy": 0.6172}, "NeuroLM-XL": {"balanced_accuracy": 0.635}},
)
