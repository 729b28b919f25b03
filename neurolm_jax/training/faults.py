"""What becomes of a run whose steps were skipped: told, rolled back, stopped."""

import json
import logging
import pathlib
from typing import NamedTuple

import jax

from neurolm_jax.data.streams import Steps
from neurolm_jax.errors import UserError

FILE = "faults.jsonl"
KEYS = ("skipped_in_a_row", "damaged_records", "loss", "gradient_norm")


class RollBack(Exception):
    """Too many steps were skipped in a row, the last of them on the batch at ``position``."""

    def __init__(self, position: int):
        super().__init__(position)
        self.position = position


class _Step(NamedTuple):
    number: int
    position: int
    measured: dict


class Faults:
    """Looks at all steps since it last looked, at once, so that no step waits for the one before.

    Args:
      steps: of whose batches the records are named.
    """

    def __init__(self, config, workdir: pathlib.Path, steps: Steps):
        self._config, self._file, self._steps = config, workdir / FILE, steps
        self._waiting: list[_Step] = []
        self._known = {(line["step"], line["position"]) for line in read(workdir)}  # before the run was started again

    def add(self, step: int, position: int, measured: dict) -> None:
        self._waiting.append(_Step(step, position, {key: measured[key] for key in KEYS}))

    def look(self) -> None:
        """Tell of skipped steps, in ``faults.jsonl`` too.

        Raises:
          RollBack: too many of them followed each other.
          UserError: more records were damaged than may be.
        """
        waiting, self._waiting = self._waiting, []
        found = jax.device_get([step.measured for step in waiting])
        for step, measured in zip(waiting, found):
            if measured["skipped_in_a_row"] > 0:
                self._tell(step, measured)
            if measured["skipped_in_a_row"] >= self._config.faults.in_a_row:
                raise RollBack(step.position)
            if measured["damaged_records"] > self._config.data.damaged:
                raise UserError(
                    f"{int(measured['damaged_records'])} records could not be read, {self._config.data.damaged} may be"
                    " (config.data.damaged); mend or prepare again what the warnings name"
                )

    def _tell(self, step, measured):
        if jax.process_index():
            return
        loss, norm = float(measured["loss"]), float(measured["gradient_norm"])
        logging.getLogger(__name__).warning(
            f"step {step.number} is skipped: loss {loss:g}, gradient norm {norm:g}; its records are in {self._file},"
            f" --replay {step.number} looks closer"
        )
        if (step.number, step.position) in self._known:
            return
        line = {"step": step.number, "position": step.position, "loss": repr(loss), "gradient_norm": repr(norm)}
        with self._file.open("a") as file:
            file.write(json.dumps(line | {"records": self._steps.origins(step.position)}) + "\n")


def read(workdir: pathlib.Path) -> list[dict]:
    """What was told of skipped steps: step, position of its batch, loss, gradient_norm, records of each row."""
    file = workdir / FILE
    return [json.loads(line) for line in file.read_text().split("\n")[:-1]] if file.exists() else []


def roll_back(config, progress, position: int):
    """The progress to go on with from the last checkpoint, past the batch at ``position``.

    Raises:
      UserError: that was done too often.
    """
    if progress.rollbacks >= config.faults.rollbacks:
        raise UserError(
            f"{config.faults.in_a_row} steps in a row had to be skipped, after {progress.rollbacks} rollbacks"
            " (config.faults); the loss or gradient is not finite or jumps. Lower config.learning_rate, or look with"
            " --replay at the steps that the warnings name"
        )
    logging.getLogger(__name__).warning(
        f"{config.faults.in_a_row} steps in a row were skipped: back to the last checkpoint, and past their data"
    )
    return progress._replace(position=position + 1, rollbacks=progress.rollbacks + 1)
