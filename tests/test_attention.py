import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from neurolm_jax.models.attention import Intervals, bidirectional, interval_attention, staircase

LENGTH = 3 * (3 * 3 + 3)  # the longest row


@st.composite
def rows(draw):
    """segment, second and is_text [T] of samples with EEG and text in one row, then padding."""
    segment, second, is_text = [], [], []
    for number in range(1, draw(st.integers(0, 3)) + 1):
        channels, seconds, words = (draw(st.integers(low, 3)) for low in (1, 1, 0))
        segment += [number] * (channels * seconds + words)
        second += [s for s in range(seconds) for _ in range(channels)] + list(range(seconds, seconds + words))
        is_text += [False] * (channels * seconds) + [True] * words
    padding = LENGTH - len(segment)
    return segment + [0] * padding, second + [0] * padding, is_text + [False] * padding


@settings(deadline=None, max_examples=60)
@given(rows())
def test_intervals_equal_a_plain_loop(row):
    segment, second, is_text = row
    length = len(segment)
    arrays = [jnp.array(x)[None] for x in row]
    stairs, whole = (Intervals(*map(np.asarray, x)) for x in (staircase(*arrays), bidirectional(arrays[0])))
    for q in range(length):
        for k in range(length):
            same = segment[q] == segment[k] > 0
            if is_text[q]:
                sees = same and k <= q
            else:
                sees = same and not is_text[k] and second[k] <= second[q]
            sees = sees or (segment[q] == 0 and q == k)
            assert bool(stairs.start[0, q] <= k < stairs.stop[0, q]) == sees
            assert bool(whole.start[0, q] <= k < whole.stop[0, q]) == (same or (segment[q] == 0 and q == k))
    for bound in (*stairs, *whole):
        assert (np.diff(bound[0]) >= 0).all()


def test_attention_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    query, key, value = rng.standard_normal((3, 1, 7, 2, 4)).astype(np.float32)
    segment, second = jnp.array([[1, 1, 1, 1, 2, 2, 0]]), jnp.array([[0, 0, 1, 1, 0, 1, 0]])
    intervals = staircase(segment, second)
    got = interval_attention(jnp.array(query), jnp.array(key), jnp.array(value), intervals)
    for q in range(7):
        keys = range(int(intervals.start[0, q]), int(intervals.stop[0, q]))
        for head in range(2):
            weights = np.exp([query[0, q, head] @ key[0, k, head] / 2 for k in keys])
            want = sum(w * value[0, k, head] for w, k in zip(weights, keys)) / weights.sum()
            np.testing.assert_allclose(got[0, q, head], want, rtol=1e-5, atol=1e-6)
    assert jax.tree.all(jax.tree.map(lambda x: bool(jnp.isfinite(x).all()), got))
