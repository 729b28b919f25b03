"""With what a checkpoint was made, and what has changed since."""

import functools
import importlib.metadata
import pathlib
import subprocess

from ml_collections import ConfigDict

from neurolm_jax.configuration import flat
from neurolm_jax.errors import UserError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
# Fields with which it stays the same run: where things lie, how work is shared out and rounded, what is written.
HARMLESS = (
    "steps",  # a run may be made longer
    "epochs",  # from which steps follow
    "warmup",  # from which warmup_steps follow
    "checkpoint_every",
    "keep_checkpoints",
    "evaluate_every",
    "validation_batches",  # of earlier versions
    "validation_rows",
    "validation_text_rows",
    "log_every",
    "wandb",
    "mesh",
    "compilation_cache",
    "accumulation",
    "initial",  # taken over before the first step
    "faults",
    "patience",
    "data.root",
    "data.validation",
    "data.threads",
    "data.workers",
    "data.damaged",
    "matmul_precision",
    "language.dtype",
    "language.remat",
    "tokenizer.encoder.dtype",
    "tokenizer.encoder.remat",
)


def here() -> dict:
    """Versions of packages, and the state of this project's repository."""
    return {"versions": {name: importlib.metadata.version(name) for name in PACKAGES}, "git": git_state()}


@functools.cache
def git_state() -> str:
    """The commit that this code is of, with ``+changes`` if files differ from it; "" where there is no repository."""
    command = [
        "git",
        "-C",
        str(pathlib.Path(__file__).parent),
        "describe",
        "--always",
        "--abbrev=40",
        "--dirty=+changes",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def changes(before: dict, now: ConfigDict) -> dict[str, tuple]:
    """Fields of two configs that differ, by their dotted names: (before, now); None where there is none."""
    old, new = _as_json(ConfigDict(before)), _as_json(now)
    names = sorted(old.keys() | new.keys())
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def check(workdir, meta: dict, config: ConfigDict, data: dict[str, str]) -> list[str]:
    """What is other than when a run's newest checkpoint was written, in lines, all of it harmless.

    Raises:
      UserError: fields or data differ with which it would be another run.
    """
    if others := [name for name, content in data.items() if meta["data"].get(name) != content]:
        told = (
            f"{workdir}: was begun with other data ({', '.join(others)}); config.data names something else, or it was"
        )
        raise UserError(f"{told} prepared anew. Give the former back or choose another workdir")
    differ = changes(meta["config"], config)
    wrong = {name: pair for name, pair in differ.items() if not _harmless(name)}
    if wrong:
        told = ", ".join(f"{name}: {old!r} -> {new!r}" for name, (old, new) in wrong.items())
        raise UserError(f"{workdir}: was begun with another config ({told}); give it back or choose another workdir")
    lines = [f"config.{name}: {old!r} -> {new!r}" for name, (old, new) in differ.items()]
    now = here()
    for name, version in now["versions"].items():
        if (old := meta["versions"].get(name)) != version:
            lines.append(f"{name}: {old} -> {version}")
    if meta["git"] != now["git"]:
        lines.append(f"code: {meta['git'] or 'no repository'} -> {now['git'] or 'no repository'}")
    return lines


def _harmless(name):
    return any(name == field or name.startswith(f"{field}.") for field in HARMLESS)


def _as_json(config):
    """Fields by their dotted names; tuples as the lists that JSON makes of them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in flat(config)}
