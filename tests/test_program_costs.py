"""What a compiled program costs, read from its text: counted as XLA and plain loops count it."""

import jax
import jax.numpy as jnp
import pytest

from neurolm_jax.ahead import programs


def test_loops_are_counted_as_often_as_they_run():
    def inner(x, w):
        return jax.lax.fori_loop(0, 5, lambda _, y: jnp.tanh(y @ w), x), None

    def nested(x, ws, v):
        return jax.lax.scan(inner, x, ws)[0] @ v

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((32, 16), (7, 16, 16), (16, 48))]
    found = programs.cost(jax.jit(nested).lower(*shapes).compile().as_text())
    assert found.flops == 7 * 5 * 2 * 32 * 16 * 16 + 2 * 32 * 16 * 48
    assert found.unknown_loops == 0 and not found.sent


@pytest.mark.parametrize(
    ("window", "options"),
    [
        ((9, 5), {}),
        ((9, 5), {"padding": "SAME"}),
        ((4, 4), {"window_strides": (2, 3)}),
        ((3, 2), {"rhs_dilation": (2, 2), "padding": "SAME"}),
        ((3, 3), {"lhs_dilation": (2, 2), "padding": ((1, 1), (2, 0))}),
    ],
)
def test_convolutions_count_as_xla_counts_them(window, options):
    options = {"window_strides": (1, 1), "padding": "VALID"} | options

    def convolve(x, w):
        return jax.lax.conv_general_dilated(x, w, **options)

    shapes = jax.ShapeDtypeStruct((2, 3, 20, 17), jnp.float32), jax.ShapeDtypeStruct((8, 3, *window), jnp.float32)
    lowered = jax.jit(convolve).lower(*shapes)
    text = lowered.compiler_ir("hlo").as_hlo_module().to_string()
    assert programs.cost(text).flops == lowered.cost_analysis()["flops"]


TEXT = """HloModule m

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

%condition (p: (s32[], f32[8,16])) -> pred[] {
  %limit = s32[] constant(12)
  %p = (s32[], f32[8,16]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %go = pred[] compare(%i, %limit), direction=LT
}

%body (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %p = (s32[], f32[8,16]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8,16]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %r = f32[8,16]{1,0} all-reduce(%x), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%sum
  %k = (f32[8,16]{1,0}) custom-call(%r), custom_call_target="tpu_custom_call", name=interval_attention_forward
  %y = f32[8,16]{1,0} get-tuple-element(%k), index=0
  ROOT %t = (s32[], f32[8,16]{1,0}) tuple(%next, %y)
}

%piece (w: bf16[4,16]) -> bf16[32,16] {
  %w = bf16[4,16]{1,0} parameter(0)
  ROOT %g = bf16[32,16]{1,0} all-gather(%w), channel_id=3, replica_groups=mesh['a'=2,'b'=8] {'b'}, dimensions={0}
}

%other_piece (w: bf16[4,16]) -> bf16[32,16] {
  %w = bf16[4,16]{1,0} parameter(0)
  ROOT %g = bf16[32,16]{1,0} all-gather(%w), channel_id=3, replica_groups=mesh['a'=2,'b'=8] {'b'}, dimensions={0}
}

ENTRY %main (x: f32[8,16], w: bf16[4,16]) -> f32[8,16] {
  %x = f32[8,16]{1,0} parameter(0)
  %w = bf16[4,16]{1,0:T(8,128)(2,1)} parameter(1)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8,16]{1,0}) tuple(%zero, %x)
  %loop = (s32[], f32[8,16]{1,0}) while(%start), condition=%condition, body=%body
  %g = bf16[32,16]{1,0} fusion(%w), kind=kCustom, calls=%piece
  %again = bf16[32,16]{1,0} fusion(%w), kind=kCustom, calls=%other_piece
  %s = f32[2,16]{1,0} reduce-scatter(%x), channel_id=5, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%sum
  %c = f32[8,16]{1,0} collective-permute(%x), channel_id=6, source_target_pairs={{0,1},{1,0}}
  ROOT %out = f32[8,16]{1,0} get-tuple-element(%loop), index=1
}
"""


def test_what_is_sent_and_which_kernels_run():
    found = programs.cost(TEXT)
    assert found.kernels == {"interval_attention_forward": 6}
    assert found.sent == {
        "all-reduce": 6 * 2 * (8 * 16 * 4) * 3 / 4,
        "all-gather": 7 * 4 * 16 * 2,  # to each of 7 others; in two pieces, but once
        "reduce-scatter": 8 * 16 * 4 * 3 / 4,
        "collective-permute": 8 * 16 * 4,
    }


