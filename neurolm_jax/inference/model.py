"""A trained model on all devices, and how it goes over any number of rows."""

import itertools
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from neurolm_jax.data import streams
from neurolm_jax.errors import UserError
from neurolm_jax.stages.instruct import InstructStage
from neurolm_jax.stages.restore import restore_stage
from neurolm_jax.training.checkpoint import newest_step, read_config, written_at
from neurolm_jax.training.mesh import batch_parts, make_mesh, matmul_precision, put_batch, rows_to_read

TOKENS = 16_384  # in each part of a batch
THREADS = 4
WITH_ENCODER = ("tokenizer", "pretrain", "instruct")  # stages


class Trained(NamedTuple):
    """A stage with its weights after so many steps, placed on a mesh; ``written`` is when they were.

    It is an instruct stage but where only features are wanted, which tokenizer and pretrain have too.
    """

    stage: InstructStage
    weights: Any
    mesh: Mesh
    step: int = 0
    written: str = ""


def load_trained(workdir: str | pathlib.Path) -> Trained:
    """The newest checkpoint of an instruct stage, on all devices.

    Raises:
      UserError: there is none, or it is of another stage.
    """
    return _load(workdir, ("instruct",), "only instruct answers questions")


def load_encoder(workdir: str | pathlib.Path) -> Trained:
    """Load the newest checkpoint of a tokenizer, pretrain or instruct stage, on all devices.

    Raises:
      UserError: there is none, or it is of the language stage, which has no encoder.
    """
    return _load(workdir, WITH_ENCODER, "features are those of tokenizer, pretrain or instruct")


def _load(workdir, stages, wanted):
    mesh, step = make_mesh(), newest_step(workdir)
    stage, weights = restore_stage(workdir, mesh, step)
    if stage.config.stage not in stages:
        raise UserError(f"{workdir}: a checkpoint of stage {stage.config.stage}; {wanted}")
    return Trained(stage, weights, mesh, step, written_at(workdir, step))


def stage_of(workdir: str | pathlib.Path) -> str:
    """Name of the stage whose checkpoints a workdir has.

    Raises:
      UserError: there is none.
    """
    return read_config(workdir).stage


def trusted_tasks(workdir: str | pathlib.Path, config: ConfigDict, trust_code: bool) -> tuple[str, ...]:
    """The names of a checkpoint's tasks.

    Raises:
      UserError: some are files of code, which whoever made the checkpoint has chosen, and are not trusted.
    """
    files = [name for name in config.data.tasks if name.endswith(".py")]
    if files and not trust_code:
        raise UserError(
            f"{workdir}: was trained on tasks that are defined by code, {', '.join(files)}; if it is yours, or you have"
            " read it, add --trust_code"
        )
    return tuple(config.data.tasks)


def over_rows(function: Callable, model: Trained, rows: Any, length: int) -> Iterator[Any]:
    """``function(weights, batch)`` over ``rows`` of ``length`` tokens; yields what it gives for each row, in order.

    The last batch is filled up with ``rows.empty()``. Every process reads its own part of each batch, and has all
    results. Every row carries its number: a mesh may hold devices in another order than that of their processes.
    """

    def run(data):
        with jax.set_mesh(model.mesh), matmul_precision(model.stage.config):
            return function(model.weights, data)

    parts = batch_parts(model.mesh)
    batch = _batch(len(rows), length, parts)
    sources = {"rows": (_Padded(rows), batch)}
    steps = streams.Steps(sources, math.ceil(len(rows) / batch), rows_to_read(model.mesh, sources))
    read = streams.iterate(steps, 0, THREADS)
    placed = (put_batch(model.mesh, step["rows"]) for step in read)
    results = (_in_order(data["number"], run(data["row"])) for data in streams.prefetch(placed))
    yield from itertools.islice(itertools.chain.from_iterable(results), len(rows))


def _batch(count, length, parts):
    """Rows in a batch. Few sizes are in use, so that compiled programs serve many tasks."""
    most = max(1, TOKENS // length) * parts
    wanted = min(most, 2 ** math.ceil(math.log2(max(count, 1))))
    return math.ceil(wanted / parts) * parts


class _Padded:
    def __init__(self, rows):
        self._rows, self._empty = rows, rows.empty()

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, index):
        row = self._rows[index] if index < len(self._rows) else self._empty
        return {"number": np.int32(index), "row": row}


def _in_order(numbers, found):
    """What was found for each row of a batch, by the rows' numbers."""
    numbers, found = jax.tree.map(_everywhere, (numbers, found))
    return [jax.tree.map(lambda x: x[place], found) for place in np.argsort(numbers)]  # noqa: B023


def _everywhere(x):
    if jax.process_count() == 1:
        return np.asarray(x)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x, tiled=True))
