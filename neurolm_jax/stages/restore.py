"""A stage from its workdir: trained, or on its way."""

import jax
from jax.sharding import Mesh

from neurolm_jax.stages import Stage, Weights, build
from neurolm_jax.training import checkpoint
from neurolm_jax.training.state import TrainState, abstract_state, create_state, state_shardings


def restore_weights(workdir: str, mesh: Mesh) -> Weights:
    """The weights that a stage's run left, placed on the mesh, as later stages want them: without low-rank terms."""
    stage, weights = restore_stage(workdir, mesh)
    return stage.plain(weights)


def restore_stage(workdir: str, mesh: Mesh, step: int | None = None) -> tuple[Stage, Weights]:
    """The stage itself, from the config in a checkpoint, or its newest, and its weights."""
    step = checkpoint.newest_step(workdir) if step is None else step  # found once: it takes reading all of them
    stage = build(checkpoint.read_config(workdir, step))
    return stage, checkpoint.restore_weights(workdir, step, abstract_state(stage, mesh).weights)


def restore_run(
    stage: Stage, mesh: Mesh, workdir: str, abstract: TrainState, step: int | None
) -> tuple[TrainState, checkpoint.Progress]:
    """The state and progress of a run's checkpoint; if there is none, the initial ones, from earlier stages."""
    if step is not None:
        return checkpoint.restore(workdir, step, abstract)
    state = create_state(stage, mesh)
    weights = stage.inherit(state.weights, lambda path: restore_weights(path, mesh))
    state = state._replace(weights=jax.device_put(weights, state_shardings(stage, mesh).weights))
    return state, checkpoint.Progress()
