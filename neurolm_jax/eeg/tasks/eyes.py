"""EyesOpenShut: eyes open or shut under 14 Emotiv electrodes, one recording of 98 s cut into seconds.

Too small, and train and test too close in time, for a score; it adds a third montage.
"""

import functools
import pathlib
from collections.abc import Iterator

from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks.base import Opened, Recording, Task, Window
from neurolm_jax.eeg.tasks.readers import microvolt_raw, read_ts
from neurolm_jax.eeg.tasks.splits import held_out

ELECTRODES = ("AF3", "F7", "F3", "FC5", "T7", "P7", "O1", "O2", "P8", "T8", "FC6", "F4", "F8", "AF4")
RATE = 128.0


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    for part in ("train", "test"):
        trials, labels = read_ts(path / f"EyesOpenShut_{part.upper()}.ts")
        validation = held_out(len(trials), 0.2 if part == "train" else 0)
        for number, (trial, label) in enumerate(zip(trials, labels)):
            # Second by second: the amplifier's constant of 4 mV goes with the mean, before any filter.
            raw = microvolt_raw(trial - trial.mean(axis=1, keepdims=True), ELECTRODES, RATE)
            split = "validation" if validation[number] else part
            opened = functools.partial(Opened, raw, [Window(0.0, 1.0, label)])
            yield Recording(f"{part}-{number}", None, split, opened)


TASK = Task(
    name="eyes",
    question="Are the eyes shut in this EEG segment?",
    answers={"1": "Yes", "0": "No"},
    positive="1",
    wordings=("Does this EEG come from somebody whose eyes are closed?", "Was this recorded with closed eyes?"),
    seconds=1,
    preprocessing=Preprocessing(low=None, high=None),
    baseline=1.0,
    recordings=recordings,
    scored=False,
)
