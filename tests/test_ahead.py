"""What is said of programs for other machines: operations counted as XLA and as plain arithmetic count them."""

import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from small_data import config

from neurolm_jax import aot, errors, stages
from neurolm_jax.ahead import arithmetic, estimates, programs, search, topologies
from neurolm_jax.ahead.chips import CHIPS
from neurolm_jax.data.streams import Steps
from neurolm_jax.errors import UserError
from neurolm_jax.models.placement import AXES
from neurolm_jax.training.mesh import make_mesh, put_batch
from neurolm_jax.training.state import abstract_state, make_train_step, replicated_share

ROOT = pathlib.Path(__file__).parents[1]


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


@pytest.mark.parametrize("name", ["language", "tokenizer", "pretrain", "instruct"])
def test_arithmetic_is_that_of_a_program_without_waste(name, small_data, runs, monkeypatch):
    """On one device, where nothing is computed twice: all matrix products of the compiled step."""
    monkeypatch.setattr(arithmetic, "causal", lambda length, together: length**2)  # short rows hide scores, no more
    stage, mesh = stages.build(config(name, small_data, runs)), make_mesh()
    state = abstract_state(stage, mesh)
    batch = estimates.abstract_batch(stage, mesh)
    compiled = make_train_step(stage, mesh).lower(state, batch, jax.random.key(0)).compile()
    needed, found = arithmetic.work(stage, state.weights).total, programs.cost(compiled.as_text())
    assert found.unknown_loops == 0
    # Of the first layers' inputs no gradient is asked for.
    assert found.flops == pytest.approx(needed, rel=0.04)


@pytest.mark.parametrize("name", ["language", "tokenizer", "pretrain", "instruct"])
def test_empty_rows_are_shaped_as_rows_are(name, small_data, runs):
    stage, mesh = stages.build(config(name, small_data, runs)), make_mesh()
    real, empty = put_batch(mesh, Steps(stage.sources(train=True), 1)[0]), estimates.abstract_batch(stage, mesh)
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), real, empty)
    assert jax.tree.all(same)
    with pytest.raises(UserError, match="does not split into 16 parts"):
        stage.config.accumulation = 16
        estimates.abstract_batch(stage, mesh)


def test_pairs_of_a_staircase_equal_a_plain_loop():
    for length, together in ((10, 3), (7, 1), (23, 23)):
        seen = sum(min((q // together + 1) * together, length) for q in range(length))
        assert arithmetic.causal(length, together) == seen


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:2x2", "want KIND:SHAPE such as v5e:4x4"),
        ("v5e", "want KIND:SHAPE"),
        ("v5e:4y4", "want KIND:SHAPE"),
        ("h100:4x4", "want NODESx8, nodes of 8 H100 SXM"),
    ],
)
def test_unknown_topologies_are_named(name, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["aot", "--config", "configs/language.py:debug", f"--topology={name}"])
    with pytest.raises(UserError, match=f"--topology {name}: {message}"):
        aot.main()


def test_figures_hang_together(small_data, runs, capsys):
    """The whole account of a step, compiled for this machine's own device."""
    stage = stages.build(config("pretrain", small_data, runs))
    found = estimates.estimate(stage, CHIPS["v5e"], jax.devices()[:1])
    weights = abstract_state(stage, make_mesh()).weights
    assert found["bytes"]["parameters"] == sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(weights))
    assert found["fits"] and found["chips"] == 1 and not found["sent"]
    assert found["tokens"] == {"eeg": 2 * 128, "text": 2 * 16}
    assert found["seconds"]["compute"] == found["flops"]["program"] / 197e12
    assert found["seconds"]["memory"] == found["moved"] / 819e9
    assert found["seconds"]["step"] == max(found["seconds"].values())
    np.testing.assert_allclose(found["corpus_hours"], 25_000 * 3600 * 23 / 256 * found["seconds"]["step"] / 3600)
    aot.show(found, "title")
    assert all(len(line) <= 100 for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("name", "error", "remedy"),
    [
        ("v5e:4x4", RuntimeError("Unable to initialize backend 'tpu': libtpu.so not found"), "pip install libtpu"),
        ("v5e:4x4", RuntimeError("JAX TPU support not installed; cannot generate TPU topology."), "pip install libtpu"),
        ("h100:4x8", NotImplementedError("topology not implemented for cuda"), r"pip install 'jax\[cuda12\]'"),
    ],
)
def test_a_missing_compiler_is_named(monkeypatch, name, error, remedy):
    from jax.experimental import topologies as jax_topologies

    def missing(*_, **__):
        raise error

    monkeypatch.setattr(jax_topologies, "get_topology_desc", missing)
    with pytest.raises(UserError, match=f"--topology {name}: its compiler is missing .*{remedy}"):
        topologies.devices(name)