def test_collectives_that_share_a_channel_are_all_counted():
    """Compilers give the number 1 to many; only the pieces of one all-gather, in fusions side by side, are one."""
    more = """  %g1 = bf16[32,16]{1,0} all-gather(%w), channel_id=1, replica_groups=[2,8]<=[16], dimensions={0}
  %r1 = f32[8,16]{1,0} all-reduce(%x), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%sum
  %r2 = f32[8,16]{1,0} all-reduce(%r1), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%sum
"""
    found = programs.cost(TEXT.replace("  %c = f32", f"{more}  %c = f32")).sent
    assert found["all-gather"] == 2 * (7 * 4 * 16 * 2)
    assert found["all-reduce"] == 8 * (2 * (8 * 16 * 4) * 3 / 4)
    # On channel 1 two fusions hold two all-gathers; on one channel, arrays of two shapes are two.
    assert programs.cost(TEXT.replace("channel_id=3", "channel_id=1")).sent["all-gather"] == 2 * (7 * 4 * 16 * 2)
    begin, _, end = TEXT.partition("%other_piece")
    piece, _, rest = end.partition("}\n\nENTRY")
    piece = piece.replace("bf16[4,16]", "bf16[8,16]").replace("bf16[32,16]", "bf16[64,16]")
    assert programs.cost(f"{begin}%other_piece{piece}}}\n\nENTRY{rest}").sent["all-gather"] == 7 * (4 + 8) * 16 * 2


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("replica_groups={{0,3},{1,2}}", [0, 3]),
        ("replica_groups=[4,2]<=[8]", [0, 1]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [0, 4]),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", [0, 1, 2, 3]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", [0, 4]),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", [0, 4]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=(3,1,2,0) {'b'}", [3, 1]),
    ],
)
def test_groups_of_devices(written, group):
    assert programs._group(f"channel_id=1, {written}, dimensions={{0}}").tolist() == group
    with pytest.raises(ValueError, match="no group"):
        programs._group("channel_id=1")


def test_a_sum_of_which_each_keeps_a_part_is_a_reduce_scatter():
    """TPUs' compiler writes it as a fusion."""
    body = """  %x = f32[8,16]{1,0} parameter(0)
  %r = f32[8,16]{1,0} all-reduce(%x), channel_id=9, replica_groups=[1,4]<=[4], to_apply=%sum
  ROOT %y = f32[2,16]{1,0} dynamic-slice(%r, %x), dynamic_slice_sizes={2,16}
"""
    text = TEXT.replace("ENTRY", "%all-reduce-scatter.1 (x: f32[8,16]) -> f32[2,16] {\n" + body + "}\n\nENTRY")
    text = text.replace(
        "  %c = ", "  %f = f32[2,16]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1\n  %c = "
    )
    more = programs.cost(text).sent["reduce-scatter"] - programs.cost(TEXT).sent["reduce-scatter"]
    assert (
        more == 8 * 16 * 4 * 3 / 4 and programs.cost(text).sent["all-reduce"] == programs.cost(TEXT).sent["all-reduce"]
    )


def test_what_leaves_a_node_is_shared_by_its_devices():
    array = 8 * 16 * 4
    # Of two nodes of four: what one sends to the other of the gathered [32, 16], by each of its four. Else all stay.
    assert programs.cost(TEXT, node=4).outside == 8 * 4 * 16 * 2 / 2 / 4
    # Of nodes of two: as many nodes in each group of four as two, of all eight four.
    reduced, scattered, gathered = 6 * 2 * array / 2 / 2, array / 2 / 2, 8 * 4 * 16 * 2 * 3 / 4 / 2
    assert programs.cost(TEXT, node=2).outside == reduced + scattered + gathered
    assert programs.cost(TEXT, node=1).outside == sum(programs.cost(TEXT).sent.values())


@pytest.mark.parametrize(
    "step",
    [
        lambda x, w: jnp.tanh(x @ w).sum(0),
        lambda x, w: (x * 2 + 1).T @ x @ w,
        lambda x, w: jax.nn.softmax(x) @ jnp.exp(w),
    ],
)
def test_bytes_to_and_from_memory_are_those_of_xla(step):
    shapes = jax.ShapeDtypeStruct((64, 32), jnp.float32), jax.ShapeDtypeStruct((32, 48), jnp.float32)
    compiled = jax.jit(step).lower(*shapes).compile()
    assert programs.cost(compiled.as_text()).moved == compiled.cost_analysis()["bytes accessed"]


def test_a_layer_moves_its_own_part_of_all_layers():
    def layers(x, ws):
        return jax.lax.scan(lambda y, w: (jnp.tanh(y * w), y[0]), x, ws)

    shapes = jax.ShapeDtypeStruct((1000,), jnp.float32), jax.ShapeDtypeStruct((50, 1000), jnp.float32)
    moved = programs.cost(jax.jit(layers).lower(*shapes).compile().as_text()).moved
    assert 50 * 3 * 4000 <= moved < 2 * 50 * 3 * 4000  # reads its input and kernel and writes its output, not all 50
