"""Guinea-Bissau: epilepsy, or control? EEG at rest under a consumer's headset (van Hees 2018).

``EEGs_Guinea-Bissau/signal-N.csv.gz`` has a column for each of 14 Emotiv electrodes, 128 Hz, in microvolts above a
constant of about 4200, which is subtracted; ``metadata_guineabissau.csv`` has the Group of each subject N. The set has
no split: people are split 60 / 20 / 20.
"""

import csv
import functools
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks.base import BINARY, Opened, Recording, Task
from neurolm_jax.eeg.tasks.readers import duration_of, files_under, foreign_bytes, microvolt_raw, read_lines, tiled
from neurolm_jax.errors import UserError

SECONDS = 10
RATE = 128.0
ELECTRODES = ("AF3", "AF4", "F3", "F4", "F7", "F8", "FC5", "FC6", "O1", "O2", "P7", "P8", "T7", "T8")
METADATA = "metadata_guineabissau.csv"
LABELS = {"epilepsy": "epilepsy", "control": "control"}


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    files = files_under(path, "signal-*.csv.gz", "recording of Guinea-Bissau")
    # The set's other country has files of two numbers, signal-1-1.csv.gz.
    numbers = {file: match[1] for file in files if (match := re.fullmatch(r"signal-(\d+)\.csv\.gz", file.name))}
    if not numbers:
        raise UserError(f"{path}: holds no recording of Guinea-Bissau (signal-N.csv.gz)")
    groups = _groups(path)
    for file, number in sorted(numbers.items(), key=lambda item: int(item[1])):
        if number not in groups:
            raise UserError(f"{file}: subject {number} is not in {METADATA}, which tells its label")
        yield Recording(f"signal-{number}", number, None, functools.partial(_open, file, groups[number]))


def _groups(path):
    """Label of each subject."""
    metadata = files_under(path, METADATA, "list of subjects")[0]
    groups = {}
    for line, row in enumerate(csv.DictReader(read_lines(metadata)), start=2):
        subject, group = ((row.get(column) or "").strip() for column in ("subject.id", "Group"))
        if group.lower() not in LABELS or not subject:
            raise UserError(f"{metadata}: line {line} has no subject.id, or a Group that is not Epilepsy or Control")
        groups[subject] = LABELS[group.lower()]
    return groups


def _open(file, label):
    with foreign_bytes(file):
        header = np.loadtxt(file, str, delimiter=",", quotechar='"', max_rows=1).tolist()
        if missing := [name for name in ELECTRODES if name not in header]:
            raise UserError(f"{file}: has no column {', '.join(missing)}")
        columns = [header.index(name) for name in ELECTRODES]
        samples = np.loadtxt(file, delimiter=",", quotechar='"', skiprows=1, usecols=columns, ndmin=2).T  # [C, N]
    raw = microvolt_raw(samples - samples.mean(axis=1, keepdims=True), ELECTRODES, RATE)
    return Opened(raw, tiled(duration_of(raw), SECONDS, label))


TASK = Task(
    name="guinea_bissau",
    question="Is this EEG segment of a person with epilepsy?",
    answers={"epilepsy": "Yes", "control": "No"},
    positive="epilepsy",
    wordings=("Does the person whose EEG this is have epilepsy?", "Is this the EEG of an epileptic person?"),
    seconds=SECONDS,
    preprocessing=Preprocessing(mains=50.0),
    channels=ELECTRODES,
    rates=(RATE,),
    recordings=recordings,
    figures=BINARY,
)
