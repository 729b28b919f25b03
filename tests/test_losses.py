import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from neurolm_jax.models import losses


@pytest.mark.parametrize("count", [7, losses.CHUNK, 2 * losses.CHUNK + 3])
def test_chunked_cross_entropy_equals_optax(count):
    rng = np.random.default_rng(count)
    hidden = jnp.array(rng.standard_normal((count, 12)), jnp.float32)
    classes = jnp.array(rng.standard_normal((50, 12)), jnp.float32)
    targets = jnp.array(rng.integers(-1, 50, count))
    valid = targets >= 0

    def plain(hidden, classes):
        each = optax.softmax_cross_entropy_with_integer_labels(hidden @ classes.T, jnp.maximum(targets, 0))
        return 3 * jnp.where(valid, each, 0).sum() / valid.sum()

    def ours(hidden, classes):
        return 3 * losses.chunked_cross_entropy(hidden[None], classes, targets[None])[0].value

    want = jax.value_and_grad(plain, argnums=(0, 1))(hidden, classes)
    got = jax.value_and_grad(ours, argnums=(0, 1))(hidden, classes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)
    np.testing.assert_allclose(ours(hidden, classes), want[0], rtol=1e-6)
    accuracy = (((hidden @ classes.T).argmax(-1) == targets) & valid).sum() / valid.sum()
    np.testing.assert_allclose(
        losses.chunked_cross_entropy(hidden[None], classes, targets[None])[1].value, accuracy, rtol=1e-6
    )


@pytest.mark.parametrize("length", [5, losses.CHUNK, 2 * losses.CHUNK + 3])
def test_target_log_probabilities_equal_log_softmax(length):
    """Over several chunks, some of which begin without a target."""
    rng = np.random.default_rng(length)
    hidden, classes = (jnp.array(rng.standard_normal(shape), jnp.float32) for shape in ((3, length, 8), (30, 8)))
    targets = jnp.array(rng.integers(0, 30, (3, length))).at[:, ::2].set(-1)
    want = jnp.take_along_axis(jax.nn.log_softmax(hidden @ classes.T), jnp.maximum(targets, 0)[..., None], axis=2)[
        ..., 0
    ]
    got = losses.target_log_probabilities(hidden, classes, targets)
    np.testing.assert_allclose(got, jnp.where(targets >= 0, want, 0), rtol=1e-4, atol=1e-5)


def test_no_target_at_all_is_zero_with_zero_gradient():
    def loss(hidden):
        return losses.chunked_cross_entropy(hidden[None], jnp.ones((5, 4)), jnp.full((1, 3), -1))[0].value

    gradient = jax.grad(loss)(jnp.ones((3, 4)))
    np.testing.assert_array_equal(gradient, 0)
