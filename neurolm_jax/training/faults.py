"""What becomes of a run whose steps were skipped, or whose records cannot be read: told, rolled back, stopped."""

import logging
import pathlib
from typing import NamedTuple

import jax

from neurolm_jax.data.streams import Steps
from neurolm_jax.errors import UserError
from neurolm_jax.training import lines
from neurolm_jax.training.checkpoint import Progress

FILE = "faults.jsonl"
KEYS = ("skipped_in_a_row", "skipped_steps", "loss", "gradient_norm")


class RollBack(Exception):
    """Too many steps were skipped in a row, the last of them on the batch at ``position``; ``skipped`` in all."""

    def __init__(self, position: int, skipped: int):
        super().__init__(position, skipped)
        self.position, self.skipped = position, skipped


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
        told = read(workdir)
        self._known = {(line["step"], line["position"]) for line in told if "records" in line}  # of earlier starts
        if self._file.exists() and not jax.process_index():
            lines.rewrite(self._file, told)  # without a line that was not finished

    def add(self, step: int, position: int, measured: dict) -> None:
        self._waiting.append(_Step(step, position, {key: measured[key] for key in KEYS}))

    def look(self) -> None:
        """Tell of skipped steps, in ``faults.jsonl`` too.

        Raises:
          RollBack: too many of them followed each other.
        """
        waiting, self._waiting = self._waiting, []
        found = jax.device_get([step.measured for step in waiting])
        for step, measured in zip(waiting, found):
            if measured["skipped_in_a_row"] > 0:
                self._tell(step, measured)
            if measured["skipped_in_a_row"] >= self._config.faults.in_a_row:
                raise RollBack(step.position, int(measured["skipped_steps"]))

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
        lines.append(self._file, line | {"records": self._steps.origins(step.position)})


class Damaged:
    """The records that this process could not read, each told of once.

    Args:
      limit: how many they may be.
    """

    def __init__(self, limit: int):
        self._limit, self._told = limit, set()

    def __len__(self) -> int:
        return len(self._told)

    def add(self, faults: list[str]) -> None:
        """Raises UserError where there are too many."""
        for fault in faults:
            if fault not in self._told:
                self._told.add(fault)
                logging.getLogger(__name__).warning(f"left out: {fault}")
        if len(self) > self._limit:
            raise UserError(
                f"{len(self)} records could not be read, {self._limit} may be (config.data.damaged); repair or prepare"
                " again what the warnings name"
            )


def read(workdir: pathlib.Path) -> list[dict]:
    """What was told: of skipped steps ``step``, ``position`` of its batch, ``loss``, ``gradient_norm``, ``records`` of
    each row; of rollbacks ``rolled_back_to``, a step, and the ``position`` of the batch after it."""
    return lines.read(workdir / FILE)


def roll_back(config, workdir: pathlib.Path, step: int, progress: Progress, position: int) -> Progress:
    """The progress to go on with from the checkpoint of a step, past the batch at ``position``.

    Raises:
      UserError: that was done too often.
    """
    if progress.rollbacks >= config.faults.rollbacks:
        raise UserError(
            f"{config.faults.in_a_row} steps in a row had to be skipped, after {progress.rollbacks} rollbacks"
            " (config.faults); the loss or gradient is not finite or jumps. Lower config.learning_rate, or look with"
            " --replay at the steps that the warnings name"
        )
    if not jax.process_index():
        logging.getLogger(__name__).warning(
            f"{config.faults.in_a_row} steps in a row were skipped: back to step {step}, and on behind their data"
        )
        lines.append(workdir / FILE, {"rolled_back_to": step, "position": position + 1})
    return progress._replace(position=position + 1, rollbacks=progress.rollbacks + 1)
