"""Orbax checkpoints of a stage: weights, optimizer state, how far it got, and the config that made them.

``checkpoints/STEP`` appears by rename when all of it is written, digests included. Of what is found damaged later, the
checkpoint before is used instead.
"""

import contextlib
import hashlib
import json
import logging
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from neurolm_jax.errors import UserError
from neurolm_jax.training import integrity, provenance
from neurolm_jax.training.state import TrainState

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


class Checkpoints:
    """Writes into a workdir, in the background; keeps the newest ``keep``, others until a newer one is whole.

    Args:
      data: hashes of what is learnt from.
    """

    def __init__(self, workdir: str | pathlib.Path, keep: int = 1, data: Mapping[str, str] | None = None):
        self._data = dict(data or {})
        self._folder, self._keep, self._step = folder(workdir), keep, None
        logging.getLogger("absl").addFilter(_without_tracebacks)
        self._writer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._add_digests),
        )

    def save(self, step: int, state: TrainState, progress: Progress, config: ConfigDict) -> bool:
        """Begin to write the state after ``step`` steps; not if it is there already.

        Raises:
          UserError: this one, or the one before, cannot be written; what was whole before still is.
        """
        meta = {"config": config.to_dict(), "step": step, **progress._asdict(), **provenance.here(), "data": self._data}
        return self._write(step, meta, weights=state.weights, optimizer=state.optimizer, health=state.health)

    def save_weights(self, weights, config: ConfigDict) -> None:
        """Weights from elsewhere as the checkpoint of step 0, without what a run needs to go on."""
        self._write(0, {"config": config.to_dict(), "step": 0, **provenance.here()}, weights=weights)

    def wait(self) -> None:
        """Until nothing is being written any more.

        Raises:
          UserError: as ``save``.
        """
        with self._told():
            self._writer.wait_until_finished()
            self._writer.check_for_errors()
        self._delete_old()

    def check(self) -> None:
        """Whether what was written in the background so far went well, without waiting.

        Raises:
          UserError: as ``save``.
        """
        with self._told():
            self._writer.check_for_errors()

    def close(self) -> None:
        """Without raising errors of writing: ``wait`` before, where all went well."""
        with contextlib.suppress(UserError), self._told():
            self._writer.close()
        logging.getLogger("absl").removeFilter(_without_tracebacks)

    def _write(self, step, meta, **arrays):
        self.wait()
        if step in steps(self._folder.parent):
            return False
        self._step = step
        self._check_room()
        items = {name: ocp.args.StandardSave(tree) for name, tree in arrays.items()}
        with self._told():
            self._writer.save(self._folder / str(step), args=ocp.args.Composite(**items, meta=ocp.args.JsonSave(meta)))
        return True

    def _check_room(self):
        """Refuses what cannot end well, as far as the checkpoint before tells; storage may still run full meanwhile."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if known := steps(self._folder.parent):
            files = (self._folder / str(known[-1])).rglob("*")
            needed = sum(file.stat().st_size for file in files if file.is_file())
            with self._told():
                if shutil.disk_usage(self._folder).free < 0.9 * needed:
                    raise OSError(f"no space left for {needed / 1e9:.2g} GB")

    def _add_digests(self):
        """Called when all is written, before the folder gets its name."""
        [unfinished] = self._folder.glob(f"{self._step}{UNFINISHED}*")
        integrity.write_digests(unfinished)

    @contextlib.contextmanager
    def _told(self):
        """Errors of writing in one line: their kinds differ with what found them, and there is none but this remedy."""
        try:
            yield
        except (jax.errors.JaxRuntimeError, TimeoutError):  # of devices, or of processes that are gone
            raise
        except (OSError, ValueError, RuntimeError) as error:
            _remove_unfinished(self._folder)
            kept = steps(self._folder.parent)
            rest = f"the newest whole one is of step {max(kept)}" if kept else "there is none before it"
            known = re.search(r"([A-Z][\w -]+?) \[os_error_code", str(error))  # what TensorStore was told
            said = known[1] if known else " ".join(str(error).split())[:300]
            raise UserError(
                f"{self._folder}: the checkpoint of step {self._step} cannot be written ({said}); {rest}."
                " Make room or mend its rights, and start again"
            ) from error

    def _delete_old(self):
        if jax.process_index() == 0:
            for step in steps(self._folder.parent)[: -self._keep]:
                old = self._folder / f"{step}{UNFINISHED}-old"
                (self._folder / str(step)).rename(old)
                shutil.rmtree(old, ignore_errors=True)  # what is left of it goes at the next start


@contextlib.contextmanager
def writing(workdir: str | pathlib.Path, *arguments) -> Iterator[Checkpoints]:
    """``Checkpoints`` that are whole when the block ends well."""
    checkpoints = Checkpoints(workdir, *arguments)
    with contextlib.closing(checkpoints):
        yield checkpoints
        checkpoints.wait()


def save_weights(workdir: str | pathlib.Path, weights, config: ConfigDict) -> None:
    """Weights from elsewhere as the checkpoint of step 0, without an optimizer's moments."""
    with writing(workdir) as checkpoints:
        checkpoints.save_weights(weights, config)


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
    """The state after ``step`` steps, placed as ``abstract`` says, and how far the run was."""
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
        _remove_unfinished(folder(workdir))
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


def _without_tracebacks(record):
    """Of writing that failed: Orbax logs one before it raises the error, which is told in a line."""
    return not (record.exc_info and "orbax" in record.pathname)


def _remove_unfinished(path):
    if jax.process_index() == 0 and path.is_dir():
        for unfinished in path.glob(f"*{UNFINISHED}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
