import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import sizes
from neurolm_jax.models.attention import Intervals, attend, bidirectional, interval_attention, staircase
from neurolm_jax.models.kernels import blockwise
from neurolm_jax.models.transformer import Stack, StackConfig

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


def packed(length, seed):
    """Intervals [2, T] of rows of samples with up to 19 channels, and text, without padding and with."""
    rng = np.random.default_rng(seed)
    segment, second, is_text = (np.zeros((2, length), int) for _ in range(3))
    for row in range(2):
        place = number = 0
        while place < length - (0, 60)[row]:
            number += 1
            channels, seconds, words = rng.integers(1, 20), rng.integers(1, 20), rng.integers(0, 30)
            samples = [(s, False) for s in range(seconds) for _ in range(channels)]
            samples += [(seconds + i, True) for i in range(words)]
            for sample in samples[: length - place]:
                second[row, place], is_text[row, place] = sample
                segment[row, place] = number
                place += 1
    segment, second, is_text = map(jnp.array, (segment, second, is_text > 0))
    return staircase(segment, second, is_text), bidirectional(segment)


def at_once(query, key, value, intervals):
    """Softmax over all scores, those outside the interval left out."""
    index = jnp.arange(key.shape[1])
    visible = (index >= intervals.start[:, None, :, None]) & (index < intervals.stop[:, None, :, None])
    scores = jnp.einsum("bqnh,bknh->bnqk", query, key) / np.sqrt(query.shape[-1])
    return jnp.einsum("bnqk,bknh->bqnh", jax.nn.softmax(scores, where=visible), value)


@pytest.mark.parametrize("device", ["cpu", "tpu", "gpu"])
@pytest.mark.parametrize("length", [130, 600])
def test_kernels_and_their_gradients_equal_attention_at_once(device, length):
    rng = np.random.default_rng(length)
    arrays = jnp.array(rng.standard_normal((4, 2, length, 2, 64)), jnp.float32)
    for intervals in packed(length, length):
        want, back = jax.vjp(lambda *qkv: at_once(*qkv, intervals), *arrays[:3])  # noqa: B023
        got, our_back = jax.vjp(lambda *qkv: attend(*qkv, *intervals, device, device != "cpu"), *arrays[:3])  # noqa: B023
        np.testing.assert_allclose(got, want, atol=1e-5)
        for ours, theirs in zip(our_back(arrays[3]), back(arrays[3])):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("device", ["tpu", "gpu"])
@pytest.mark.parametrize("width", [6, 24, 48])
def test_heads_of_any_width_equal_attention_at_once(device, width):
    """Widths that are no powers of two are padded inside of the kernels."""
    rng = np.random.default_rng(width)
    arrays = jnp.array(rng.standard_normal((4, 2, 130, 2, width)), jnp.float32)
    intervals, _ = packed(130, width)
    want, back = jax.vjp(lambda *qkv: at_once(*qkv, intervals), *arrays[:3])
    got, our_back = jax.vjp(lambda *qkv: attend(*qkv, *intervals, device, True), *arrays[:3])
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=1e-5)
    for ours, theirs in zip(our_back(arrays[3]), back(arrays[3])):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def shipped_widths():
    """Of the heads of every model in configs/sizes.py, and of the size that docs/sizes.md adds to it."""
    models = [read(size) for size in sizes.NAMES for read in (sizes.language, lambda s: sizes.tokenizer(s).encoder)]
    return sorted({model.width // model.heads for model in models} | {384 // 8})


def machine(platform):
    """A context in which programs are traced for a device of the platform, which is not here."""
    kind = {"cuda": "NVIDIA H100 80GB HBM3", "tpu": "TPU v5 lite"}[platform]
    device = jax.sharding.AbstractDevice(kind, 1, {"cuda": "gpu"}.get(platform, platform))
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1,), ("data",), abstract_device=device))


@pytest.mark.parametrize("platform, device", [("cuda", "gpu"), ("tpu", "tpu")])
@pytest.mark.parametrize("width", shipped_widths())
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_kernels_of_every_shipped_size_are_translated_for_machines_that_are_not_here(platform, device, width, dtype):
    def both(query, key, value, start, stop):
        output, back = jax.vjp(lambda *qkv: attend(*qkv, start, stop, device), query, key, value)
        return output, back(output)

    array, ids = jax.ShapeDtypeStruct((2, 1024, 2, width), dtype), jax.ShapeDtypeStruct((2, 1024), jnp.int32)
    with machine(platform):
        lowered = jax.jit(both).trace(array, array, array, ids, ids).lower(lowering_platforms=(platform,))
    kernel = {"cuda": "@__gpu$xla.gpu.triton", "tpu": "@tpu_custom_call"}[platform]
    assert lowered.as_text().count(kernel) == 3  # forward, and the gradients of queries and of keys
    assert lowered.out_info[0].shape == array.shape


