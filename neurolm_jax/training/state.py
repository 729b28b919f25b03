"""The state of a run, created sharded, and the step that advances it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from neurolm_jax.training.mesh import shardings
from neurolm_jax.training.optimizer import learning_rate, make_optimizer


class TrainState(NamedTuple):
    """step: int32 [], steps done; weights: ``stages.Weights``; optimizer: its moments."""

    step: jax.Array
    weights: Any
    optimizer: Any


def abstract_state(stage, mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of a stage's state, without making it."""
    abstract = jax.eval_shape(lambda: _create(stage, jax.random.key(0)))
    return jax.tree.map(_with_sharding, nn.unbox(abstract), shardings(mesh, abstract))


def create_state(stage, mesh: Mesh) -> TrainState:
    """A stage's random initial state, each array created in its place on the mesh."""
    placed = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(stage, mesh))
    create = jax.jit(lambda rng: nn.unbox(_create(stage, rng)), out_shardings=placed)
    return create(jax.random.key(stage.config.seed))


def make_train_step(stage) -> Callable:
    """(state, batch, rng) -> (state, metrics), jitted; the state's buffers are reused.

    ``rng`` is the run's key, from which every step derives its own.
    """
    config = stage.config
    optimizer = make_optimizer(config)

    def train_step(state: TrainState, batch, rng):
        rng = jax.random.fold_in(rng, state.step)
        progress = state.step / config.steps

        def loss_of(params):
            return stage.loss(state.weights._replace(params=params), batch, rng, progress, train=True)

        (loss, (extra, metrics)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.weights.params)
        updates, moments = optimizer.update(gradients, state.optimizer, state.weights.params)
        params = optax.apply_updates(state.weights.params, updates)
        metrics |= {
            "loss": loss,
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": learning_rate(config)(state.step),
        }
        return TrainState(state.step + 1, state.weights._replace(params=params, extra=extra), moments), metrics

    return jax.jit(train_step, donate_argnums=0)


def make_validation_step(stage) -> Callable:
    """(weights, batch) -> metrics, jitted: the loss without dropout and without any change of state."""

    def validation_step(weights, batch):
        loss, (_, metrics) = stage.loss(weights, batch, jax.random.key(0), jnp.ones(()), train=False)
        return metrics | {"loss": loss}

    return jax.jit(validation_step)


def _create(stage, rng):
    weights = stage.create(rng)
    return TrainState(jnp.zeros((), jnp.int32), weights, make_optimizer(stage.config).init(weights.params))


def _with_sharding(leaf, sharding):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
