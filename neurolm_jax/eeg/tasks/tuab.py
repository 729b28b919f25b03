"""TUAB, the TUH Abnormal EEG Corpus: is this EEG normal? (Lopez de Diego 2017; v3.0)

``edf/{train,eval}/{normal,abnormal}/01_tcp_ar/aaaaaaaq_s004_t000.edf``; the folder is the label of the whole recording.
Test is ``eval``; a fifth of the subjects of ``train`` are kept for validation.
"""

import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from neurolm_jax.eeg.tasks import tuh
from neurolm_jax.eeg.tasks.base import BINARY, Opened, Recording, Task
from neurolm_jax.eeg.tasks.readers import duration_of, files_under, read_raw, tiled
from neurolm_jax.errors import UserError

SECONDS = 10


def recordings(path: pathlib.Path) -> Iterator[Recording]:
    for file in files_under(path, "*.edf", "recording of TUAB"):
        part, label = _folders(file, path)
        subject = tuh.subject_of(file)
        yield Recording(f"{part}/{label}/{file.name}", subject, part, functools.partial(_open, file, label))


def _folders(file, path):
    parts = file.relative_to(path.parent).parts
    found = {"train": "train", "eval": "test"}
    part = next((found[p] for p in parts if p in found), None)
    label = next((p for p in parts if p in ("normal", "abnormal")), None)
    if not part or not label:
        raise UserError(f"{file}: does not lie under {{train,eval}}/{{normal,abnormal}}, which tell split and label")
    return part, label


def _open(file, label):
    raw = read_raw(file)
    return Opened(raw, tiled(duration_of(raw), SECONDS, label))


def official(found: Sequence[Recording]) -> Mapping[str, str]:
    """The released code shuffles the training subjects of either label apart and without a seed, so that a subject with
    recordings of both can be on two sides; here the shuffle is the same in every run."""
    rng, split = np.random.default_rng(0), {}
    for label in ("abnormal", "normal"):
        here = [r for r in found if r.split == "train" and f"/{label}/" in r.name]
        order = rng.permutation(sorted({r.subject for r in here if r.subject})).tolist()
        training = set(order[: int(len(order) * 0.8)])
        split |= {r.name: "train" if r.subject in training else "validation" for r in here}
    return split | {r.name: "test" for r in found if r.split == "test"}


TASK = Task(
    name="tuab",
    question="Is this EEG segment abnormal?",
    answers={"abnormal": "Yes", "normal": "No"},
    positive="abnormal",
    wordings=("Does this EEG show an abnormality?", "Would a neurologist call this recording abnormal?"),
    seconds=SECONDS,
    preprocessing=tuh.PREPROCESSING,
    channels=tuh.ELECTRODES,
    cohort=tuh.COHORT,
    recordings=recordings,
    official=official,
    figures=BINARY,
    published={"NeuroLM-B": {"balanced_accuracy": 0.7826}, "NeuroLM-XL": {"balanced_accuracy": 0.7969}},
)
