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


@pytest.mark.parametrize("probability", [0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("dtype, tolerance", [(jnp.bfloat16, 2**-8), (jnp.float32, 1e-3)])
def test_gradients_are_right_where_the_target_is_likely(probability, dtype, tolerance):
    """Against float64, of what the rounded inputs say. In bfloat16 the difference of two rounded terms was off by 1.4%
    at a probability of 0.9, by 15% at 0.99 and by 94% at 0.999."""
    rng = np.random.default_rng(0)
    hidden = jnp.array(rng.standard_normal((1, 4, 32)), dtype)
    classes = np.array(rng.standard_normal((50, 32)), np.float64)
    targets = np.array([3, 17, 30, 49])
    # The target's row moves along the hidden state until it has the probability.
    h = np.array(hidden[0].astype(jnp.float32), np.float64)
    for _ in range(20):
        logits = h @ classes.T
        others = np.log(np.exp(logits).sum(1) - np.exp(logits[range(4), targets]))
        want = others + np.log(probability / (1 - probability))
        for row, target in enumerate(targets):
            classes[target] += (want - logits[range(4), targets])[row] * h[row] / (h[row] @ h[row])
    classes = jnp.array(classes, dtype)

    rounded = np.array(classes.astype(jnp.float32), np.float64)
    logits = h @ rounded.T
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    np.testing.assert_allclose(1 - shares[range(4), targets], 1 - probability, rtol=0.5)
    difference = shares - np.eye(50)[targets]

    def loss(hidden, classes):
        return losses.chunked_cross_entropy(hidden, classes, jnp.array(targets)[None])[0].sum

    of_hidden, of_classes = jax.grad(loss, (0, 1))(hidden, classes)
    for ours, theirs in ((of_hidden[0], difference @ rounded), (of_classes, difference.T @ h)):
        ours = np.array(ours.astype(jnp.float32), np.float64)
        error = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
        rows = targets if len(ours) == 50 else range(4)
        assert error[rows].max() < tolerance, (probability, error[rows])


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
