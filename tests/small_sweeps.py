"""A sweep of debug-size tokenizers, and folders as if its runs had been trained."""

import json
import pathlib

from small_data import NAMES

from neurolm_jax.studies.grids import Amount, grid
from neurolm_jax.studies.measures import rows_of
from neurolm_jax.studies.sweep import Run, Sweep

ROOT = pathlib.Path(__file__).parents[1]


SMALL = {"text_length": 16, "text_batch_size": 2, "batch_size": 2, "validation_rows": 40, "validation_text_rows": 20}


def tokenizer(width=32, layers=2, **fields):
    """A debug-size run that starts from a language model of its width."""
    language = Run("language", "configs/language.py:debug", {"language.width": width, "steps": 2, **SMALL})
    model = {f"tokenizer.encoder.{name}": value for name, value in (("width", width), ("layers", layers))}
    parts = {
        "data.train": tuple(f"{name}/recordings/train" for name in NAMES),
        "data.validation": tuple(f"{name}/recordings/validation" for name in NAMES),
        "row_length": 128,
        "evaluate_every": 2,
    }
    return Run("tokenizer", "configs/tokenizer.py:debug", {**model, **parts, **SMALL, **fields}, {"language": language})


SIZES = {"s": tokenizer(16, 1), "m": tokenizer(32, 1), "l": tokenizer(64, 2), "xl": tokenizer(128, 2)}


def law_sweep(compute=3e11, seeds=(0, 1)):
    amounts = [Amount(share, share * compute) for share in (0.25, 0.5, 1.0)]
    metrics = {"tokenizer": ("validation_frequency_loss", "validation_raw_loss")}
    return Sweep("a study", "law", grid(SIZES, amounts, seeds), metrics)


def write_run(folder, steps, lines):
    (folder / "checkpoints" / str(steps)).mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def finish(study, folder, loss):
    """Folders as ``train`` leaves them, with a known loss for each point, in two terms."""
    for number, row in enumerate(rows_of(study, folder)):
        if not (folder / row.folder).exists():
            value = loss(row, number)
            parts = {"validation_frequency_loss": 0.4 * value, "validation_raw_loss": 0.6 * value}
            first = {"step": 1, "stage": row.stage, "seconds": 1.0} | {name: 2 * part for name, part in parts.items()}
            last = {"step": row.steps, "stage": row.stage, "seconds": 9.0} | parts
            write_run(folder / row.folder, row.steps, [first, last])
