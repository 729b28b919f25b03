"""bfloat16 computes the features; codes are searched in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_data import config

from neurolm_jax import stages
from neurolm_jax.ahead.estimates import abstract_batch
from neurolm_jax.data.streams import Steps
from neurolm_jax.models import quantizer
from neurolm_jax.models.tokenizer import Tokenizer
from neurolm_jax.stages.restore import restore_weights
from neurolm_jax.training.gradients import loss_and_gradients
from neurolm_jax.training.mesh import make_mesh
from neurolm_jax.training.state import abstract_state, create_state, make_train_step


@pytest.fixture(scope="module")
def both(runs, small_data):
    """Codes and unit vectors of the same EEG with the encoder in float32 and in bfloat16."""
    weights = restore_weights(runs / "tokenizer", make_mesh())
    found = {}
    for dtype in ("float32", "bfloat16"):
        c = config("tokenizer", small_data, runs)
        c.tokenizer.encoder.dtype = dtype
        stage = stages.build(c)
        batch = Steps(stage.sources(True), 1)[0]
        terms = jax.jit(lambda weights: stage.terms(weights, batch, jax.random.key(0), jnp.zeros(()), train=True))  # noqa: B023
        found[dtype] = terms(weights)
    return weights.extra["state"].codebook.vectors, found


def test_codes_are_searched_in_float32(both):
    vectors, found = both
    for terms in found.values():
        z = terms.observed.z
        assert z.dtype == vectors.dtype == jnp.float32
        products = np.asarray(z, np.float64) @ np.asarray(vectors, np.float64).T
        chosen = np.take_along_axis(products, np.asarray(terms.observed.codes)[..., None], axis=-1)[..., 0]
        # No code is nearer but by float32's rounding; bfloat16's would be a thousand times larger.
        assert (products.max(-1) - chosen).max() < 1e-6
    compiled = jax.jit(quantizer.nearest).lower(vectors, jnp.zeros((4, vectors.shape[1]))).as_text()
    assert "bf16" not in compiled and "precision = [HIGHEST, HIGHEST]" in compiled


def precisions(text):
    """Of each matrix product in StableHLO, in order: the precision, DEFAULT where none stands."""
    lines = [line for line in text.splitlines() if "stablehlo.dot" in line]
    return ["HIGHEST" if "HIGHEST" in line else "HIGH" if "HIGH" in line else "DEFAULT" for line in lines]


def test_what_decides_codes_has_full_precision_everywhere(small_data, runs):
    """Projection and search, also where one pass in bfloat16 or TF32 is the default; and the rest by the field."""
    c = config("tokenizer", small_data, runs)
    stage, mesh = stages.build(c), make_mesh(devices=jax.devices()[:1])
    model, width = Tokenizer(stage.model_config), stage.model_config.encoder.width
    variables = {"params": abstract_state(stage, mesh).weights.params}
    features = jax.ShapeDtypeStruct((2, 5, width), jnp.float32)
    project = jax.jit(lambda v, x: model.apply(v, x, method=lambda m, x: m.code_projection(x)))
    assert precisions(project.lower(variables, features).as_text()) == ["HIGHEST", "HIGHEST"]

    lowered = {}
    for precision in ("default", "highest"):
        c.matmul_precision = precision
        stage = stages.build(c)
        arguments = abstract_state(stage, mesh), abstract_batch(stage, mesh), jax.random.key(0)
        lowered[precision] = precisions(make_train_step(stage, mesh).lower(*arguments).as_text())
    assert set(lowered["highest"]) == {"HIGHEST"} and len(lowered["highest"]) == len(lowered["default"])
    # Two products of the projection with two gradients each, and the search.
    assert lowered["default"].count("HIGHEST") == 7


def test_most_codes_agree_and_all_losses_are_near(both):
    _, found = both
    exact, coarse = found["float32"], found["bfloat16"]
    valid = np.asarray(exact.observed.valid)
    agree = (np.asarray(exact.observed.codes) == np.asarray(coarse.observed.codes))[valid].mean()
    assert 0.5 < agree <= 1
    for name, loss in exact.losses.items():
        np.testing.assert_allclose(coarse.losses[name].value, loss.value, rtol=0.05)
        assert coarse.losses[name].sum.dtype == jnp.float32


@pytest.mark.parametrize(
    ("name", "remat"),
    [
        ("language", "products"),
        pytest.param("pretrain", "all", marks=pytest.mark.slow),
        pytest.param("tokenizer", "all", marks=pytest.mark.slow),
        pytest.param("instruct", "none", marks=pytest.mark.slow),
    ],
)
def test_a_step_in_bfloat16_goes_the_same_way(name, remat, small_data, runs):
    """The gradient of each stage's loss as the large sizes compute it, beside that of float32."""
    mesh, found = make_mesh(), {}
    for dtype in ("float32", "bfloat16"):
        c = config(name, small_data, runs)
        for section in (c.get("language"), c.get("tokenizer", {}).get("encoder")):
            if section:
                section.dtype, section.remat = dtype, remat
        stage = stages.build(c)
        state = create_state(stage, mesh)
        weights = stage.inherit(state.weights, lambda path: restore_weights(path, mesh))
        batch = Steps(stage.sources(True), 1)[0]
        gradients, terms = jax.jit(
            lambda w: loss_and_gradients(stage, w, batch, jax.random.key(0), jnp.ones(()) / 2, 1)  # noqa: B023
        )(weights)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradients))
        found[dtype] = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradients)]), terms.losses
    exact, coarse = (found[dtype][0] for dtype in ("float32", "bfloat16"))
    assert np.isfinite(coarse).all()
    assert coarse @ exact / np.linalg.norm(coarse) / np.linalg.norm(exact) > 0.95
    for key, loss in found["float32"][1].items():
        np.testing.assert_allclose(found["bfloat16"][1][key].value, loss.value, rtol=0.05)
