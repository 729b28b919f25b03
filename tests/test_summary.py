"""A window's summary, and noise on its features, against plain loops."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurolm_jax.models.summary import WindowSummary, window_noise

WIDTH, RANK, OUT = 5, 7, 3
# Electrodes and seconds of the segments of each of two rows, which are padded to 24 tokens.
ROWS = [[((4, 9, 2), 3), ((7,), 5), ((1, 3), 2)], [((0, 5, 6, 8), 6)]]
LENGTH = 24


def packed():
    ids = {key: np.zeros((len(ROWS), LENGTH), np.int32) for key in ("channel", "second", "segment")}
    for row, segments in enumerate(ROWS):
        place = 0
        for number, (electrodes, seconds) in enumerate(segments, start=1):
            here = slice(place, place := place + len(electrodes) * seconds)
            ids["channel"][row, here] = np.tile(electrodes, seconds)
            ids["second"][row, here] = np.repeat(np.arange(seconds), len(electrodes))
            ids["segment"][row, here] = number
    return ids


@pytest.fixture(scope="module")
def summary():
    ids = packed()
    features = np.random.default_rng(0).standard_normal((len(ROWS), LENGTH, WIDTH)).astype(np.float32)
    module = WindowSummary(RANK, OUT, channels=10)
    params = nn.unbox(module.init(jax.random.key(0), features, ids["channel"], ids["second"], ids["segment"]))["params"]
    params["up"] = jax.random.normal(jax.random.key(1), params["up"].shape)
    return module, params, features, ids


def test_summary_is_a_weighted_mean_of_each_electrode(summary):
    """A table of weights for every electrode and feature, made whole, under a loop over windows."""
    module, params, features, ids = summary
    found = module.apply({"params": params}, features, ids["channel"], ids["second"], ids["segment"])
    tables = jnp.einsum("fr,cr,rw->cfw", *(params[name] for name in ("down", "gain", "up")))
    for row, segments in enumerate(ROWS):
        for number, (electrodes, _) in enumerate(segments, start=1):
            want = 0
            for electrode in electrodes:
                tokens = (ids["segment"][row] == number) & (ids["channel"][row] == electrode)
                want += features[row, tokens].mean(0) @ np.asarray(tables[electrode])
            np.testing.assert_allclose(found[row, number], want / np.sqrt(len(electrodes)), rtol=1e-4, atol=1e-5)
        assert not np.asarray(found[row, len(segments) + 1 :]).any() and not np.asarray(found[row, 0]).any()


def test_summary_says_nothing_before_it_is_trained(summary):
    module, params, features, ids = summary
    fresh = params | {"up": jnp.zeros_like(params["up"])}
    assert not module.apply({"params": fresh}, features, ids["channel"], ids["second"], ids["segment"]).any()


def test_noise_is_the_same_in_all_seconds_of_an_electrode_and_of_no_other():
    ids = packed()
    like = jnp.zeros((len(ROWS), LENGTH, WIDTH))
    noise = np.asarray(window_noise(jax.random.key(0), like, ids["segment"], ids["second"]))
    seen = {}
    for row, place in zip(*np.nonzero(ids["segment"])):
        seen.setdefault((row, ids["segment"][row, place], ids["channel"][row, place]), []).append(noise[row, place])
    for values in seen.values():
        np.testing.assert_array_equal(values, np.tile(values[0], (len(values), 1)))
    firsts = np.array([values[0] for values in seen.values()])
    assert len(np.unique(firsts[:, 0])) == len(seen)
    many = np.asarray(window_noise(jax.random.key(1), jnp.zeros((64, LENGTH, 64)), *(
        np.tile(ids[key][:1], (64, 1)) for key in ("segment", "second")
    )))  # fmt: skip
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02
