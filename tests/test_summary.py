"""A window's summary, and noise on its features, against plain loops over windows."""

import collections
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import get_window

from neurolm_jax.models.config import SUMMARY_READS, SummaryConfig
from neurolm_jax.models.connectivity import PAIR_DEVIATION, SHRINKAGE, SINGLE_DEVIATION
from neurolm_jax.models.readings import BANDS, window_noise
from neurolm_jax.models.summary import WindowSummary

WIDTH, RANK, OUT, FILTERS = 5, 7, 3, 4
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


def summary(*reads):
    """A summary that has learnt something, its parameters, features and rows of EEG."""
    draw = np.random.default_rng(0)
    features = draw.standard_normal((len(ROWS), LENGTH, WIDTH)).astype(np.float32)
    eeg = packed() | {"patches": draw.standard_normal((len(ROWS), LENGTH, 200)).astype(np.float32)}
    module = WindowSummary(SummaryConfig(reads, RANK, FILTERS, noise=0.5, seconds=8), OUT, channels=10)
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), features, eeg))["params"]
    for number, reading in enumerate(params.values()):
        up = reading["output"]["up"]
        reading["output"]["up"] = jax.random.normal(jax.random.key(number), up.shape)
    return module, params, features, eeg


def windows(eeg):
    """(row, number of the segment, electrodes, [S, C] places of its tokens) of each window."""
    for row, segments in enumerate(ROWS):
        for number, (electrodes, seconds) in enumerate(segments, start=1):
            places = np.flatnonzero(eeg["segment"][row] == number).reshape(seconds, len(electrodes))
            yield row, number, list(electrodes), places


def by_features(params, features, eeg):
    """A table of weights for every electrode and feature, made whole."""
    factors, up = params["of_features"]["factors"], params["of_features"]["output"]["up"]
    tables = np.einsum("fr,cr,rw->cfw", factors["down"], factors["gain"], up)
    for row, number, electrodes, places in windows(eeg):
        means = features[row, places].mean(0)  # [C, F]
        yield row, number, sum(x @ tables[e] for x, e in zip(means, electrodes)) / np.sqrt(len(electrodes))


def by_spectrum(params, features, eeg):
    """A table of weights for every electrode and frequency, made whole, and for the window's level beside them."""
    factors, up = params["of_spectrum"]["factors"], params["of_spectrum"]["output"]["up"]
    tables = np.einsum("fr,cr,rw->cfw", factors["down"], factors["gain"], up)
    for row, number, electrodes, places in windows(eeg):
        samples = eeg["patches"][row, places].astype(np.float64)
        samples = (samples - samples.mean(-1, keepdims=True)) * get_window("hann", 200, fftbins=False)
        power = np.log(np.abs(np.fft.rfft(samples))[..., 1:46] ** 2 * np.arange(1, 46) ** 2 + 1e-4)  # [S, C, 45]
        read = np.append(power.mean(0) - power.mean(), np.full((len(electrodes), 1), power.mean()), axis=-1)
        yield row, number, sum(x @ tables[e] for x, e in zip(read, electrodes)) / np.sqrt(len(electrodes))


def by_rhythms(params, features, eeg):
    """Filter the samples themselves, then take the power of each band."""
    filters, up = np.asarray(params["of_rhythms"]["filters"], np.float64), params["of_rhythms"]["output"]["up"]
    for row, number, electrodes, places in windows(eeg):
        weights = filters[electrodes] / np.linalg.norm(filters[electrodes], axis=0)
        samples = np.einsum("sct,ck->kst", eeg["patches"][row, places].astype(np.float64), weights)
        samples = (samples - samples.mean(-1, keepdims=True)) * get_window("hann", 200, fftbins=False)
        power = np.abs(np.fft.rfft(samples)) ** 2 * np.arange(101) ** 2  # a bin is 1 Hz
        read = []
        for low, high in zip(BANDS, BANDS[1:]):
            last = high + (high == BANDS[-1])
            read.append(np.log(power[:, :, low:last].mean((1, 2)) + 1e-4))
        read = np.stack(read, -1).ravel()
        yield row, number, (read - read.mean()) / read.std() / np.sqrt(FILTERS) @ np.asarray(up)


def by_waveform(params, features, eeg):
    """A weight for every electrode, second and tenth of a second, made whole."""
    part = params["of_waveform"]
    factors, up = part["factors"], part["output"]["up"]
    tables = np.einsum("fr,cr,sr,rw->scfw", factors["down"], factors["gain"], part["time"], up)
    for row, number, electrodes, places in windows(eeg):
        samples = eeg["patches"][row, places]
        samples = (samples - samples.mean()) / samples.std(ddof=1)
        tenths = samples.reshape(*places.shape, 10, 20).mean(-1)  # [S, C, 10]
        read = np.einsum("scf,scfw->w", tenths, tables[: len(places)][:, electrodes])
        yield row, number, read / np.sqrt(places.size)


def given_others(covariance, chosen):
    """The covariance of some electrodes that is left when all others are known (a Schur complement)."""
    others = [i for i in range(len(covariance)) if i not in chosen]
    between = covariance[np.ix_(chosen, others)]
    known = between @ np.linalg.solve(covariance[np.ix_(others, others)], between.T)
    return covariance[np.ix_(chosen, chosen)] - known


