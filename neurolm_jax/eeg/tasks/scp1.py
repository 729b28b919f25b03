"""SelfRegulationSCP1: slow cortical potentials, negative or positive (BCI competition II, set Ia, Tuebingen).

As published in the UEA archive its six channels are one, A1-Cz, each shifted by six samples: only the first is read.
The answer lies in the slow wave, so nothing is filtered but what resampling needs. The amplifier drifts by tens of
microvolts over a session; as usual for slow potentials, a window's zero is the mean of its first quarter second.
"""

import functools
import pathlib
from collections.abc import Iterator

from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks.base import Opened, Recording, Task, Window
from neurolm_jax.eeg.tasks.readers import microvolt_raw, read_ts
from neurolm_jax.eeg.tasks.splits import held_out

ELECTRODE = "A1"
RATE = 256.0


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    for part in ("train", "test"):
        trials, labels = read_ts(path / f"SelfRegulationSCP1_{part.upper()}.ts")
        validation = held_out(len(trials), 0.2 if part == "train" else 0)
        for number, (trial, label) in enumerate(zip(trials, labels)):
            raw = microvolt_raw(trial[:1], [ELECTRODE], RATE)
            split = "validation" if validation[number] else part
            opened = functools.partial(Opened, raw, [Window(0.0, trial.shape[1] / RATE, label)])
            yield Recording(f"{part}-{number}", None, split, opened)


TASK = Task(
    name="scp1",
    question="Is the slow cortical potential of this EEG segment negative or positive?",
    answers={"negativity": "Negative", "positivity": "Positive"},
    positive="positivity",
    wordings=(
        "Does the slow cortical potential here go to the negative or to the positive?",
        "Which sign does the slow wave of this EEG have, negative or positive?",
    ),
    seconds=3,
    preprocessing=Preprocessing(low=None, high=None),
    baseline=0.25,
    recordings=recordings,
)
