"""A config's step compiled for a machine that is not here, and what that says about training there."""

import time
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from neurolm_jax.ahead import arithmetic, programs
from neurolm_jax.ahead.chips import Chip
from neurolm_jax.errors import memory_told
from neurolm_jax.training import mesh as meshes
from neurolm_jax.training.state import abstract_state, make_prepare, make_train_step, replicated_share

HOURS = 25_000  # of recording in the paper's corpus
QUICK = {"exec_time_optimization_effort": -1.0}
GRADIENT = {"queries": 6 / 4, "keys": 8 / 4}  # operations of the backward kernels, in those of the forward one


class Program(NamedTuple):
    """A compiled step: its text; bytes of what it holds, works with and is itself; seconds it took to compile; whether
    with little effort; before: bytes that a device holds while the state is prepared for the first step, 0 where it is
    not."""

    text: str
    held: int
    temporary: int
    code: int
    seconds: float
    quick: bool = False
    before: int = 0

    @property
    def peak(self) -> int:
        """Bytes of a device, programs left out: of the step, or of what goes before the first."""
        return max(self.held + self.temporary, self.before)


def compiled_step(stage, mesh, quick: bool = False) -> Program:
    """The training step, compiled for a mesh's devices, wherever they are; ``quick`` with the least effort, which takes
    a third of the time and leaves what is fused, and so what is moved, far from what it would be. What prepares the
    state for the first step is compiled beside it.

    Raises:
      UserError: a batch that does not split over the devices; DoesNotFit.
    """
    state, batch = abstract_state(stage, mesh), abstract_batch(stage, mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=NamedSharding(mesh, PartitionSpec()))
    begin = time.perf_counter()
    lowered = make_train_step(stage, mesh).lower(state, batch, key)
    with memory_told():
        compiled = lowered.compile(compiler_options=QUICK if quick else None)
    held, temporary, code = _sizes(compiled)
    before = 0
    if (run := make_prepare(stage, mesh)) is not None:
        lowered = run.lower(state.weights, batch, key)
        with memory_told():
            first = _sizes(lowered.compile(compiler_options=QUICK if quick else None))
        # The optimizer's moments are there already.
        before, code = sum(first[:2]) + _held((state.optimizer, state.health)), max(code, first[2])
    seconds = time.perf_counter() - begin
    return Program(compiled.as_text(), held, temporary, code, seconds, quick, before)


def _sizes(compiled):
    """Bytes that a program holds, works with and is itself, on one device."""
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return held, memory.temp_size_in_bytes, memory.generated_code_size_in_bytes


def estimate(stage, chip: Chip, devices: list, quick: bool = False) -> dict:
    """Figures per chip of one training step; bytes, operations, seconds; if ``quick``, nothing of what is moved.

    Raises:
      UserError: a mesh or batch that does not fit the devices.
    """
    mesh = meshes.make_mesh(**stage.config.mesh, devices=devices)
    return account(stage, chip, mesh, compiled_step(stage, mesh, quick))


def account(stage, chip: Chip, mesh, program: Program) -> dict:
    """The same of a program that was compiled before."""
    config, devices = stage.config, mesh.size
    state, batch = abstract_state(stage, mesh), abstract_batch(stage, mesh)
    cost = programs.cost(program.text, chip.node)
    needed = arithmetic.work(stage, state.weights)
    flops = cost.flops + _attention_kernels(cost, needed, devices)
    sent = sum(cost.sent.values())
    times = {
        "compute": flops / chip.flops,
        "memory": 0.0 if program.quick else cost.moved / chip.bandwidth,
        "network": max((sent - cost.outside) / chip.links, cost.outside / chip.outside if chip.outside else 0.0)
        if chip.node
        else sent / chip.links,
    }
    step = max(times.values())
    tokens, eeg = arithmetic.places(stage), arithmetic.eeg_places(config)
    corpus = HOURS * 3600 * arithmetic.CHANNELS / eeg * step / 3600 if eeg else None
    peak = program.peak
    return {
        "stage": config.stage,
        "chip": chip.name,
        "chips": devices,
        "mesh": dict(mesh.shape),
        "rows": {"eeg": config.batch_size if eeg else 0, "text": config.text_batch_size},
        "accumulation": config.accumulation,
        "remat": arithmetic.main_model(config).remat,
        "replicated_share": replicated_share(state),
        "parameters": arithmetic.parameter_count(state.weights.params),
        "bytes": {
            "parameters": _held(state.weights),
            "optimizer": _held(state.optimizer),
            "batch": _held(batch),
            "temporary": program.temporary,
            "before": program.before,
            "program": program.code,
            "peak": peak,
            "memory": chip.memory,
        },
        "fits": peak + program.code <= chip.memory,
        "flops": {"program": flops, "needed": needed.total / devices},
        "waste": flops * devices / needed.total,
        "kernels": cost.kernels,
        "sent": cost.sent,
        "sent_outside": cost.outside,
        "moved": None if program.quick else cost.moved,
        "seconds": times | {"step": step},
        "utilisation": needed.total / devices / chip.flops / step,
        "tokens": tokens,
        "tokens_per_second": sum(tokens.values()) / step,
        "tokens_per_second_serial": sum(tokens.values()) / sum(times.values()),
        "corpus_hours": corpus,
        "corpus_chip_hours": corpus and corpus * devices,
        "compile_seconds": program.seconds,
        "quick": program.quick,
        "unknown_loops": cost.unknown_loops,
    }


def abstract_batch(stage, mesh):
    """Shapes of a global batch, split over the mesh, from the stage's empty rows."""
    placed, rows, batch = NamedSharding(mesh, meshes.BATCH), stage.empty_rows(), {}
    meshes.check_batches(mesh, {name: size for name, (_, size) in rows.items()}, stage.config.accumulation)
    for name, (row, size) in rows.items():
        shape = lambda x, size=size: jax.ShapeDtypeStruct((size, *np.shape(x)), np.asarray(x).dtype, sharding=placed)  # noqa: E731
        batch[name] = jax.tree.map(shape, row)
    return batch


def _held(tree):
    """Bytes on one device."""
    leaves = jax.tree.leaves(tree)
    return sum(int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize for x in leaves)


def _attention_kernels(cost, needed, devices):
    """Operations in attention kernels: as the arithmetic has them, times how often the program runs each."""
    forward = needed.trained_attention + needed.frozen_attention
    runs = {name.rpartition("_")[2]: count for name, count in cost.kernels.items()}
    if not runs:
        return 0.0
    trained = needed.trained_attention / forward if forward else 0
    layers = runs.get("queries", 0) / trained if trained else 0  # every trained layer has one gradient
    again = runs.get("forward", 0) / layers if layers else 1
    total = forward * again + needed.trained_attention * sum(GRADIENT.values())
    return total / devices
