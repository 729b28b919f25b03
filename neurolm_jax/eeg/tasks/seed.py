"""SEED: which emotion does a film evoke? (Zheng and Lu 2015)

``SEED_RAW_EEG/{subject}_{session}.cnt``, Neuroscan at 1000 Hz, 62 electrodes; 15 films at the same seconds in every
session, here as in the released code (the set's time.txt begins them up to four seconds later and ends them up to three
earlier). A trial is a recording of its own. As usual for this set, the first nine trials of each session are learnt
from, three are for validation and the last three for test, so every subject is on all sides; --split subject parts the
subjects.
"""

import functools
import pathlib
from collections.abc import Iterator

from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks.base import MULTICLASS, Opened, Recording, Task
from neurolm_jax.eeg.tasks.readers import duration_of, files_under, folder_called, read_raw, tiled
from neurolm_jax.errors import UserError

SECONDS = 4
STARTS = (24, 289, 550, 782, 1049, 1260, 1483, 1747, 1993, 2283, 2550, 2812, 3072, 3332, 3598)
STOPS = (264, 526, 757, 1023, 1235, 1458, 1722, 1967, 2259, 2525, 2788, 3046, 3308, 3573, 3806)  # seconds, included
LABELS = "+0--0+-0++0-0+-"
NAMES = {"+": "positive", "0": "neutral", "-": "negative"}
SPLITS = ["train"] * 9 + ["validation"] * 3 + ["test"] * 3
MARGIN = 20  # seconds beside a trial, over which the filters settle


ELECTRODES = tuple(
    """
    FP1 FPZ FP2 AF3 AF4 F7 F5 F3 F1 FZ F2 F4 F6 F8 FT7 FC5 FC3 FC1 FCZ FC2 FC4 FC6 FT8 T7 C5 C3 C1 CZ C2 C4 C6 T8 TP7
    CP5 CP3 CP1 CPZ CP2 CP4 CP6 TP8 P7 P5 P3 P1 PZ P2 P4 P6 P8 PO7 PO5 PO3 POZ PO4 PO6 PO8 CB1 O1 OZ O2 CB2
    """.split()
)


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    for file in files_under(folder_called(path, "SEED_RAW_EEG"), "*.cnt", "recording of SEED"):
        for trial, (start, stop) in enumerate(zip(STARTS, STOPS)):
            opened = functools.partial(_open, file, trial)
            name, subject = f"{file.name} trial {trial + 1}", file.stem.split("_")[0]
            begin = min(start, MARGIN)
            yield Recording(name, subject, SPLITS[trial], opened, (begin, begin + stop + 1 - start))


def _open(file, trial):
    whole = read_raw(file, "read_raw_cnt", data_format="int32")
    start, stop = STARTS[trial], STOPS[trial] + 1
    if duration_of(whole) < stop:
        raise UserError(f"{file}: too short, {duration_of(whole):.0f} s; trial {trial + 1} lasts until second {stop}")
    first = max(0, start - MARGIN)
    raw = whole.copy().crop(first, min(stop + MARGIN, whole.times[-1]))
    return Opened(raw, tiled(stop - first, SECONDS, NAMES[LABELS[trial]], begin=start - first), whole)


TASK = Task(
    name="seed",
    question="Which emotion type does this EEG segment belong to?",
    answers={"positive": "Positive", "neutral": "Neutral", "negative": "Negative"},
    wordings=("Which emotion does this EEG show?", "What did the person feel during this EEG segment?"),
    seconds=SECONDS,
    preprocessing=Preprocessing(mains=50.0),
    channels=ELECTRODES,
    rates=(1000.0,),
    recordings=recordings,
    within_subjects=True,
    official=lambda found: {r.name: r.split for r in found if r.split},
    figures=MULTICLASS,
    published={"NeuroLM-B": {"balanced_accuracy": 0.5554}, "NeuroLM-XL": {"balanced_accuracy": 0.6034}},
)
