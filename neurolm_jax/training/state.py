"""The state of a run, created sharded, and the step that advances it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from neurolm_jax.stages.base import Stage
from neurolm_jax.training import health
from neurolm_jax.training.gradients import loss_and_gradients, weighted
from neurolm_jax.training.mesh import on_mesh, shardings
from neurolm_jax.training.optimizer import learning_rate, make_optimizer, take


class TrainState(NamedTuple):
    """step: int32 [], steps done, also if they were skipped; weights: ``stages.Weights``; optimizer: its state,
    the moments and the count of steps taken."""

    step: jax.Array
    weights: Any
    optimizer: Any
    health: health.Health


def abstract_state(stage, mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of a stage's state, without making it."""
    abstract = jax.eval_shape(lambda weights: _initial(stage, weights), stage.abstract_weights)
    return jax.tree.map(_with_sharding, nn.unbox(abstract), shardings(mesh, abstract))


def replicated_share(abstract: TrainState) -> float:
    """The share of a state's numbers that lie on every device, where a mesh does not divide their arrays."""
    sizes = [(leaf.size, leaf.sharding.is_fully_replicated) for leaf in jax.tree.leaves(abstract.weights)]
    return sum(size for size, whole in sizes if whole) / sum(size for size, _ in sizes)


def create_state(stage, mesh: Mesh) -> TrainState:
    """A stage's random initial state, each array created in its place on the mesh."""
    create = jax.jit(
        lambda rng: nn.unbox(_initial(stage, stage.create(rng))), out_shardings=state_shardings(stage, mesh)
    )
    return create(jax.random.key(stage.config.seed))


def state_shardings(stage, mesh: Mesh) -> TrainState:
    """Where each array of a stage's state lies."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract_state(stage, mesh))


def step_gradients(stage, state: TrainState, batch, rng: jax.Array) -> tuple[Any, Any, jax.Array]:
    """Gradients and terms of a step's batch, and a key for what the stage learns beside them.

    ``rng`` is the run's key, from which every step derives its own.
    """
    rng_terms, rng_learn = jax.random.split(jax.random.fold_in(rng, state.step))
    progress = state.step / stage.config.steps
    return *loss_and_gradients(stage, state.weights, batch, rng_terms, progress, stage.config.accumulation), rng_learn


def make_train_step(stage, mesh: Mesh) -> Callable:
    """(state, batch, the run's key) -> (state, metrics), jitted; the state's buffers are reused.

    A step whose loss or gradient is not finite changes nothing but the state's count of such steps.
    """
    config = stage.config
    optimizer = make_optimizer(config)

    def train_step(state: TrainState, batch, rng):
        gradients, terms, rng_learn = step_gradients(stage, state, batch, rng)
        extra, metrics = stage.learn(state.weights.extra, terms.observed, rng_learn)
        loss, norm = weighted(stage, terms.losses), optax.tree.norm(gradients)
        taken, after = health.judge(state.health, loss, norm, config.faults.spike)
        params, moments = take(taken, optimizer, gradients, state.optimizer, state.weights.params)
        metrics |= terms.losses | terms.metrics
        metrics |= {
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": learning_rate(config)(state.health.taken),
            "skipped_steps": after.skipped,
            "skipped_in_a_row": after.in_a_row,
        }
        weights = state.weights._replace(params=params, extra=health.choose(taken, extra, state.weights.extra))
        return TrainState(state.step + 1, weights, moments, after), metrics

    placed = state_shardings(stage, mesh), NamedSharding(mesh, PartitionSpec())
    return jax.jit(on_mesh(mesh, train_step, config), donate_argnums=0, out_shardings=placed)


def make_validation_step(stage, mesh: Mesh) -> Callable:
    """(weights, batch) -> losses and metrics of the stage, jitted: no dropout, and no change of state."""

    def validation_step(weights, batch):
        losses, metrics, _ = stage.terms(weights, batch, jax.random.key(0), jnp.ones(()), train=False)
        return losses, metrics

    return jax.jit(on_mesh(mesh, validation_step, stage.config), out_shardings=NamedSharding(mesh, PartitionSpec()))


def prepare(stage, mesh: Mesh, state: TrainState, batch, rng: jax.Array) -> TrainState:
    """The state before the first step, where the stage wants to see that step's batch."""
    run = make_prepare(stage, mesh)
    return state if run is None else state._replace(weights=run(state.weights, batch, rng))


def make_prepare(stage, mesh: Mesh) -> Callable | None:
    """(weights, batch, the run's key) -> weights before the first step, jitted; None where a stage leaves them."""
    if type(stage).prepare is Stage.prepare:
        return None
    placed = state_shardings(stage, mesh).weights
    prepared = on_mesh(mesh, stage.prepare, stage.config)
    return jax.jit(prepared, donate_argnums=0, out_shardings=placed)


def _initial(stage, weights):
    moments = make_optimizer(stage.config).init(weights.params)
    return TrainState(jnp.zeros((), jnp.int32), weights, moments, health.create_health())


def _with_sharding(leaf, sharding):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
