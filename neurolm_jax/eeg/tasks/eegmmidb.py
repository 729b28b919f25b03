"""EEGMMIDB, motor imagery: is a left or a right fist imagined? (Schalk 2004)

``S001/S001R04.edf``: 109 people, 14 runs each. In runs 4, 8 and 12 people imagine opening and closing a fist for about
4 s from each cue, T1 (left) or T2 (right). They are split by their numbers, 70 / 19 / 20, as is usual for the set
(CBraMod, Wang 2025). ``prepare`` leaves three of them out, as is usual too: their files have 128 Hz and cues of 5.1 s,
all others 160 Hz and 4.1 s.
"""

import functools
import pathlib
import re
from collections.abc import Iterator, Mapping

from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks.base import BINARY, Opened, Recording, Task, Window
from neurolm_jax.eeg.tasks.readers import duration_of, files_under, read_raw
from neurolm_jax.errors import UserError

SECONDS = 4
ELECTRODES = tuple("FC5 FC3 FC1 FCZ FC2 FC4 FC6 C5 C3 C1 CZ C2 C4 C6 CP5 CP3 CP1 CPZ CP2 CP4 CP6".split())
COHORT = "eegmmidb"
LAST_TRAINED, LAST_VALIDATED = 70, 89  # people's numbers
WRONG_CLOCK = {"S088", "S092", "S100"}
IMAGINED_FIST = {"T1": "left", "T2": "right"}  # cue -> label


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    yield from recordings_of_runs(path, dict.fromkeys((4, 8, 12), IMAGINED_FIST))


def recordings_of_runs(path: pathlib.Path, runs: Mapping[int, Mapping[str, str]]) -> Iterator[Recording]:
    """Recordings of some runs.

    Args:
      runs: number of a run -> cue -> label.

    Raises:
      UserError: no file of these runs; a file whose name tells no person and run.
    """
    numbers = ", ".join(map(str, runs))
    any_run = False
    for file in files_under(path, "S*R*.edf", "recording of EEGMMIDB"):
        match = re.fullmatch(r"(S(\d{3}))R(\d{2})", file.stem)
        if not match:
            raise UserError(f"{file}: is not called SNNNRNN.edf, which tells person and run")
        if (cues := runs.get(int(match[3]))) is None:
            continue
        any_run, number = True, int(match[2])
        split = "train" if number <= LAST_TRAINED else "validation" if number <= LAST_VALIDATED else "test"
        reason = "its rate and the timing of its cues are not those of the set" if match[1] in WRONG_CLOCK else None
        yield Recording(file.stem, match[1], split, functools.partial(_open, file, cues), left_out=reason)
    if not any_run:
        raise UserError(f"{path}: holds no recording of runs {numbers} of EEGMMIDB")


def _open(file, cues):
    """Windows from each cue; the last one, if the run was stopped in it, is none."""
    raw = read_raw(file)
    starts = [(float(a["onset"]), cues[a["description"]]) for a in raw.annotations if a["description"] in cues]
    if not starts:
        raise UserError(f"{file}: has no cue {' or '.join(cues)} among its annotations")
    return Opened(raw, [Window(t, SECONDS, label) for t, label in starts if t + SECONDS <= duration_of(raw) + 1e-6])


TASK = Task(
    name="eegmmidb",
    question="Which fist is imagined to move in this EEG segment, left or right?",
    answers={"left": "Left", "right": "Right"},
    positive="right",
    wordings=(
        "Does the person imagine moving the left or the right hand?",
        "Of which hand is a movement imagined in this EEG, left or right?",
    ),
    seconds=SECONDS,
    preprocessing=Preprocessing(mains=60.0),
    channels=ELECTRODES,
    rates=(160.0,),
    cohort=COHORT,
    recordings=recordings,
    figures=BINARY,
)
