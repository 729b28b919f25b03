"""A step that was taken, or skipped, once more: which terms, rows and gradients are not finite."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from neurolm_jax.data.streams import Steps, without_faults
from neurolm_jax.errors import UserError
from neurolm_jax.training import checkpoint, faults, metrics, provenance
from neurolm_jax.training.gradients import weighted
from neurolm_jax.training.mesh import on_mesh, put_batch
from neurolm_jax.training.state import make_train_step, prepare, step_gradients

SHOWN = 5


def look_at(step: int, stage, mesh, workdir: pathlib.Path, restore: Callable, sources, data: dict[str, str]) -> dict:
    """Takes the steps from the newest whole checkpoint before ``step``, or the beginning, up to it again, then looks
    at it; prints, and returns, what it finds: ``{"terms", "gradients", "rows"}``. Writes nothing.

    Args:
      restore: gives state and progress of the checkpoint of a step, or of None, the beginning.

    Raises:
      UserError: there is no run, or it has no such step; several processes.
    """
    config = stage.config
    if jax.process_count() > 1:
        raise UserError("--replay: works in one process; start it without the others")
    if step > config.steps:
        raise UserError(f"--replay {step}: the run has {config.steps} steps")
    newest = checkpoint.newest_step(workdir, checkpoint.ALL)
    provenance.check(workdir, checkpoint.read_meta(workdir, newest), config, data)
    kept = any(known < step for known in checkpoint.steps(workdir))
    start = checkpoint.newest_step(workdir, checkpoint.ALL, before=step) if kept else None
    state, progress = restore(start)
    start = start or 0
    position = _position(faults.read(workdir), step, start, progress.position)
    steps, rng, train_step = Steps(sources, position + 1), jax.random.key(config.seed), make_train_step(stage, mesh)
    for earlier in range(start + 1, step + 1):
        batch = without_faults(steps[position - step + earlier])
        placed = put_batch(mesh, batch)
        if earlier == 1:
            state = prepare(stage, mesh, state, placed, rng)
        if earlier < step:
            state, _ = train_step(state, placed, rng)

    terms, gradients = _looked(stage, mesh)(state, placed, rng)
    found = {"terms": metrics.scalars(terms), "gradients": _not_finite(gradients), "rows": {}}
    print(f"{workdir}: step {step} of {config.stage}, batch {position}, from the checkpoint of step {start}")
    print("  " + ", ".join(f"{name} {value:g}" for name, value in found["terms"].items()))
    print(f"  gradients that are not finite: {', '.join(found['gradients'][:SHOWN]) or 'none'}")
    origins, alone = steps.origins(position), _alone(stage, mesh)
    for name in sources:
        losses = [
            float(alone(state, put_batch(mesh, _repeated(batch, name, row)), rng)) for row in range(len(origins[name]))
        ]
        order = sorted(range(len(losses)), key=lambda row: -losses[row] if np.isfinite(losses[row]) else -np.inf)
        found["rows"][name] = [(losses[row], origins[name][row]) for row in order]
        print(f"  rows of {name}, by the loss of a batch of each alone:")
        for loss, records in found["rows"][name][:SHOWN]:
            print(f"    {loss:g}: {'; '.join(records)}")
    return found


def _position(told, step, start, after) -> int:
    """Of a step's batch: as it was told of; else as many behind that ``after`` the checkpoint of ``start`` as the step
    is, which a rollback to that checkpoint has moved."""
    if known := [line["position"] for line in told if line.get("step") == step]:
        return known[-1]
    moved = [line["position"] for line in told if line.get("rolled_back_to") == start]
    return (moved[-1] if moved else after) + step - 1 - start


def _looked(stage, mesh):
    """(state, batch, rng) -> loss and its terms; the largest absolute value of each gradient, nan if one is."""

    def looked(state, batch, rng):
        gradients, terms, _ = step_gradients(stage, state, batch, rng)
        losses = terms.losses | {"loss": weighted(stage, terms.losses)}
        return losses, jax.tree.map(lambda g: jnp.max(jnp.abs(g)), gradients)

    return jax.jit(on_mesh(mesh, looked, stage.config))


def _alone(stage, mesh):
    """(state, batch, rng) -> loss."""

    def alone(state, batch, rng):
        terms = stage.terms(state.weights, batch, rng, state.step / stage.config.steps, train=False)
        return weighted(stage, terms.losses)

    return jax.jit(on_mesh(mesh, alone, stage.config))


def _repeated(batch, name, row):
    """The batch with one row of a source in place of all."""
    return batch | {name: jax.tree.map(lambda x: np.repeat(x[row : row + 1], len(x), axis=0), batch[name])}


def _not_finite(largest):
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(largest))
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, x in leaves if not np.isfinite(x)]
