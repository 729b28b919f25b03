"""Orbax checkpoints of a stage: weights, optimizer state, how far it got, and the config that made them.

``checkpoints/STEP`` appears by rename when all of it is written, digests included. Of what is found damaged later, the
checkpoint before is used instead.
"""

import hashlib
import json
import logging
import pathlib
import shutil
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from neurolm_jax.errors import UserError
from neurolm_jax.training import integrity
from neurolm_jax.training.state import TrainState

TRAINED_ON = "trained_on.json"  # in the folder of a checkpoint, see ``data.trained_on``
UNFINISHED = ".orbax-checkpoint-tmp"
DAMAGED = ".damaged"
READ = ("weights", "meta")  # by all but the run itself
ALL = (*READ, "optimizer", "health")


class Progress(NamedTuple):
    """How far a run is, beside its step.

    position: the next batch, which is the step unless data were skipped; rollbacks: how often they were; best: the
    lowest validation loss so far, and the step it is of.
    """

    position: int = 0
    rollbacks: int = 0
    best: dict | None = None


def folder(workdir: str | pathlib.Path) -> pathlib.Path:
    """Where a workdir has its checkpoints."""
    return pathlib.Path(workdir).absolute() / "checkpoints"


def steps(workdir: str | pathlib.Path) -> list[int]:
    """Of the checkpoints that lie in a workdir, whole or damaged; the newest last."""
    if not folder(workdir).is_dir():
        return []
    return sorted(int(path.name) for path in folder(workdir).iterdir() if path.name.isdecimal() and path.is_dir())


def newest_step(workdir: str | pathlib.Path, parts: Sequence[str] = READ, before: int | None = None) -> int:
    """The step of the newest checkpoint (``before`` a step) some parts of which are as they were written. Others are
    told of.

    Raises:
      UserError: there is none.
    """
    found, faults = [step for step in steps(workdir) if before is None or step < before], []
    for step in reversed(found):
        if not (wrong := integrity.fault(folder(workdir) / str(step), parts)):
            for fault in faults:
                logging.getLogger(__name__).warning(f"{fault}; the checkpoint of step {step} is used instead")
            return step
        faults.append(f"{folder(workdir) / str(step)}: {wrong}")
    if faults:
        raise UserError(f"{faults[0]}, and there is no whole checkpoint before it; train that stage again")
    raise UserError(f"{workdir}: no checkpoint in it; train that stage first")


def restore(workdir: str | pathlib.Path, step: int, abstract: TrainState) -> tuple[TrainState, Progress]:
    """The state after ``step`` steps, placed as ``abstract`` says, and how far the run was.

    Raises:
      UserError: another optimizer wrote it.
    """
    path = folder(workdir) / str(step)
    saved = ocp.StandardCheckpointHandler().metadata(path / "optimizer").tree
    if _names(saved) != _names(abstract.optimizer):
        raise UserError(f"{path}: its optimizer is not this run's, which cannot go on with it; give another --workdir")
    items = ocp.args.Composite(
        weights=ocp.args.StandardRestore(abstract.weights),
        optimizer=ocp.args.StandardRestore(abstract.optimizer),
        health=ocp.args.StandardRestore(abstract.health),
        meta=ocp.args.JsonRestore(),
    )
    found = _read(workdir, step, items)
    progress = Progress(*(found.meta[field] for field in Progress._fields))
    count = jax.device_put(np.int32(step), abstract.step.sharding)
    return TrainState(count, found.weights, found.optimizer, found.health), progress


def _names(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    }


def restore_weights(workdir: str | pathlib.Path, step: int, abstract_weights):
    """Weights alone, without what a run needs to go on."""
    items = ocp.args.Composite(weights=ocp.args.StandardRestore(abstract_weights))
    return _read(workdir, step, items).weights


def newest_to_go_on(workdir: str | pathlib.Path) -> int | None:
    """The step from which a run goes on; None where there is nothing yet. Of killed runs, what was being written is
    removed, and what is damaged is put aside, so that its step can be written again.

    Raises:
      UserError: every checkpoint is damaged; or weights were put there by ``save_weights``: a run starts from them, but
        does not go on with them.
    """
    found = steps(workdir)
    if found and not (folder(workdir) / str(found[-1]) / "optimizer").is_dir() and found[-1] == 0:
        raise UserError(f"{workdir}: holds converted weights; give another workdir and name this one in config.initial")
    step = newest_step(workdir, ALL) if found else None
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        # None goes on before all have looked, and all go on from one place.
        multihost_utils.assert_equal(np.int32(-1 if step is None else step), f"{workdir}: processes see other steps")
    if jax.process_index() == 0:
        remove_unfinished(folder(workdir))
        for damaged in found[found.index(step) + 1 :] if found else ():
            path = folder(workdir) / str(damaged)
            shutil.rmtree(f"{path}{DAMAGED}", ignore_errors=True)
            path.rename(f"{path}{DAMAGED}")
    return step


def written_at(workdir: str | pathlib.Path, step: int | None = None) -> str:
    """When a checkpoint, or the newest, was finished, in nanoseconds: no other one of any training has the same.

    Raises:
      UserError: it does not tell.
    """
    step = newest_step(workdir) if step is None else step
    file = folder(workdir) / str(step) / integrity.METADATA
    try:
        return str(int(json.loads(file.read_text())["commit_timestamp_nsecs"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: does not tell when the checkpoint was written ({error})") from error


def read_config(workdir: str | pathlib.Path, step: int | None = None) -> ConfigDict:
    """The config that a checkpoint, or the newest, was trained with."""
    return ConfigDict(read_meta(workdir, step)["config"])


def read_meta(workdir: str | pathlib.Path, step: int | None = None) -> dict:
    """What a checkpoint, or the newest, tells beside its arrays: config, step, ``Progress``, packages, git."""
    step = newest_step(workdir) if step is None else step
    return _read(workdir, step, ocp.args.Composite(meta=ocp.args.JsonRestore())).meta


def read_trained_on(workdir: str | pathlib.Path, step: int | None = None) -> dict | None:
    """What the stage of a checkpoint, or the newest, and those before it were trained on, see ``data.trained_on``;
    None of a checkpoint that does not tell, as those of earlier versions.

    Raises:
      UserError: its file is not what was written.
    """
    step = newest_step(workdir, ["meta"]) if step is None else step  # it would take reading all weights otherwise
    path = folder(workdir) / str(step)
    if not (path / TRAINED_ON).is_file():
        return None
    if wrong := integrity.fault(path, [TRAINED_ON]):
        raise UserError(f"{path}: {wrong}; remove {TRAINED_ON} from it to go on without knowing what it learnt from")
    return json.loads((path / TRAINED_ON).read_text())


def read_arrays(workdir: str | pathlib.Path, step: int | None = None) -> dict[str, np.ndarray]:
    """Every weight of a checkpoint, or the newest, by its path, on this machine, wherever it was trained."""
    step = newest_step(workdir) if step is None else step
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    described = ocp.StandardCheckpointHandler().metadata(folder(workdir) / str(step) / "weights").tree
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), described)
    tree = _read(workdir, step, ocp.args.Composite(weights=ocp.args.StandardRestore(like))).weights
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def digest(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return total.hexdigest()


def _read(workdir, step, items):
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        return reader.restore(folder(workdir) / str(step), args=items)


def remove_unfinished(path: pathlib.Path) -> None:
    """Remove what a killed run left of a checkpoint."""
    if jax.process_index() == 0 and path.is_dir():
        for unfinished in path.glob(f"*{UNFINISHED}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
