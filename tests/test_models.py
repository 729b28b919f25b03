"""What must never matter, for the default models."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurolm_jax.models.config import EncoderConfig, TokenizerConfig
from neurolm_jax.models.neurolm import next_second_targets
from neurolm_jax.models.tokenizer import (
    Tokenizer,
    create_tokenizer_state,
    log_power,
    reconstruction_targets,
    reverse_gradient,
    standard_log_power,
)
from neurolm_jax.stages.tokenizer import learn, statistics_moments, tokenizer_terms, update_statistics

CONFIG = TokenizerConfig(
    EncoderConfig(layers=2, heads=2, width=16),
    decoder_layers=1,
    codes=12,
    code_width=8,
    spectrum_target="log_power",
    spectrum_head=True,
)
LENGTH = 32


def row_of(*samples, length=LENGTH):
    """One row [1, length] of samples (patches [S * C, 200], channels)."""
    row = {"patches": np.zeros((1, length, 200), np.float32)}
    row |= {key: np.zeros((1, length), np.int32) for key in ("channel", "second", "segment")}
    place = 0
    for number, (patches, channels) in enumerate(samples, start=1):
        here = slice(place, place + len(patches))
        row["patches"][0, here] = patches
        row["channel"][0, here] = np.resize(channels, len(patches))
        row["second"][0, here] = np.arange(len(patches)) // len(channels)
        row["segment"][0, here] = number
        place = here.stop
    return row


def sample(seed, channels, seconds):
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.standard_normal())
    return scale * rng.standard_normal((channels * seconds, 200)).astype(np.float32), rng.permutation(139)[:channels]


@pytest.fixture(scope="module")
def encode():
    row = row_of()
    ids = row["channel"], row["second"], row["segment"]
    params = nn.unbox(jax.jit(Tokenizer(CONFIG).init)(jax.random.key(0), row["patches"], *ids))["params"]
    params = jax.tree.map(lambda x: 3 * x if x.ndim > 1 else x, params)
    run = jax.jit(lambda row: Tokenizer(CONFIG).apply(
        {"params": params}, row["patches"], row["channel"], row["second"], row["segment"], method="encode"
    ))  # fmt: skip
    return params, lambda *samples: np.asarray(run(row_of(*samples)).features[0])


shapes = st.tuples(st.integers(0, 99), st.integers(1, 4), st.integers(1, 4))


@settings(deadline=None, max_examples=20)
@given(shapes, shapes)
def test_packing_and_company_do_not_matter(encode, first, second):
    _, features = encode
    a, b = sample(*first), sample(*second)
    count = len(a[0])
    alone, together = features(a), features(a, b)
    np.testing.assert_allclose(together[:count], alone[:count], atol=1e-5)
    np.testing.assert_allclose(together[count : count + len(b[0])], features(b)[: len(b[0])], atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.integers(1, 3))
def test_the_future_does_not_matter(encode, seed, known):
    _, features = encode
    patches, channels = sample(seed, 3, 4)
    other = patches.copy()
    other[known * 3 :] *= -2
    a, b = features((patches, channels)), features((other, channels))
    np.testing.assert_allclose(a[: known * 3], b[: known * 3], atol=1e-6)
    assert np.abs(a[known * 3 : 12] - b[known * 3 : 12]).max() > 1e-2


def test_order_of_channels_permutes_the_outputs(encode):
    _, features = encode
    patches, channels = sample(0, 4, 3)
    order = np.array([2, 0, 3, 1])
    permuted = patches.reshape(3, 4, 200)[:, order].reshape(12, 200)
    want = features((patches, channels))[:12].reshape(3, 4, -1)[:, order]
    np.testing.assert_allclose(features((permuted, channels[order]))[:12].reshape(3, 4, -1), want, atol=1e-5)


def test_amplitude_and_constant_are_seen_through_the_norm(encode):
    _, features = encode
    patches, channels = sample(1, 1, 1)
    plain = features((patches, channels))[0]
    assert np.abs(features((3 * patches, channels))[0] - plain).max() > 1e-2
    assert np.abs(features((patches + 0.3, channels))[0] - plain).max() > 1e-2


KINDS = ["flat", "constant", "one flat channel", "one channel", "128 channels", "one second", "empty"]


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_finite(encode, kind):
    params, _ = encode
    patches, channels = sample(2, 1 if kind == "one channel" else 4, 1 if kind == "one second" else 3)
    if kind == "flat":
        patches[:] = 0
    if kind == "constant":
        patches[:] = 0.5
    if kind == "one flat channel":
        patches[::4] = 0
    if kind == "128 channels":
        row = row_of(sample(2, 128, 2), length=256)
    else:
        row = row_of() if kind == "empty" else row_of((patches, channels))
    for leaf in jax.tree.leaves(training_step(params, row)):
        assert np.isfinite(leaf).all()


@jax.jit
def training_step(params, row):
    """Loss, its terms, all gradients, and the state after the step."""
    state = create_tokenizer_state(CONFIG, jax.random.key(1))
    text = jnp.zeros((1, 4, 16))

    def loss(params):
        terms = tokenizer_terms(CONFIG, params, state, row, text, jnp.ones(()))
        return sum(term.value for term in terms.losses.values()), terms

    (total, terms), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return total, terms, gradients, learn(CONFIG, state, terms.observed, jax.random.key(2))


def test_targets_are_z_scores_of_each_segment():
    a, b = sample(3, 2, 3), sample(4, 1, 5)
    row = row_of(a, b)
    official = dataclasses.replace(CONFIG, spectrum_target="amplitude")
    state = create_tokenizer_state(CONFIG, jax.random.key(0))
    spectra, raw = reconstruction_targets(official, state, jnp.array(row["patches"]), jnp.array(row["segment"]))
    place = 0
    for patches, _ in (a, b):
        here = slice(place, place + len(patches))
        amplitude = np.abs(np.fft.fft(patches.astype(np.float64), axis=-1))
        want = (amplitude - amplitude.mean()) / amplitude.std(ddof=1)
        np.testing.assert_allclose(spectra[0, here], want[:, :100], atol=1e-4)
        np.testing.assert_allclose(raw[0, here], (patches - patches.mean()) / patches.std(ddof=1), atol=1e-4)
        place = here.stop


def test_log_power_is_that_of_a_windowed_periodogram():
    """Against SciPy's; and a sine of a known amplitude."""
    from scipy.signal import periodogram

    patches, _ = sample(5, 3, 2)
    _, density = periodogram(patches, fs=200, window=np.hanning(200), detrend="constant", scaling="density")
    power = density[:, 1:101] * 200 * np.square(np.hanning(200)).sum()
    power[:, :99] /= 2  # one side stands for two, but at the Nyquist frequency
    np.testing.assert_allclose(log_power(jnp.array(patches)), np.log(power + 1e-4), rtol=1e-4, atol=1e-4)
    sine = np.float32(0.3 * np.sin(2 * np.pi * 10 * np.arange(200) / 200))
    np.testing.assert_allclose(np.argmax(log_power(jnp.array(sine))), 10 - 1)
    np.testing.assert_allclose(np.max(log_power(jnp.array(sine))), np.log((0.3 * 200 / 4) ** 2), rtol=0.01)


