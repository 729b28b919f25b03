"""Orbax checkpoints of a stage: weights, optimizer state and the config that made them."""

import hashlib
import json
import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from neurolm_jax.errors import UserError
from neurolm_jax.training.state import TrainState


def manager(workdir: str | pathlib.Path, every: int = 1, keep: int = 1) -> ocp.CheckpointManager:
    """Saves ``every`` so many steps when asked at each, asynchronously, and keeps the last ``keep``."""
    options = ocp.CheckpointManagerOptions(save_interval_steps=every, max_to_keep=keep, create=True)
    return ocp.CheckpointManager(folder(workdir), options=options)


def folder(workdir: str | pathlib.Path) -> pathlib.Path:
    return pathlib.Path(workdir).absolute() / "checkpoints"


def exists(workdir: str | pathlib.Path) -> bool:
    """Is there a checkpoint in a workdir?"""
    return folder(workdir).is_dir() and bool(ocp.utils.checkpoint_steps(folder(workdir)))


def save(checkpoints: ocp.CheckpointManager, step: int, state: TrainState, config: ConfigDict, force=False) -> bool:
    """Hand the state after ``step`` steps to ``checkpoints``, which decides by the step unless forced."""
    if step == checkpoints.latest_step():
        return False
    items = ocp.args.Composite(
        weights=ocp.args.StandardSave(state.weights),
        optimizer=ocp.args.StandardSave(state.optimizer),
        meta=ocp.args.JsonSave({"config": config.to_dict(), "step": step}),
    )
    return checkpoints.save(step, args=items, force=force)


def save_weights(workdir: str | pathlib.Path, weights, config: ConfigDict) -> None:
    """Weights from elsewhere as the checkpoint of step 0, without an optimizer's moments."""
    items = ocp.args.Composite(
        weights=ocp.args.StandardSave(weights), meta=ocp.args.JsonSave({"config": config.to_dict(), "step": 0})
    )
    with manager(workdir) as checkpoints:
        checkpoints.save(0, args=items, force=True)
        checkpoints.wait_until_finished()


def restore(workdir: str | pathlib.Path, abstract: TrainState) -> TrainState:
    """The newest state, placed as ``abstract`` says.

    Raises:
      UserError: weights were put there by ``save_weights``; a run starts from them, but does not go on with them.
    """
    step = newest_step(workdir)
    if not (folder(workdir) / str(step) / "optimizer").is_dir():
        raise UserError(f"{workdir}: holds converted weights; give another workdir and name this one in config.initial")
    items = ocp.args.Composite(
        weights=ocp.args.StandardRestore(abstract.weights),
        optimizer=ocp.args.StandardRestore(abstract.optimizer),
    )
    with manager(workdir) as checkpoints:
        found = checkpoints.restore(step, args=items)
    return TrainState(jax.device_put(np.int32(step), abstract.step.sharding), found.weights, found.optimizer)


def restore_weights(workdir: str | pathlib.Path, abstract_weights):
    """The newest weights alone, without the optimizer's moments."""
    with manager(workdir) as checkpoints:
        items = ocp.args.Composite(weights=ocp.args.StandardRestore(abstract_weights))
        return checkpoints.restore(newest_step(workdir), args=items).weights


def newest_step(workdir: str | pathlib.Path) -> int:
    """The step of the newest checkpoint.

    Raises:
      UserError: there is none.
    """
    if not exists(workdir):
        raise UserError(f"{workdir}: no checkpoint in it; train that stage first")
    return max(ocp.utils.checkpoint_steps(folder(workdir)))


def written_at(workdir: str | pathlib.Path) -> str:
    """When the newest checkpoint was finished, in nanoseconds: no other one of any training has the same.

    Raises:
      UserError: it does not tell.
    """
    file = folder(workdir) / str(newest_step(workdir)) / "_CHECKPOINT_METADATA"
    try:
        return str(int(json.loads(file.read_text())["commit_timestamp_nsecs"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: does not tell when the checkpoint was written ({error})") from error


def read_config(workdir: str | pathlib.Path) -> ConfigDict:
    """The config that the newest checkpoint was trained with."""
    step = newest_step(workdir)
    with manager(workdir) as checkpoints:
        meta = checkpoints.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
    return ConfigDict(meta["config"])


def read_arrays(workdir: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Every weight of the newest checkpoint by its path, on this machine, wherever it was trained."""
    step = newest_step(workdir)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with ocp.StandardCheckpointer() as reader:
        described = reader.metadata(folder(workdir) / str(step) / "weights").item_metadata.tree
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), described)
    with manager(workdir) as checkpoints:
        tree = checkpoints.restore(step, args=ocp.args.Composite(weights=ocp.args.StandardRestore(like))).weights
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def digest(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return total.hexdigest()
