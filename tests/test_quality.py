import numpy as np
import pytest

from neurolm_jax.eeg import quality

RATE = 256


@pytest.fixture
def x():
    return 30 * np.random.default_rng(0).standard_normal((4, 20 * RATE))


def bad(x):
    return quality.bad_seconds(x, RATE, x.shape[1] // RATE, np.nanmin(x, axis=1), np.nanmax(x, axis=1))


def test_noise_is_good(x):
    assert not any(flags.any() for flags in bad(x).values())


def test_planted_faults_are_found_where_they_are(x):
    x[0, 5 * RATE + 9] = np.nan
    x[1, 7 * RATE : 9 * RATE] = 3.25
    x[2] = np.clip(x[2], None, 60)
    x[2, 12 * RATE : 12 * RATE + 30] = 60
    found = bad(x)
    assert np.argwhere(found["missing"]).tolist() == [[0, 5]]
    assert np.argwhere(found["flat"]).tolist() == [[1, 7], [1, 8]]
    assert [2, 12] in np.argwhere(found["clipped"]).tolist()
    assert set(np.argwhere(found["clipped"])[:, 0]) == {2}


def test_huge_seconds():
    y = np.zeros((2, 650))
    y[1, 399] = -3001
    np.testing.assert_array_equal(quality.huge_seconds(y, 200), [[False] * 3, [False, True, False]])


def test_gaps_are_filled_with_lines():
    x = np.array([[0.0, np.nan, np.nan, 3.0, np.inf], [1.0, 1, 1, 1, 1]])
    np.testing.assert_array_equal(quality.fill_gaps(x), [[0, 1, 2, 3, 3], [1, 1, 1, 1, 1]])


@pytest.mark.parametrize("lag", [0, 1, 6, 64, -6])
def test_copies_are_found_at_any_lag(x, lag):
    x[3] = np.roll(x[1], -lag)
    assert quality.copies(x) == {3: (1, lag)}


def test_a_copy_through_another_amplifier_is_found(x):
    x[2] = np.round(x[0] / 0.01) * 0.01
    assert quality.copies(x) == {2: (0, 0)}


def test_correlated_channels_are_no_copies(x):
    x[1] = x[0] + 0.05 * x[1]
    assert quality.copies(x) == {}


def test_the_shifted_copies_of_a_published_set_are_found(recordings):
    from neurolm_jax.eeg.tasks.readers import read_ts

    trials, _ = read_ts(recordings / "SelfRegulationSCP1" / "SelfRegulationSCP1_TRAIN.ts")
    assert quality.copies(trials[0]) == {channel: (0, 6 * channel) for channel in range(1, 6)}


@pytest.mark.parametrize(("scale", "word"), [(1e-6, "below"), (1e6, "above"), (1, None), (0.1, None), (50, None)])
def test_wrong_units_are_told(scale, word):
    fault = quality.unit_fault(np.array([20.0, 40.0, 0.0]) * scale)
    assert fault is None if word is None else word in fault