def test_a_program_too_large_for_the_device_is_told(small_data, runs, monkeypatch):
    class Huge:
        def lower(self, *_):
            return self

        def compile(self, compiler_options):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory. Used 20.10G of 15.75G hbm. More")

    monkeypatch.setattr(estimates, "make_train_step", lambda stage, mesh: Huge())
    stage = stages.build(config("language", small_data, runs))
    with pytest.raises(errors.DoesNotFit, match=r"does not fit \(used 20.10g of 15.75g a device\); take fewer rows"):
        estimates.estimate(stage, CHIPS["v5e"], jax.devices()[:1])


@pytest.mark.parametrize(("count", "heads"), [(1, 12), (16, 12), (64, 25), (24, 16)])
def test_meshes_use_all_devices_and_split_heads_evenly(count, heads):
    found = list(search.meshes(count, heads))
    assert all(math.prod(mesh.values()) == count and heads % mesh["tensor"] == 0 for mesh in found)
    assert len({tuple(mesh.values()) for mesh in found}) == len(found)
    assert {"data": 1, "fsdp": count, "tensor": 1, "sequence": 1} in found
    assert any(mesh["tensor"] > 1 for mesh in found) == (heads % 2 == 0 and count > 1)


def test_a_search_stops_where_memory_does(small_data, runs, monkeypatch):
    asked = []

    def estimated(stage, chip, devices, quick):
        asked.append((stage.config.mesh.tensor, stage.config.batch_size, stage.config.text_batch_size))
        if stage.config.batch_size > 32:
            raise errors.DoesNotFit("does not fit")
        speed = float(min(stage.config.batch_size, 24))
        return {"fits": True, "tokens_per_second": speed, "tokens_per_second_serial": -stage.config.batch_size}

    monkeypatch.setattr(search, "estimate", estimated)
    base = config("pretrain", small_data, runs)
    base.batch_size, base.text_batch_size = 120, 30
    found = list(search.search(base, CHIPS["v5e"], list(range(8)), [16, 2, 4]))
    # Heads are two: meshes of 8 and of 4 parts.
    assert asked == [(1, 16, 8), (1, 32, 8), (1, 128, 32)] * 2 + [(2, 8, 4), (2, 16, 4), (2, 64, 16)] * 2
    assert [one["error"] for one in found if "error" in one] == ["does not fit"] * 4
    ranked = search.best(found)
    assert [one["tokens_per_second"] for one in ranked] == [24, 24, 16, 16, 16, 16, 8, 8]


def test_what_a_mesh_does_not_divide_is_told():
    from jax.sharding import AbstractMesh, AxisType

    from configs import language

    def share(fsdp):
        mesh = AbstractMesh((1, fsdp, 1, 1), AXES, axis_types=(AxisType.Auto,) * 4)
        return replicated_share(abstract_state(stages.build(language.get_config("xl")), mesh))

    assert share(64) < 0.01 and share(512) > 0.99


