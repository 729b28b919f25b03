"""Downstream tasks, one file each."""

import importlib
import importlib.util
import pathlib
import sys
import traceback

from neurolm_jax.eeg.tasks.base import Opened, Recording, Task, Window
from neurolm_jax.eeg.tasks.described import YAML_SUFFIXES, load_described
from neurolm_jax.errors import UserError

NAMES = (
    *("tuab", "tuev", "tusl", "seed", "seed_iv", "hmc", "workload"),
    *("eegmmidb", "eegmmidb_moved", "mdd", "guinea_bissau", "sleep_edf"),
    *("blink", "scp1", "eyes"),
)

FILE_SUFFIXES = (".py", *YAML_SUFFIXES)  # by which a file of the user's own is known

__all__ = ["FILE_SUFFIXES", "NAMES", "Opened", "Recording", "Task", "Window", "load_task"]


def load_task(name: str) -> Task:
    """A task by its name, as a YAML file of the user's own describes it, or ``TASK`` of a Python file.

    Raises:
      UserError: there is no such task or file, or it defines none.
    """
    if name.endswith(YAML_SUFFIXES):
        return load_described(pathlib.Path(name))
    if name.endswith(".py"):
        return _from_file(pathlib.Path(name))
    if name not in NAMES:
        files = " or ".join(FILE_SUFFIXES)
        raise UserError(f"unknown task {name!r}; known are {', '.join(NAMES)}, or a file of your own ending in {files}")
    return importlib.import_module(f"neurolm_jax.eeg.tasks.{name}").TASK


def _from_file(file):
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    spec = importlib.util.spec_from_file_location(f"neurolm_task_{file.stem}", file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 (a file of the user's own fails in as many ways as there are)
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        place = f"{file}:{lines[-1]}" if lines else str(file)
        raise UserError(f"{place}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(getattr(module, "TASK", None), Task):
        raise UserError(f"{file}: defines no TASK; see docs/tasks.md")
    return module.TASK
