"""Writing checkpoints in the background, so that steps go on meanwhile (see ``checkpoint.py`` for what they are)."""

import contextlib
import json
import logging
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from neurolm_jax.errors import UserError
from neurolm_jax.training import integrity, provenance
from neurolm_jax.training.checkpoint import TRAINED_ON, UNFINISHED, Progress, folder, remove_unfinished, steps
from neurolm_jax.training.state import TrainState


class Checkpoints:
    """Writes into a workdir, in the background; keeps the newest ``keep``, others until a newer one is whole.

    Args:
      data: hashes of what is learnt from.
      trained_on: what this stage and those before it have been trained on, see ``data.trained_on``; the process that
        finishes checkpoints writes it into each.
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        keep: int = 1,
        data: Mapping[str, str] | None = None,
        trained_on: Mapping | None = None,
    ):
        self._data, self._trained_on = dict(data or {}), trained_on
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
        if self._trained_on is not None:
            (unfinished / TRAINED_ON).write_text(json.dumps(self._trained_on))
        integrity.write_digests(unfinished)

    @contextlib.contextmanager
    def _told(self):
        """Errors of writing in one line: their kinds differ with what found them, and there is none but this remedy."""
        try:
            yield
        except (jax.errors.JaxRuntimeError, TimeoutError):  # of devices, or of processes that are gone
            raise
        except (OSError, ValueError, RuntimeError) as error:
            remove_unfinished(self._folder)
            kept = steps(self._folder.parent)
            rest = f"the newest whole one is of step {max(kept)}" if kept else "there is none before it"
            known = re.search(r"([A-Z][\w -]+?) \[os_error_code", str(error))  # what TensorStore was told
            said = known[1] if known else " ".join(str(error).split())[:300]
            raise UserError(
                f"{self._folder}: the checkpoint of step {self._step} cannot be written ({said}); {rest}."
                " Make room or repair its rights, and start again"
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


def save_weights(workdir: str | pathlib.Path, weights, config: ConfigDict, trained_on: Mapping | None = None) -> None:
    """Weights from elsewhere as the checkpoint of step 0, without an optimizer's moments."""
    with writing(workdir, 1, None, trained_on) as checkpoints:
        checkpoints.save_weights(weights, config)


def _without_tracebacks(record):
    """Of writing that failed: Orbax logs one before it raises the error, which is told in a line."""
    return not (record.exc_info and "orbax" in record.pathname)
