"""The update of a step: AdamW's, taken where the moments lie."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import language
from neurolm_jax import stages
from neurolm_jax.models.attention import bidirectional
from neurolm_jax.models.config import REMAT
from neurolm_jax.models.transformer import Stack, StackConfig
from neurolm_jax.training import optimizer
from neurolm_jax.training.mesh import make_mesh
from neurolm_jax.training.state import abstract_state, make_train_step


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_moments_and_directions_are_those_of_optax(clip_norm):
    c = ConfigDict({"beta1": 0.9, "beta2": 0.95, "weight_decay": 0.3, "clip_norm": clip_norm})
    rng = np.random.default_rng(0)
    params = {
        "table": rng.normal(size=(5, 3)).astype("f"),
        "blocks": {"kernel": rng.normal(size=(2, 3, 3)).astype("f"), "bias": np.ones((2, 3), "f")},
    }
    want = params
    theirs = optax.adamw(1e-2, c.beta1, c.beta2, weight_decay=c.weight_decay, mask=optimizer.decayed)
    theirs = optax.chain(optax.clip_by_global_norm(clip_norm), theirs) if clip_norm else theirs
    keeping, before = optimizer.make_optimizer(c), theirs.init(want)
    moments = keeping.init(params)
    for _ in range(4):
        gradients = jax.tree.map(lambda p: rng.normal(size=p.shape).astype("f"), params)
        updates, before = theirs.update(gradients, before, want)
        want = optax.apply_updates(want, updates)
        moments = keeping.update(gradients, moments)[1]
        params = jax.tree.map(lambda p, d: p - 1e-2 * d, params, optimizer.directions(c, moments, params))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), params, want)


def test_a_step_copies_no_moments():
    c = language.get_config("debug")
    c.update(text_batch_size=1, text_length=64)
    stage, mesh = stages.build(c), make_mesh()
    batch = {"text": jax.ShapeDtypeStruct((1, c.text_length + 1), jnp.int32)}
    step = make_train_step(stage, mesh).lower(abstract_state(stage, mesh), batch, jax.random.key(0))
    program = step.compile().as_text()
    assert "%state_optimizer" in program and "copy(%state_optimizer" not in program


@pytest.mark.parametrize("remat", REMAT)
def test_only_remat_of_all_computes_products_twice(remat):
    c = StackConfig(layers=2, heads=2, width=16, use_bias=True, scale_by_depth=True, remat=remat)
    x, seen = jnp.ones((2, 600, 16)), bidirectional(jnp.ones((2, 600), int))
    params = nn.unbox(Stack(c).init(jax.random.key(0), x, seen))["params"]
    backward = jax.make_jaxpr(jax.grad(lambda p: jnp.square(Stack(c).apply({"params": p}, x, seen)[0]).sum()))(params)
    products = [eqn for eqn in _equations(backward.jaxpr) if eqn.primitive.name == "dot_general"]
    of_kernels = [eqn for eqn in products if eqn.outvars[0].aval.ndim == 2]  # attention's have four axes
    assert len(of_kernels) == 4 * 3 + (3 if remat == "all" else 0)  # nothing needs the last one's result


def _equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _equations(inner)
