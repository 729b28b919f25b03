"""The update of a step, by any of optax's optimizers, and what a step keeps for the backward pass."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from neurolm_jax.models.attention import bidirectional
from neurolm_jax.models.config import REMAT
from neurolm_jax.models.transformer import Stack, StackConfig
from neurolm_jax.training import optimizer


def random_params(rng):
    return {
        "table": rng.normal(size=(5, 3)).astype("f"),
        "blocks": {"kernel": rng.normal(size=(2, 3, 3)).astype("f"), "bias": np.ones((2, 3), "f")},
    }


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_steps_are_those_of_the_formula(clip_norm):
    """AdamW as its paper has it, in float64; the gradient clipped by its norm, the rate of the step's number."""
    c = ConfigDict({"beta1": 0.9, "beta2": 0.95, "weight_decay": 0.3, "clip_norm": clip_norm, "steps": 10})
    c.update(learning_rate=1e-1, final_learning_rate=1e-2, warmup_steps=2)
    rng = np.random.default_rng(0)
    params = random_params(rng)
    want = jax.tree.map(np.float64, params)
    first = second = jax.tree.map(np.zeros_like, want)
    decays = {"table": 0.3, "blocks": {"kernel": 0.3, "bias": 0.0}}
    adamw = optimizer.make_optimizer(c)
    state = adamw.init(params)
    for n in range(4):
        gradients = jax.tree.map(lambda p: rng.normal(size=p.shape).astype("f"), params)
        params, state = optimizer.take(jnp.bool_(True), adamw, gradients, state, params)
        norm = np.sqrt(sum(np.square(np.float64(g)).sum() for g in jax.tree.leaves(gradients)))
        scale = min(1.0, clip_norm / norm) if clip_norm else 1.0
        rate = float(optimizer.learning_rate(c)(n))
        gradients = jax.tree.map(lambda g, scale=scale: scale * np.float64(g), gradients)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = jax.tree.map(lambda v, g: 0.95 * v + 0.05 * np.square(g), second, gradients)
        mean = jax.tree.map(lambda m, n=n: m / (1 - 0.9 ** (n + 1)), first)
        square = jax.tree.map(lambda v, n=n: v / (1 - 0.95 ** (n + 1)), second)
        along = jax.tree.map(lambda m, v, p, d: m / (np.sqrt(v) + 1e-8) + d * p, mean, square, want, decays)
        want = jax.tree.map(lambda p, a, rate=rate: p - rate * a, want, along)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), params, want)


@pytest.mark.parametrize(
    "theirs",
    [
        optax.adamw(1e-2, mask=optimizer.decayed),
        optax.lion(optax.linear_schedule(1e-2, 0, 9)),
        optax.contrib.muon(1e-2),
        optax.chain(optax.clip(0.1), optax.sgd(1e-2, momentum=0.9)),
    ],
    ids=["adamw", "lion", "muon", "sgd"],
)
def test_any_optimizer_of_optax_takes_steps_or_none(theirs):
    rng = np.random.default_rng(0)
    params = want = jax.tree.map(jnp.asarray, random_params(rng))
    state = before = theirs.init(params)
    step = jax.jit(lambda taken, *arguments: optimizer.take(taken, theirs, *arguments))
    for n in range(4):
        gradients = jax.tree.map(lambda p: rng.normal(size=p.shape).astype("f"), params)
        params, state = step(n != 2, gradients, state, params)
        if n != 2:
            updates, before = theirs.update(gradients, before, want)
            want = optax.apply_updates(want, updates)
    same = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(same, (params, state), (want, before))
    nothing = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), params)
    jax.tree.map(np.testing.assert_array_equal, step(False, nothing, state, params), (params, state))


def test_that_a_step_may_be_skipped_takes_no_memory():
    """Beside a step that is always taken; to choose between arrays takes twice its memory, a copy of each moment."""
    theirs = optax.adamw(1e-3)
    params = {str(n): jax.ShapeDtypeStruct((64, 64 + n), jnp.float32) for n in range(40)}
    state = jax.eval_shape(theirs.init, params)

    def always(state, params, gradients):
        updates, state = theirs.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    def perhaps(state, params, gradients):
        return optimizer.take(optax.tree.norm(gradients) < 1e9, theirs, gradients, state, params)

    programs = [jax.jit(f, donate_argnums=(0, 1)).lower(state, params, params).compile() for f in (always, perhaps)]
    needed, memory = (program.memory_analysis() for program in programs)
    assert memory.temp_size_in_bytes < 1.2 * needed.temp_size_in_bytes
    assert memory.alias_size_in_bytes == needed.alias_size_in_bytes >= 3 * sum(4 * p.size for p in params.values())


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
