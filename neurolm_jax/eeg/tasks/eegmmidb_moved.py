"""EEGMMIDB, executed movements: left fist, right fist, both fists or both feet? (Schalk 2004)

Other runs of the set that ``eegmmidb`` reads, with the same people in each split. In runs 3, 7 and 11 people move the
left fist (T1) or the right (T2), in runs 5, 9 and 13 both fists (T1) or both feet (T2).
"""

import pathlib
from collections.abc import Iterator

from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks import eegmmidb
from neurolm_jax.eeg.tasks.base import MULTICLASS, Recording, Task

ONE_FIST = {"T1": "left fist", "T2": "right fist"}
BOTH = {"T1": "both fists", "T2": "both feet"}


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    yield from eegmmidb.recordings_of_runs(path, dict.fromkeys((3, 7, 11), ONE_FIST) | dict.fromkeys((5, 9, 13), BOTH))


TASK = Task(
    name="eegmmidb_moved",
    question="Which movement is made in this EEG segment?",
    answers={
        "left fist": "Left fist",
        "right fist": "Right fist",
        "both fists": "Both fists",
        "both feet": "Both feet",
    },
    lettered=True,
    wordings=("What does the person move while this EEG is recorded?", "Which part of the body moves here?"),
    seconds=eegmmidb.SECONDS,
    preprocessing=Preprocessing(mains=60.0),
    channels=eegmmidb.ELECTRODES,
    rates=(160.0,),
    cohort=eegmmidb.COHORT,
    recordings=recordings,
    figures=MULTICLASS,
)
