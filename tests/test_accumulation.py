"""A batch in parts gives what it gives at once; so do scanned and single layers, kept and recomputed activations."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_data import config

from neurolm_jax import stages
from neurolm_jax.ahead.estimates import abstract_batch, compiled_step
from neurolm_jax.data.streams import Steps
from neurolm_jax.models.attention import staircase
from neurolm_jax.models.config import REMAT
from neurolm_jax.models.transformer import Block, Stack, StackConfig
from neurolm_jax.stages.restore import restore_weights
from neurolm_jax.training import gradients
from neurolm_jax.training.mesh import make_mesh
from neurolm_jax.training.state import abstract_state, make_prepare


@pytest.mark.slow
@pytest.mark.parametrize("name", ["language", "tokenizer", "pretrain", "instruct"])
def test_parts_of_a_batch_add_up_to_it(runs, small_data, name):
    c = config(name, small_data, runs, batch_size=4, text_batch_size=4)
    stage = stages.build(c)
    weights = restore_weights(runs / name, make_mesh())
    batch = Steps(stage.sources(True), 1)[0]
    if name == "instruct":
        c.answer_length = 18
        batch = Steps(stages.build(c).sources(True), 1)[0]
    if name != "language":  # the parts have different weight
        rows = batch["dialogues"]["mixed"]["answer_target"] if name == "instruct" else batch["eeg"]["segment"]
        assert len({int((row > 0).sum()) for row in rows}) > 1

    @functools.partial(jax.jit, static_argnums=0)
    def step(parts):
        grads, terms = gradients.loss_and_gradients(stage, weights, batch, jax.random.key(0), jnp.float32(0.5), parts)
        return grads, terms, stage.learn(weights.extra, terms.observed, jax.random.key(1))

    whole = step(1)
    assert max(jnp.abs(g).max() for g in jax.tree.leaves(whole[0])) > 1e-3
    for parts in (2, 4):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), step(parts), whole)


def test_the_first_codebook_of_parts_is_that_of_the_whole_batch(small_data, runs):
    c = config("tokenizer", small_data, runs, batch_size=4, text_batch_size=4)
    stage = stages.build(c)
    weights = nn.unbox(jax.jit(stage.create)(jax.random.key(0)))
    batch = Steps(stage.sources(True), 1)[0]
    found = []
    for parts in (1, 2, 4):
        c.accumulation = parts
        found.append(jax.jit(stages.build(c).prepare)(weights, batch, jax.random.key(1)).extra["state"])
    assert found[0].codebook.initialised and found[0].feature_variance.max() > 0
    for state in found[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state, found[0])


def test_the_first_codebook_takes_less_memory_in_parts(small_data, runs):
    """Scores of all patches and codes at once were 17 GB of 512 rows; whether it fits is told before."""
    c = config("tokenizer", small_data, runs, batch_size=8, text_batch_size=8)
    c.tokenizer.codes = 4096
    mesh, sizes = make_mesh(devices=jax.devices()[:1]), {}
    for parts in (1, 8):
        c.accumulation = parts
        stage = stages.build(c)
        state, batch, key = abstract_state(stage, mesh), abstract_batch(stage, mesh), jax.random.key(0)
        compiled = make_prepare(stage, mesh).lower(state.weights, batch, key).compile()
        sizes[parts] = compiled.memory_analysis().temp_size_in_bytes
    scores = 8 * c.row_length * 4096 * 4
    assert sizes[1] > scores and sizes[8] < sizes[1] - scores / 2
    program = compiled_step(stage, mesh)
    moments = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.optimizer))
    assert program.before > sizes[8] + moments and program.peak >= program.before
    assert make_prepare(stages.build(config("language", small_data, runs)), mesh) is None


def test_a_plain_mean_of_parts_would_be_wrong():
    """Why counts are kept: two parts with three and one valid places."""
    from neurolm_jax.models.losses import masked_mean

    x, valid = jnp.array([[1.0, 2.0, 3.0], [8.0, 0.0, 0.0]]), jnp.array([[1, 1, 1], [1, 0, 0]], bool)
    parts = [masked_mean(*part) for part in zip(x, valid)]
    total = jax.tree.map(lambda *y: sum(y), *parts)
    assert total.value == masked_mean(x, valid).value == 3.5
    assert np.mean([part.value for part in parts]) == 5.0


def test_split_and_merge_are_inverse():
    batch = {"x": np.arange(24).reshape(12, 2)}
    parts = gradients.split(batch, 3)
    np.testing.assert_array_equal(parts["x"][1, :, 0], [2, 8, 14, 20])  # rows 1, 4, 7, 10
    np.testing.assert_array_equal(gradients.merge(parts)["x"], batch["x"])


@pytest.mark.parametrize("scale_by_depth", [pytest.param(False, marks=pytest.mark.slow), True])
def test_scanned_layers_equal_single_ones_with_and_without_remat(scale_by_depth):
    c = StackConfig(layers=3, heads=2, width=8, use_bias=True, scale_by_depth=scale_by_depth)
    x = jax.random.normal(jax.random.key(0), (2, 6, 8))
    ids = jnp.array([[1, 1, 1, 1, 2, 2]] * 2), jnp.array([[0, 0, 1, 1, 0, 1]] * 2)
    seen = staircase(*ids)
    params = nn.unbox(Stack(c).init(jax.random.key(1), x, seen))["params"]
    params = jax.tree.map(lambda p: p + 0.2 * jax.random.normal(jax.random.key(2), p.shape), params)

    def scanned(params, remat):
        return Stack(StackConfig(**{**vars(c), "remat": remat})).apply({"params": params}, x, seen)[0]

    def single(params):
        y = x
        for layer in range(3):
            here = jax.tree.map(lambda p: p[layer], params["blocks"])  # noqa: B023 (used at once)
            y, _ = Block(c).apply({"params": here}, y, layer, None, seen, 0, True)
        return y

    want = jax.value_and_grad(lambda p: jnp.square(single(p)).sum())(params)
    for remat in REMAT:
        got = jax.value_and_grad(lambda p: jnp.square(scanned(p, remat)).sum())(params)  # noqa: B023
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, want)