@pytest.mark.parametrize("platform, device", [("cuda", "gpu"), ("tpu", "tpu")])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_kernels_are_translated_with_full_precision_too(platform, device, dtype):
    array, ids = jax.ShapeDtypeStruct((2, 1024, 2, 64), dtype), jax.ShapeDtypeStruct((2, 1024), jnp.int32)

    def total(query, key, value, start, stop):
        return attend(query, key, value, start, stop, device).sum()

    with jax.default_matmul_precision("highest"), machine(platform):
        lowered = jax.jit(jax.grad(total, (0, 1, 2))).trace(array, array, array, ids, ids)
        assert lowered.lower(lowering_platforms=(platform,)).out_info[0].shape == array.shape


def test_long_rows_differ_in_length_by_several_blocks(monkeypatch):
    """As rows beyond 2,048 tokens do, here with blocks of 16 and three lengths of a run of keys."""
    monkeypatch.setattr(blockwise, "BLOCK", 16)
    monkeypatch.setattr(blockwise, "LENGTHS", 3)
    rng = np.random.default_rng(3)
    arrays = jnp.array(rng.standard_normal((4, 2, 203, 2, 8)), jnp.float32)
    for intervals in packed(203, 3):
        want, back = jax.vjp(lambda *qkv: at_once(*qkv, intervals), *arrays[:3])  # noqa: B023
        got, our_back = jax.vjp(lambda *qkv: attend(*qkv, *intervals, "cpu"), *arrays[:3])  # noqa: B023
        np.testing.assert_allclose(got, want, atol=1e-5)
        for ours, theirs in zip(our_back(arrays[3]), back(arrays[3])):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_bfloat16_stays_near():
    rng = np.random.default_rng(0)
    arrays = jnp.array(rng.standard_normal((3, 2, 260, 2, 64)), jnp.bfloat16)
    intervals, _ = packed(260, 1)
    want = at_once(*arrays.astype(jnp.float32), intervals)
    for device in ("cpu", "tpu"):
        got = attend(*arrays, *intervals, device, device == "tpu")
        assert got.dtype == jnp.bfloat16
        np.testing.assert_allclose(got.astype(jnp.float32), want, atol=0.03)


def test_long_rows_keep_no_array_of_all_scores():
    """8,192 tokens: all scores of one head alone would take 256 MB; also right where it is looked at."""
    length = 8192
    shape = jax.ShapeDtypeStruct((1, length, 2, 64), jnp.float32)
    segment = jnp.concatenate([jnp.full((1, 5000), 1), jnp.full((1, 3000), 2), jnp.zeros((1, 192), int)], axis=1)
    intervals = staircase(segment, jnp.arange(length)[None] // 23)

    def both(*qkv):
        output, back = jax.vjp(lambda *qkv: interval_attention(*qkv, intervals), *qkv)
        return output, back(output)

    memory = jax.jit(both).lower(shape, shape, shape).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 100e6
    rng = np.random.default_rng(0)
    query, key, value = jnp.array(rng.standard_normal((3, 1, length, 2, 64)), jnp.float32)
    got = jax.jit(interval_attention)(query, key, value, intervals)
    for place in (0, 4999, 5000, 7999, 8191):
        here = slice(int(intervals.start[0, place]), int(intervals.stop[0, place]))
        scores = jnp.einsum("nh,knh->nk", query[0, place], key[0, here]) / 8
        want = jnp.einsum("nk,knh->nh", jax.nn.softmax(scores), value[0, here])
        np.testing.assert_allclose(got[0, place], want, atol=1e-5)


def test_memory_of_training_layers_is_linear_in_the_row():
    """Neither scores nor masks of a whole row are kept for the backward pass, also where layers are scanned."""
    stack = Stack(StackConfig(layers=2, heads=2, width=32, use_bias=False, scale_by_depth=True))

    def bytes_beside_arguments(length):
        x, segment = jnp.ones((1, length, 32)), jnp.ones((1, length), jnp.int32)
        params = jax.eval_shape(stack.init, jax.random.key(0), x, bidirectional(segment))

        def loss(params, x, segment):
            return stack.apply(params, x, bidirectional(segment))[0].sum()

        return jax.jit(jax.grad(loss)).lower(params, x, segment).compile().memory_analysis().temp_size_in_bytes

    assert bytes_beside_arguments(8192) < 2.2 * bytes_beside_arguments(4096)
