"""MDD: major depression, or healthy? EEG at rest (Mumtaz 2016).

``MDD S1 EC.edf`` and ``H S1 EO.edf``, with eyes closed and open, also without the spaces. TASK recordings are not at
rest and are not read. The set has some files under two people: they count as one person here, and ``prepare`` leaves
the copies out. The set has no split: people are split 60 / 20 / 20.
"""

import functools
import pathlib
import re
from collections.abc import Iterator

from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks.base import BINARY, Opened, Recording, Task
from neurolm_jax.eeg.tasks.readers import duration_of, files_under, read_raw, subjects_by_content, tiled
from neurolm_jax.errors import UserError

SECONDS = 10
ELECTRODES = tuple("Fp1 Fp2 F3 F4 F7 F8 T3 T4 C3 C4 T5 T6 P3 P4 O1 O2 Fz Cz Pz".split())
LABELS = {"MDD": "depressed", "H": "healthy"}
# The home of the set puts a number of its own before a name that occurs twice.
NAME = re.compile(r"(?:\d+_)?(MDD|H) ?S ?(\d+) *(EC|EO|TASK)(?: ?\(\d+\))?", re.IGNORECASE)


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    people, labels = {}, {}
    for file in files_under(path, "*.edf", "recording of MDD"):
        match = NAME.fullmatch(file.stem)
        if not match:
            raise UserError(f"{file}: is not called 'MDD S1 EC.edf' or 'H S1 EC.edf', which tells its label")
        group, number, condition = match.groups()
        if condition.upper() != "TASK":
            people[file] = f"{group.upper()}{number}"
            labels[file] = LABELS[group.upper()]
    if not people:
        raise UserError(f"{path}: holds no recording of MDD at rest (EC or EO)")
    for file, person in subjects_by_content(people).items():
        yield Recording(file.stem, person, None, functools.partial(_open, file, labels[file]))


def _open(file, label):
    raw = read_raw(file)
    return Opened(raw, tiled(duration_of(raw), SECONDS, label))


TASK = Task(
    name="mdd",
    question="Is this EEG segment of a person with major depression?",
    answers={"depressed": "Yes", "healthy": "No"},
    positive="depressed",
    wordings=("Does the person whose EEG this is suffer from depression?", "Is this the EEG of a depressed person?"),
    seconds=SECONDS,
    preprocessing=Preprocessing(mains=50.0),
    channels=ELECTRODES,
    rates=(256.0,),
    recordings=recordings,
    figures=BINARY,
)
