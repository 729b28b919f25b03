"""TUSL, the TUH EEG Slowing Corpus: seizure, slowing or background? (von Weltin 2017; v2.0)

``edf/aaaaaaju/s005_2010/01_tcp_ar/aaaaaaju_s005_t000.edf`` with ``.tse_agg`` beside it: a version line, an empty line,
then a line an event of first and last second, label and probability. The set has no split of its own: subjects are
parted 60 / 20 / 20.
"""

import functools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from neurolm_jax.eeg.tasks import tuh
from neurolm_jax.eeg.tasks.base import MULTICLASS, Opened, Recording, Task
from neurolm_jax.eeg.tasks.readers import around, duration_of, files_under, labels_beside, read_lines, read_raw
from neurolm_jax.eeg.tasks.splits import by_place
from neurolm_jax.errors import UserError

SECONDS = 10


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    for file in files_under(path, "*.edf", "recording of TUSL"):
        name = file.relative_to(path).as_posix()
        yield Recording(name, _subject(file), None, functools.partial(_open, file))


def _subject(file):
    # A few files have an older name than their subject's folder.
    session = file.parent.parent
    return session.parent.name if re.fullmatch(r"s\d+_\d{4}.*", session.name) else tuh.subject_of(file)


def _open(file):
    raw = read_raw(file)
    labels, duration = labels_beside(file, f"{file.stem}.tse_agg"), duration_of(raw)
    windows = []
    for number, line in enumerate(read_lines(labels), start=1):
        if not line.strip() or line.startswith(("version", "#")):
            continue
        fields = line.split()
        try:
            first, last, label = float(fields[0]), float(fields[1]), fields[2]
        except (IndexError, ValueError) as error:
            raise UserError(f"{labels}: line {number} is not 'start stop label': {line!r}") from error
        if label not in TASK.answers:
            raise UserError(f"{labels}: line {number}: label {label!r} is none of {', '.join(TASK.answers)}")
        windows.append(around(first, last, SECONDS, label, duration))  # ten seconds, give or take a sample
    return Opened(raw, windows if duration >= SECONDS else [])


def official(found: Sequence[Recording]) -> Mapping[str, str]:
    """60 / 20 / 20 of the files, whoever they are of: subjects are on two sides. The released code takes the files in
    the order of its disk, test before validation; here they are sorted."""
    first, second = int(len(found) * 0.6), int(len(found) * 0.8)
    return by_place(found, ("train", first), ("test", second - first), ("validation", None))


TASK = Task(
    name="tusl",
    question="Which type does this EEG segment belong to?",
    answers={"bckg": "background", "seiz": "seizure", "slow": "slowing"},
    lettered=True,
    wordings=("What is seen in this EEG?", "Which of these describes this EEG segment?"),
    seconds=SECONDS,
    preprocessing=tuh.PREPROCESSING,
    channels=tuh.ELECTRODES,
    cohort=tuh.COHORT,
    recordings=recordings,
    official=official,
    figures=MULTICLASS,
    published={"NeuroLM-B": {"balanced_accuracy": 0.6734}, "NeuroLM-XL": {"balanced_accuracy": 0.6845}},
)