def by_connectivity(params, features, eeg):
    """Pair by pair, what is left of their covariance when the other electrodes are known."""
    part = params["of_connectivity"]
    left, right, gain, up = (np.asarray(x) for x in (part["left"], part["right"], part["gain"], part["output"]["up"]))
    for row, number, electrodes, places in windows(eeg):
        samples = eeg["patches"][row, places].astype(np.float64)
        samples = (samples - samples.mean(-1, keepdims=True)) * get_window("hann", 200, fftbins=False)
        bins = np.fft.rfft(samples)[..., 1:46].swapaxes(0, 1).reshape(len(electrodes), -1)
        covariance = (bins @ bins.conj().T).real
        covariance = covariance / np.diag(covariance).mean() + SHRINKAGE * np.eye(len(electrodes))
        read = np.zeros(len(left[0]))
        for i, one in enumerate(electrodes):
            read += np.log(given_others(covariance, [i])[0, 0]) / SINGLE_DEVIATION * gain[one]
            for j, two in enumerate(electrodes):
                if i != j:
                    of_pair = given_others(covariance, [i, j])
                    partial = of_pair[0, 1] / np.sqrt(of_pair[0, 0] * of_pair[1, 1])
                    read += np.arctanh(0.99 * partial) / PAIR_DEVIATION * left[one] * right[two]
        yield row, number, read / len(electrodes) @ up


LOOPS = {
    "features": by_features,
    "spectrum": by_spectrum,
    "rhythms": by_rhythms,
    "connectivity": by_connectivity,
    "waveform": by_waveform,
}


@pytest.mark.parametrize("reads", [*((read,) for read in SUMMARY_READS), SUMMARY_READS])
def test_each_reading_equals_a_loop_over_windows(reads):
    module, params, features, eeg = summary(*reads)
    found = np.asarray(jax.jit(module.apply)({"params": params}, features, eeg))
    want = np.zeros_like(found)
    for name in reads:
        for row, number, values in LOOPS[name](params, features, eeg):
            want[row, number] += values
    np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("read", SUMMARY_READS)
def test_a_window_is_read_alike_wherever_it_lies_and_gradients_are_finite(read):
    """Alone in a row, and with padding of another kind."""
    module, params, features, eeg = summary(read)
    apply = jax.jit(module.apply)
    whole = apply({"params": params}, features, eeg)
    for row, number, _, places in windows(eeg):
        here = places.ravel()
        alone = {key: jnp.asarray(value[row : row + 1, here]) for key, value in eeg.items()}
        alone["segment"] = jnp.ones_like(alone["segment"])
        got = apply({"params": params}, features[row : row + 1, here], alone)
        np.testing.assert_allclose(got[0, 1], whole[row, number], rtol=1e-4, atol=1e-5)
    flat = eeg | {"patches": np.zeros_like(eeg["patches"])}  # a recording that says nothing
    gradients = jax.jit(jax.grad(lambda p: jnp.square(apply({"params": p}, features, flat)).sum()))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_a_summary_says_nothing_before_it_is_trained():
    module, _, features, eeg = summary(*SUMMARY_READS)
    fresh = module.init(jax.random.key(0), features, eeg)
    assert not module.apply(fresh, features, eeg).any()


def test_all_but_features_are_read_through_noise_in_training_alone():
    for read in SUMMARY_READS:
        module, params, features, eeg = summary(read)
        rngs = [{"noise": jax.random.key(seed)} for seed in (1, 2)]
        apply = jax.jit(module.apply, static_argnums=3)
        draw = [apply({"params": params}, features, eeg, False, rngs=noise) for noise in rngs]
        still = apply({"params": params}, features, eeg, True)
        assert bool((draw[0] != draw[1]).any()) == bool((draw[0] != still).any()) == (read != "features")
        there = np.asarray(eeg["segment"]).max(1)
        for row, last in enumerate(there):  # and places without a window stay silent
            assert not np.asarray(draw[0][row, last + 1 :]).any() and not np.asarray(draw[0][row, 0]).any()


def test_readings_are_left_out_window_by_window_and_each_by_itself():
    """In training, what is left is doubled: the mean over draws is the whole."""
    module, params, features, eeg = summary("features", "waveform")
    config = dataclasses.replace(module.config, dropout=0.5, noise=0.0)
    draw = jax.jit(
        lambda key: module.clone(config=config).apply({"params": params}, features, eeg, False, rngs={"noise": key})
    )
    parts = [
        np.asarray(module.clone(config=dataclasses.replace(config, reads=(read,))).apply(
            {"params": {f"of_{read}": params[f"of_{read}"]}}, features, eeg
        ))
        for read in config.reads
    ]  # fmt: skip
    kinds = collections.Counter()
    for seed in range(20):
        drawn = np.asarray(draw(jax.random.key(seed)))
        for row, number, _, _ in windows(eeg):
            options = {(a, b): 2 * (a * parts[0] + b * parts[1])[row, number] for a in (0, 1) for b in (0, 1)}
            [kind] = [kind for kind, value in options.items() if np.allclose(drawn[row, number], value, atol=1e-4)]
            kinds[kind] += 1
    assert len(kinds) == 4 and min(kinds.values()) > 8 and sum(kinds.values()) == 80


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
    rows = (np.tile(ids[key][:1], (64, 1)) for key in ("segment", "second"))
    many = np.asarray(window_noise(jax.random.key(1), jnp.zeros((64, LENGTH, 64)), *rows))
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02
