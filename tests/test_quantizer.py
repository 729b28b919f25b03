import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from neurolm_jax.models import quantizer
from neurolm_jax.models.losses import masked_mean
from neurolm_jax.models.quantizer import Codebook


def unit(rng, *shape):
    x = rng.standard_normal(shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def setting(seed=0, count=40, codes=8, width=5):
    rng = np.random.default_rng(seed)
    book = Codebook(jnp.array(unit(rng, codes, width)), jnp.array(rng.random(codes) + 1, jnp.float32), jnp.array(True))
    return book, jnp.array(unit(rng, count, width)), jnp.array(rng.random(count) < 0.8)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000))
def test_nearest_and_update_equal_a_plain_loop(seed):
    book, z, valid = setting(seed)
    codes = quantizer.nearest(book.vectors, z)
    for i, code in enumerate(codes):
        distances = np.square(np.asarray(book.vectors) - np.asarray(z[i])).sum(1)
        assert distances[code] <= distances.min() + 1e-6
    after, revived = quantizer.update(book, z, codes, valid, jax.random.key(0), decay=0.9, dead_below=0.0)
    assert revived == 0
    for k in range(8):
        chosen = np.asarray(z)[(np.asarray(codes) == k) & np.asarray(valid)]
        mean = chosen.sum(0) / np.linalg.norm(chosen.sum(0)) if len(chosen) else book.vectors[k]
        want = 0.9 * book.vectors[k] + 0.1 * mean
        np.testing.assert_allclose(after.vectors[k], want / np.linalg.norm(want), atol=1e-5)
        np.testing.assert_allclose(after.usage[k], 0.9 * book.usage[k] + 0.1 * len(chosen), rtol=1e-5)


def test_invalid_vectors_change_nothing():
    book, z, valid = setting()
    other = jnp.where(valid[:, None], z, -z)

    def after(x):
        codes = quantizer.nearest(book.vectors, x)
        return quantizer.update(book, x, codes, valid, jax.random.key(1), decay=0.9, dead_below=0.5)

    jax.tree.map(np.testing.assert_array_equal, after(z), after(other))
    commitment = [masked_mean(quantizer.quantize(book.vectors, x)[2], valid).value for x in (z, other)]
    assert commitment[0] == commitment[1] > 0


def test_dead_codes_become_vectors_of_the_batch_with_fresh_usage():
    book, z, valid = setting()
    book = book._replace(usage=book.usage.at[2].set(0.0))
    codes = jnp.where(quantizer.nearest(book.vectors, z) == 2, 3, quantizer.nearest(book.vectors, z))
    after, revived = quantizer.update(book, z, codes, valid, jax.random.key(0), decay=0.9, dead_below=0.05)
    assert revived == 1
    assert (np.abs(np.asarray(z)[np.asarray(valid)] - np.asarray(after.vectors[2])).sum(1) == 0).any()
    usage = 0.9 * book.usage + 0.1 * quantizer.count_codes(codes, valid, 8)
    np.testing.assert_allclose(after.usage[2], usage.mean(), rtol=1e-6)


def test_kmeans_finds_planted_directions():
    rng = np.random.default_rng(0)
    centres = np.eye(4, dtype=np.float32)
    z = np.repeat(centres, 50, axis=0) + 0.05 * rng.standard_normal((200, 4)).astype(np.float32)
    z = quantizer.normalise(jnp.array(z))
    valid = jnp.arange(200) < 150  # the fourth direction is padding
    book = quantizer.kmeans(z, valid, jax.random.key(1), 16)
    assert book.initialised and book.usage.sum() == 150
    nearness = (np.asarray(book.vectors) @ centres.T).max(0)
    assert nearness[:3].min() > 0.99 and nearness[3] < 0.3


def test_straight_through_gradient():
    book, z, valid = setting()
    gradient = jax.grad(lambda z: (quantizer.quantize(book.vectors, z)[1] * 3).sum())(z)
    np.testing.assert_array_equal(gradient, 3)


def test_use_equals_scipy():
    counts = np.array([0, 3, 5, 0, 2])
    used, perplexity = quantizer.used_and_perplexity(jnp.array(counts))
    assert used == np.float32(0.6)
    np.testing.assert_allclose(perplexity, np.exp(entropy(counts)), rtol=1e-5)


def test_rank_is_the_participation_ratio_of_numpys_covariance():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((500, 6)) * [3, 3, 1, 0.1, 0, 0] + 5
    valid = rng.random(500) < 0.7
    halves = [
        quantizer.second_moments(jnp.array(z[part], jnp.float32), jnp.array(valid[part]))
        for part in np.split(np.arange(500), 2)
    ]
    values = np.linalg.eigvalsh(np.cov(z[valid].T))
    np.testing.assert_allclose(quantizer.rank(sum(halves)), values.sum() ** 2 / np.square(values).sum(), rtol=1e-3)
    assert quantizer.rank(quantizer.second_moments(jnp.ones((9, 4)), jnp.ones(9, bool))) < 1e-6
    assert quantizer.rank(jnp.zeros((5, 5))) == 0


def test_zero_vector_is_finite():
    value, gradient = jax.value_and_grad(lambda x: quantizer.normalise(x).sum())(jnp.zeros(3))
    assert value == 0 and np.isfinite(gradient).all()
