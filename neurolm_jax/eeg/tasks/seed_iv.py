"""SEED-IV: which of four emotions does a film evoke? (Zheng 2019)

``eeg_raw_data/{1,2,3}/{subject}_{date}.mat``, a folder a session; in each file 24 trials, ``*_eeg1`` to ``*_eeg24``,
of 62 electrodes at 200 Hz in microvolts. As usual for this set, the first sixteen trials of a session are learnt from
(the last four of them are kept for validation here) and the last eight are for test, so every subject is on all sides;
not every class is in each part of each session. --split subject parts the subjects.
"""

import functools
import pathlib
import re
from collections.abc import Iterator

from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks.base import MULTICLASS, Opened, Recording, Task
from neurolm_jax.eeg.tasks.readers import duration_of, files_under, folder_called, foreign_bytes, microvolt_raw, tiled
from neurolm_jax.eeg.tasks.seed import ELECTRODES
from neurolm_jax.errors import UserError

SECONDS, RATE = 4, 200.0
TRIALS = 24
NAMES = {"0": "neutral", "1": "sad", "2": "fear", "3": "happy"}
LABELS = {"1": "123020010121112322330303", "2": "213002023323201121030131", "3": "122133311210233023002010"}
SPLITS = ["train"] * 12 + ["validation"] * 4 + ["test"] * 8


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    for file in files_under(folder_called(path, "eeg_raw_data"), "*.mat", "recording of SEED-IV"):
        session = file.parent.name
        if session not in LABELS:
            raise UserError(f"{file}: does not lie in a folder 1, 2 or 3, which tells the session")
        subject = file.stem.split("_")[0]
        for trial in range(TRIALS):
            opened = functools.partial(_open, file, trial + 1, NAMES[LABELS[session][trial]])
            yield Recording(f"{session}/{file.name} trial {trial + 1}", subject, SPLITS[trial], opened)


def _open(file, trial, label):
    import scipy.io

    with foreign_bytes(file):
        names = [name for name, _, _ in scipy.io.whosmat(file)]
        wanted = [name for name in names if re.search(rf"_eeg{trial}$", name)]
        samples = scipy.io.loadmat(file, variable_names=wanted)[wanted[0]] if wanted else None
    if samples is None:
        raise UserError(f"{file}: holds no trial {trial} (a variable *_eeg{trial})")
    if samples.ndim != 2 or len(samples) != len(ELECTRODES):
        raise UserError(f"{file}: trial {trial} has shape {samples.shape}, not {len(ELECTRODES)} electrodes")
    raw = microvolt_raw(samples, ELECTRODES, RATE)
    return Opened(raw, tiled(duration_of(raw), SECONDS, label))


TASK = Task(
    name="seed_iv",
    question="Which emotion category does this EEG segment belong to?",
    answers={"neutral": "neutral", "sad": "sad", "fear": "fear", "happy": "happy"},
    lettered=True,
    wordings=(
        "Which of these emotions does this EEG show?",
        "Which of these did the person feel during this EEG segment?",
    ),
    seconds=SECONDS,
    preprocessing=Preprocessing(mains=50.0),
    channels=ELECTRODES,
    recordings=recordings,
    within_subjects=True,
    figures=MULTICLASS,
    published={"NeuroLM-XL": {"balanced_accuracy": 0.323}},
)
