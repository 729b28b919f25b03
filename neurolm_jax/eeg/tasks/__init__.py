"""Downstream tasks, one file each."""

import importlib

from neurolm_jax.eeg.tasks.base import Recording, Task, Window
from neurolm_jax.errors import UserError

NAMES = ("blink", "scp1", "eyes")

__all__ = ["NAMES", "Recording", "Task", "Window", "load_task"]


def load_task(name: str) -> Task:
    if name not in NAMES:
        raise UserError(f"unknown task {name!r}; known are {', '.join(NAMES)}")
    return importlib.import_module(f"neurolm_jax.eeg.tasks.{name}").TASK