def test_statistics_of_a_bin_that_holds_nothing_stay_finite():
    """A constant far from zero, whose variance comes out below zero by rounding."""
    state = create_tokenizer_state(CONFIG, jax.random.key(0))
    features, power = jnp.zeros((4, 64, 16)), jnp.full((4, 64, 100), -9.210321)
    valid = jnp.ones((4, 64), bool)
    moments = statistics_moments(state, features, power, valid)
    state = update_statistics(state, moments, valid.sum(), decay=0.0)
    assert state.spectrum_variance.min() >= 0
    assert abs(standard_log_power(state, jnp.zeros((3, 200)))).max() < 0.01


def test_codes_are_for_the_form_of_a_spectrum_and_features_for_its_level_too():
    """Twice the amplitude is log 4 more power in every bin, in units of the corpus's deviation."""
    patches, _ = sample(6, 2, 3)
    segment = jnp.ones((1, len(patches)), jnp.int32)
    state = create_tokenizer_state(CONFIG, jax.random.key(0))
    state = state._replace(spectrum_mean=jnp.full(100, 2.0), spectrum_variance=jnp.full(100, 4.0))
    ours, _ = reconstruction_targets(CONFIG, state, jnp.array(patches)[None], segment)
    louder, _ = reconstruction_targets(CONFIG, state, 2 * jnp.array(patches)[None], segment)
    power = (np.asarray(log_power(jnp.array(patches)))[:, :45] - 2) / np.sqrt(4 + 0.05)
    found = standard_log_power(state, jnp.array(patches))
    np.testing.assert_allclose(found[:, :45], power, atol=1e-5)
    assert not found[:, 45:].any() and not ours[..., 45:].any()  # above 45 Hz
    twice = standard_log_power(state, 2 * jnp.array(patches))[:, :45]
    np.testing.assert_allclose(twice - power, np.log(4) / np.sqrt(4.05), atol=0.02)
    np.testing.assert_allclose(ours[0, :, :45], power - power.mean(-1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(louder, ours, atol=0.02)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=3))
def test_targets_of_autoregression_equal_a_plain_loop(shapes):
    shapes = [s for i, s in enumerate(shapes) if sum(c * t for c, t in shapes[: i + 1]) <= LENGTH]
    row = row_of(*(sample(i, *shape) for i, shape in enumerate(shapes)))
    codes = np.random.default_rng(0).integers(0, 99, (1, LENGTH))
    got = np.asarray(next_second_targets(jnp.array(codes), jnp.array(row["segment"]), jnp.array(row["second"])))[0]
    want, place = np.full(LENGTH, -1), 0
    for channels, seconds in shapes:
        for t in range(seconds - 1):
            for c in range(channels):
                want[place + t * channels + c] = codes[0, place + (t + 1) * channels + c]
        place += channels * seconds
    np.testing.assert_array_equal(got, want)


def test_gradient_reversal():
    value, gradient = jax.value_and_grad(lambda x: (reverse_gradient(x, jnp.float32(0.5)) ** 2).sum())(jnp.ones(3))
    assert value == 3
    np.testing.assert_array_equal(gradient, -1.0)
