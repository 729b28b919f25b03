"""TUEV, the TUH EEG Events Corpus: which of six events is this? (Harati 2015; v2.0)

``edf/{train,eval}/.../NAME.edf`` with ``NAME.rec`` beside it, a line an event and channel: channel, first and last
second, label 1 to 6. A window is the five seconds round each line's event, so an event seen in many channels counts as
often, as published; near an end of the recording it is moved inside. Test is ``eval``.
"""

import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from neurolm_jax.eeg.tasks import tuh
from neurolm_jax.eeg.tasks.base import MULTICLASS, Opened, Recording, Task
from neurolm_jax.eeg.tasks.readers import around, duration_of, files_under, labels_beside, read_lines, read_raw
from neurolm_jax.errors import UserError

SECONDS = 5
LABELS = {"1": "spsw", "2": "gped", "3": "pled", "4": "eyem", "5": "artf", "6": "bckg"}


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    for file in files_under(path, "*.edf", "recording of TUEV"):
        parts = file.relative_to(path.parent).parts
        split = "train" if "train" in parts else "test" if "eval" in parts else None
        if not split:
            raise UserError(f"{file}: does not lie under train or eval, which tell the split")
        name = file.relative_to(path).as_posix()
        yield Recording(name, _subject(file, split), split, functools.partial(_open, file))


def _subject(file, split):
    # Training files are named by their subject; those of eval by a number, each of a subject of its own folder.
    return tuh.subject_of(file) if split == "train" else f"eval-{file.parent.name}"


def _open(file):
    raw = read_raw(file)
    duration, labels = duration_of(raw), labels_beside(file, f"{file.stem}.rec")
    windows = []
    for number, line in enumerate(read_lines(labels), start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split(",")]
        try:
            first, last = float(fields[1]), float(fields[2])
            code = str(int(float(fields[3])))
        except (IndexError, ValueError, OverflowError) as error:
            raise UserError(f"{labels}: line {number} is not 'channel,start,stop,label': {line!r}") from error
        if code not in LABELS:
            raise UserError(f"{labels}: line {number}: label {fields[3]} is none of 1 to 6")
        windows.append(around(first, last, SECONDS, LABELS[code], duration))
    return Opened(raw, windows if duration >= SECONDS else [])


def official(found: Sequence[Recording]) -> Mapping[str, str]:
    """The released code draws a fifth of the training subjects with NumPy's old generator and seed 4523, from a set
    whose order changes from run to run; here the subjects are sorted first."""
    subjects = sorted({r.subject for r in found if r.split == "train" and r.subject})
    drawn = np.random.RandomState(4523).choice(subjects, size=int(len(subjects) * 0.2), replace=False)
    split = {r.name: r.split for r in found if r.split}
    return split | {r.name: "validation" for r in found if r.split == "train" and r.subject in drawn}


TASK = Task(
    name="tuev",
    question="Which event type does this EEG segment belong to?",
    answers={
        "spsw": "spike and slow wave",
        "gped": "generalized periodic epileptiform discharge",
        "pled": "periodic lateralized epileptiform discharge",
        "eyem": "eye movement",
        "artf": "artifact",
        "bckg": "background",
    },
    lettered=True,
    wordings=("What kind of event does this EEG show?", "Which of these events is seen in this EEG?"),
    seconds=SECONDS,
    preprocessing=tuh.PREPROCESSING,
    channels=tuh.ELECTRODES,
    cohort=tuh.COHORT,
    recordings=recordings,
    official=official,
    figures=MULTICLASS,
    published={"NeuroLM-B": {"balanced_accuracy": 0.4560}, "NeuroLM-XL": {"balanced_accuracy": 0.4679}},
)
