"""Sleep-EDF Expanded: which sleep stage is this? (Kemp 2000)

``SC4ssNE0-PSG.edf`` is night N of person ss, ``SC4ssNEX-Hypnogram.edf`` beside it has its stages as EDF+ annotations,
by the rules of Rechtschaffen and Kales. Stages 3 and 4 are N3 here; movement time and epochs without a stage give no
window. A recording lasts up to a day: only the night is used, from 30 minutes before the first epoch of sleep to 30
minutes after the last. The telemetry files ``ST7ssNJ0-PSG.edf`` are read alike; give the folder ``sleep-cassette`` to
leave them out. The vocabulary has no pairs Fpz-Cz and Pz-Oz: such a derivation counts as its first electrode, against
one of the midline. The set has no split: people are split 60 / 20 / 20.
"""

import functools
import pathlib
import re
from collections.abc import Iterator

from neurolm_jax.eeg.opening import read_annotations
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks import hmc
from neurolm_jax.eeg.tasks.base import MULTICLASS, Opened, Recording, Task, Window
from neurolm_jax.eeg.tasks.readers import duration_of, files_under, foreign_bytes, read_raw
from neurolm_jax.errors import UserError

SECONDS = 30
WAKE_AROUND = 30 * 60  # seconds of wake that are kept before and after sleep
STAGES = {
    "Sleep stage W": "W",
    "Sleep stage 1": "N1",
    "Sleep stage 2": "N2",
    "Sleep stage 3": "N3",
    "Sleep stage 4": "N3",
    "Sleep stage R": "R",
    "Sleep stage ?": None,
    "Movement time": None,
}


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    for file in files_under(path, "S*-PSG.edf", "recording of Sleep-EDF"):
        match = re.fullmatch(r"(SC4\d\d|ST7\d\d)\d..-PSG", file.stem)
        if not match:
            raise UserError(f"{file}: is not called SC4ssNE0-PSG.edf or ST7ssNJ0-PSG.edf, which tells person and night")
        yield Recording(file.stem.removesuffix("-PSG"), match[1], None, functools.partial(_open, file))


def _open(file):
    raw = read_raw(file)
    epochs = list(_epochs(_hypnogram(file)))
    asleep = [onset for onset, stage in epochs if stage not in ("W", None)]
    if not asleep:
        raise UserError(f"{file}: its hypnogram has no epoch of sleep")
    end = min(asleep[-1] + SECONDS + WAKE_AROUND, duration_of(raw))
    begin = max(asleep[0] - WAKE_AROUND, 0)
    raw = raw.crop(begin, end, include_tmax=False) if end > begin else raw
    windows = [
        Window(onset - begin, SECONDS, stage)
        for onset, stage in epochs
        if stage and begin <= onset and (stage != "W" or onset + SECONDS <= end)
    ]
    return Opened(raw, windows)


def _hypnogram(file):
    """The annotations of a recording's hypnogram, whose last letter before the hyphen is its scorer's."""
    pattern = f"{file.name[:7]}?-Hypnogram.edf"
    labels = sorted(file.parent.glob(pattern))
    if not labels:
        raise UserError(f"{file}: its label file {pattern} is missing; download it, or leave the recording out")
    with foreign_bytes(labels[0]):
        annotations = read_annotations(labels[0])
    if not len(annotations):
        raise UserError(f"{labels[0]}: has no annotation; download it again, or leave the recording out")
    for annotation in annotations:
        if annotation["description"] not in STAGES:
            raise UserError(f"{labels[0]}: {annotation['description']!r} is none of {', '.join(STAGES)}")
    return annotations


def _epochs(annotations):
    """Onset and stage of each epoch, in the order of time."""
    for annotation in sorted(annotations, key=lambda a: a["onset"]):
        onset, stage = float(annotation["onset"]), STAGES[annotation["description"]]
        for number in range(int(annotation["duration"] // SECONDS)):
            yield onset + number * SECONDS, stage


TASK = Task(
    name="sleep_edf",
    question=hmc.TASK.question,
    answers=hmc.TASK.answers,
    lettered=True,
    wordings=hmc.TASK.wordings,
    seconds=SECONDS,
    preprocessing=Preprocessing(mains=50.0),
    channels=("Fpz", "Pz"),
    rates=(100.0,),
    recordings=recordings,
    figures=MULTICLASS,
)