@pytest.mark.slow
def test_the_command_searches_and_puts_tables_side_by_side(small_data, runs, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(topologies, "devices", lambda name: (CHIPS["v5e"], jax.devices()[:1]))

    def run(*arguments):
        flags.FLAGS["tables"].unparse()  # of the call before
        monkeypatch.setattr(sys, "argv", ["aot", *map(str, arguments)])
        aot.main()
        return capsys.readouterr().out

    with pytest.raises(UserError, match="holds no file that 'aot --json' wrote"):
        run("--tables", tmp_path)
    told = aot.search_and_show(config("language", small_data, runs), CHIPS["v5e"], jax.devices()[:1], ["2", "1"], "m")
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())
    assert [one["rows"]["text"] for one in told["tried"]] == [1, 2] and told["best"] in told["tried"]
    for rows in (["0"], ["x"], []):
        with pytest.raises(UserError, match="--rows .*: want whole numbers of rows"):
            aot.search_and_show(config("language", small_data, runs), CHIPS["v5e"], jax.devices()[:1], rows, "m")
    common = "--config", ROOT / "configs/language.py:debug", "--topology=v5e:1x1", "--config.text_length=32"
    run(*common, "--config.text_batch_size=2", "--json", tmp_path / "a.json")
    one = json.loads((tmp_path / "a.json").read_text())
    assert (one["config"], one["topology"]) == ("configs/language.py:debug", "v5e:1x1")
    # The same on four chips, sending as long as all else takes.
    sending = sum(one["seconds"][part] for part in ("compute", "memory"))
    slower = one["seconds"] | {"network": sending, "step": max(sending, one["seconds"]["step"])}
    four = one | {"chips": 4, "topology": "v5e:2x2", "rows": {"eeg": 0, "text": 8}, "seconds": slower}
    four["tokens_per_second"] = 4 * one["tokens_per_second"] * one["seconds"]["step"] / slower["step"]
    four["tokens_per_second_serial"] = 4 * one["tokens_per_second_serial"] / 2
    (tmp_path / "b.json").write_text(json.dumps(four))
    said = run("--tables", tmp_path)
    assert "| language debug | v5e:1x1 | none | 2 |" in said and "| language debug | v5e:2x2 | 4 | 0.00 |" in said
    beside = one["seconds"]["step"] / slower["step"]
    assert f"| {beside:.1%} | 50.0% |" in said
    run(*common[:3], "--search", "--rows=1", "--json", tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text())["topology"] == "v5e:1x1"
    assert "| language debug | v5e:1x1 | none | 1 |" in run("--tables", tmp_path)
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(UserError, match="c.json: not written by 'aot --json'"):
        run("--tables", tmp_path)


LIBTPU = pathlib.Path(sys.prefix) / "libtpu"


@pytest.mark.slow
@pytest.mark.skipif(not LIBTPU.is_dir(), reason=f"no {LIBTPU}: see requirements-extras.txt")
def test_programs_for_tpus(tmp_path):
    """Compiled for four chips with TPUs' own compiler: kernels for attention, parameters and codebook split."""
    environment = os.environ | {
        "PYTHONPATH": f"{LIBTPU}:{ROOT}",
        "TPU_LIBRARY_PATH": str(LIBTPU / "libtpu" / "libtpu.so"),
        "JAX_PLATFORMS": "cpu",
    }
    for stage in ("tokenizer", "pretrain"):
        line = [sys.executable, "-m", "neurolm_jax.aot", "--config", f"configs/{stage}.py:quickstart"]
        line += ["--topology=v5e:2x2", "--config.mesh.data=1", "--config.mesh.fsdp=4", "--config.batch_size=8"]
        line += ["--config.text_batch_size=4", "--quick", "--json", tmp_path / f"{stage}.json"]
        done = subprocess.run(line, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        found = json.loads((tmp_path / f"{stage}.json").read_text())
        assert found["fits"] and found["chips"] == 4 and not found["unknown_loops"]
        assert found["sent"]["all-gather"] > 0 and found["sent"].keys() & {"reduce-scatter", "all-reduce"}
        whole = found["parameters"] * 4  # bytes; a frozen tokenizer comes on top
        assert found["bytes"]["optimizer"] < 0.3 * 2 * whole
        # Widths of less than 128 leave much of a TPU unused, but that is no operation of the program.
        assert 0.9 < found["waste"] < 1.3, found["waste"]
        assert found["kernels"]["interval_attention_forward"] > 0
        assert found["kernels"]["interval_attention_backward_keys"] > 0
