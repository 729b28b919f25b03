"""What is said of runs on other machines: work without waste, meshes that fit, tables, and what is refused."""

import json
import math
import os
import pathlib
import subprocess
import sys

import jax
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
