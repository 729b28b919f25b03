"""A trained stage from its workdir."""

from jax.sharding import Mesh

from neurolm_jax.stages import Stage, Weights, build
from neurolm_jax.training import checkpoint
from neurolm_jax.training.state import abstract_state


def restore_weights(workdir: str, mesh: Mesh) -> Weights:
    """The weights that a stage's run left, placed on the mesh, as later stages want them: without low-rank terms."""
    stage, weights = restore_stage(workdir, mesh)
    return stage.plain(weights)


def restore_stage(workdir: str, mesh: Mesh) -> tuple[Stage, Weights]:
    """The stage itself, from the config in its newest checkpoint, and its weights."""
    stage = build(checkpoint.read_config(workdir))
    return stage, checkpoint.restore_weights(workdir, abstract_state(stage, mesh).weights)
