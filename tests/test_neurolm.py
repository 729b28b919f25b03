"""What must never matter, for the language model over the encoder's features; and how far the released models leak."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models import row_of, sample

from neurolm_jax.models.attention import staircase
from neurolm_jax.models.config import EncoderConfig, LanguageModelConfig, NeuroLMConfig, TokenizerConfig
from neurolm_jax.models.neurolm import NeuroLM
from neurolm_jax.models.tokenizer import Tokenizer

TOKENIZER = TokenizerConfig(EncoderConfig(layers=2, heads=2, width=16), decoder_layers=1, codes=12, code_width=8)
OFFICIAL = dataclasses.replace(
    TOKENIZER, encoder=dataclasses.replace(TOKENIZER.encoder, patch_norm="row", causal=False)
)
LANGUAGE = LanguageModelConfig(layers=2, heads=2, width=24, vocabulary=40, codes=12, positions=64)
NEUROLM = NeuroLMConfig(LANGUAGE, encoder_width=16, feature_norm=False)


class Stage2:
    """Encoder and language model with large random weights, so that what is seen shows."""

    def __init__(self, tokenizer):
        row = row_of()
        ids = row["channel"], row["second"], row["segment"]
        encoder = Tokenizer(tokenizer)
        features = jnp.zeros((1, 1, 16))
        rows = jnp.zeros((1, 1), jnp.int32)
        made = (
            encoder.init(jax.random.key(0), row["patches"], *ids),
            NeuroLM(NEUROLM).init(jax.random.key(1), features, rows, rows, rows),
        )
        enc, lm = jax.tree.map(lambda x: 3 * x if x.ndim > 1 else x, nn.unbox(made))

        def run(row):
            ids = row["channel"], row["second"], row["segment"]
            features = encoder.apply(enc, row["patches"], *ids, method="encode").features
            seen = staircase(row["segment"], row["second"])
            return NeuroLM(NEUROLM).apply(lm, features, *ids[:2], seen, method="eeg_hidden")

        self._run = jax.jit(run)

    def hidden(self, *samples):
        """Of one row of samples: [T, W]."""
        return np.asarray(self._run(row_of(*samples))[0])

    def batch(self, rows):
        return np.asarray(self._run(jax.tree.map(lambda *x: np.concatenate(x), *rows)))


@pytest.fixture(scope="module")
def model():
    return Stage2(TOKENIZER)


shapes = st.tuples(st.integers(0, 99), st.integers(1, 4), st.integers(1, 4))


@settings(deadline=None, max_examples=20)
@given(shapes, shapes)
def test_packing_does_not_matter(model, first, second):
    a, b = sample(*first), sample(*second)
    count = len(a[0])
    together = model.hidden(a, b)
    np.testing.assert_allclose(together[:count], model.hidden(a)[:count], atol=1e-5)
    np.testing.assert_allclose(together[count : count + len(b[0])], model.hidden(b)[: len(b[0])], atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(shapes, st.lists(shapes, min_size=1, max_size=2), st.integers(0, 2))
def test_company_does_not_matter(model, own, others, place):
    rows = [row_of(sample(*other)) for other in others]
    place = min(place, len(rows))
    rows.insert(place, row_of(sample(*own)))
    rows = (rows + [row_of()] * 2)[:3]  # one shape, compiled once
    count = own[1] * own[2]
    np.testing.assert_allclose(model.batch(rows)[place, :count], model.hidden(sample(*own))[:count], atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(shapes, st.randoms(use_true_random=False))
def test_order_of_channels_permutes_the_outputs(model, shape, random):
    patches, channels = sample(*shape)
    _, count, seconds = shape
    order = random.sample(range(count), count)
    permuted = patches.reshape(seconds, count, 200)[:, order].reshape(-1, 200)
    want = model.hidden((patches, channels))[: count * seconds].reshape(seconds, count, -1)[:, order]
    got = model.hidden((permuted, channels[order]))[: count * seconds].reshape(seconds, count, -1)
    np.testing.assert_allclose(got, want, atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 3))
def test_the_future_does_not_matter_through_the_encoder(model, seed, channels, known):
    patches, ids = sample(seed, channels, 4)
    other = patches.copy()
    other[known * channels :] *= -2
    a, b = model.hidden((patches, ids)), model.hidden((other, ids))
    np.testing.assert_allclose(a[: known * channels], b[: known * channels], atol=1e-6)
    assert np.abs(a - b)[known * channels : 4 * channels].max() > 1e-2


def test_the_official_encoder_leaks_the_future():
    """Changing the last of four seconds moves stage 2's outputs at the first by a fifth of their size: the target, the
    code of the next second, is partly in the input."""
    model = Stage2(OFFICIAL)
    patches, ids = sample(0, 3, 4)
    other = patches.copy()
    other[9:] *= -2
    a, b = model.hidden((patches, ids))[:3], model.hidden((other, ids))[:3]
    assert 0.15 < np.linalg.norm(a - b) / np.linalg.norm(a) < 0.25


@pytest.mark.parametrize("longer", [1, 7, 40])
def test_padding_does_not_matter(model, longer):
    row = row_of(sample(0, 3, 4), sample(1, 2, 5))
    padded = {key: np.pad(x, ((0, 0), (0, longer), *((0, 0),) * (x.ndim - 2))) for key, x in row.items()}
    np.testing.assert_allclose(model.batch([padded])[:, :22], model.batch([row])[:, :22], atol=1e-5)
