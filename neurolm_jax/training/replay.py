"""A step that was taken, or skipped, once more: which terms, rows and gradients are not finite."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from neurolm_jax.data.streams import Steps
from neurolm_jax.errors import UserError
from neurolm_jax.training import checkpoint, faults, metrics, provenance
from neurolm_jax.training.gradients import loss_and_gradients, weighted
from neurolm_jax.training.mesh import on_mesh, put_batch

SHOWN = 5


def look_at(step: int, stage, mesh, workdir: pathlib.Path, abstract, train_step, sources) -> dict:
    """Takes the steps between the newest whole checkpoint before ``step`` and it again, then looks at it; prints, and
    returns, what it finds: ``{"terms", "gradients", "rows"}``. Writes nothing.

    Raises:
      UserError: there is no checkpoint before the step.
    """
    config, process = stage.config, (jax.process_index(), jax.process_count())
    start = checkpoint.newest_step(workdir, checkpoint.ALL, before=step)
    provenance.check(workdir, checkpoint.read_meta(workdir, start), config)
    state, progress = checkpoint.restore(workdir, start, abstract)
    if step > config.steps:
        raise UserError(f"--replay {step}: the run has {config.steps} steps")
    told = [line["position"] for line in faults.read(workdir) if line["step"] == step]
    position = told[-1] if told else progress.position + step - 1 - start
    steps, rng = Steps(sources, position + 1, *process), jax.random.key(config.seed)
    for earlier in range(start + 1, step):
        state, _ = train_step(state, put_batch(mesh, steps[position - step + earlier]), rng)

    batch = steps[position]
    rng = jax.random.fold_in(rng, state.step)
    terms, gradients = _looked(stage, mesh)(state, put_batch(mesh, batch), rng)
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


def _looked(stage, mesh):
    """(state, batch, rng) -> loss and its terms; the largest absolute value of each gradient, nan if one is."""

    def looked(state, batch, rng):
        rng_terms, _ = jax.random.split(rng)
        progress = state.step / stage.config.steps
        gradients, terms = loss_and_gradients(
            stage, state.weights, batch, rng_terms, progress, stage.config.accumulation
        )
        losses = terms.losses | {"loss": weighted(stage, terms.losses)}
        return losses, jax.tree.map(lambda g: jnp.max(jnp.abs(g)), gradients)

    return jax.jit(on_mesh(mesh, looked))


def _alone(stage, mesh):
    """(state, batch, rng) -> loss."""

    def alone(state, batch, rng):
        terms = stage.terms(state.weights, batch, rng, state.step / stage.config.steps, train=False)
        return weighted(stage, terms.losses)

    return jax.jit(on_mesh(mesh, alone))


def _repeated(batch, name, row):
    """The batch with one row of a source in place of all."""
    return batch | {name: jax.tree.map(lambda x: np.repeat(x[row : row + 1], len(x), axis=0), batch[name])}


def _not_finite(largest):
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(largest))
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, x in leaves if not np.isfinite(x)]
