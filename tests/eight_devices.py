"""One stage's steps on eight simulated devices in several meshes, and on one; run in a process of its own.

Prints JSON: for each mesh the largest relative deviation of any logged figure and of any array of the state after two
steps, and what its program says to other devices.
"""

import json
import pathlib
import re
import sys

import jax
import numpy as np

MESHES = {
    "8 data": {"data": 8},
    "8 fsdp": {"fsdp": 8, "data": 1},
    "2 x 2 x 2": {"data": 2, "fsdp": 2, "tensor": 2},
    "2 fsdp x 4 tensor": {"data": 1, "fsdp": 2, "tensor": 4},
    "2 fsdp x 2 tensor x 2 sequence": {"data": 1, "fsdp": 2, "tensor": 2, "sequence": 2},
}


def steps(stage, mesh, runs, count=2):
    """The state and logged figures after some steps, and the compiled step."""
    from neurolm_jax.data.streams import Steps
    from neurolm_jax.stages.restore import restore_weights
    from neurolm_jax.training import metrics
    from neurolm_jax.training.mesh import put_batch
    from neurolm_jax.training.state import create_state, make_train_step, prepare, state_shardings

    state = create_state(stage, mesh)
    weights = stage.inherit(state.weights, lambda path: restore_weights(path, mesh))
    state = state._replace(weights=jax.device_put(weights, state_shardings(stage, mesh).weights))
    batches, rng = Steps(stage.sources(train=True), count), jax.random.key(0)
    batch = put_batch(mesh, batches[0])
    state = prepare(stage, mesh, state, batch, rng)
    step, found = make_train_step(stage, mesh), []
    compiled = step.lower(state, batch, rng).compile()
    for i in range(count):
        state, measured = compiled(state, put_batch(mesh, batches[i]), rng)
        found.append(metrics.scalars(measured))
    return jax.device_get(state), found, compiled.as_text()


def deviation(got, want):
    """Largest difference between trees, as a share of the largest value of its array (or 1e-3, if that is more)."""
    shares = [
        np.max(np.abs(np.asarray(a, np.float64) - b)) / max(np.max(np.abs(b)), 1e-3)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
        if np.size(b)
    ]
    return float(max(shares))


def collectives(text):
    """How often each collective stands in a program, and the largest array that an all-gather makes, in bytes."""
    width = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "s16": 2, "pred": 1, "f16": 2, "s8": 1, "u8": 1, "c64": 8}
    kinds = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
    counts = {kind: len(re.findall(rf"= [^=]*? {kind}(?:-start)?\(", text)) for kind in kinds}
    largest = 0
    for results in re.findall(r"= ([^=]*?) all-gather", text):
        for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", results):
            largest = max(largest, width[dtype] * int(np.prod([int(n) for n in shape.split(",") if n])))
    return counts | {"largest_gathered": largest}


def main():
    name, data, runs, accumulation = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4]
    from small_data import config

    from neurolm_jax.stages import build
    from neurolm_jax.training.mesh import make_mesh

    c = config(name, data, runs, batch_size=8 * int(accumulation), text_batch_size=8 * int(accumulation))
    c.accumulation = int(accumulation)
    stage = build(c)
    from neurolm_jax.configuration import use_compilation_cache

    use_compilation_cache(c)
    state, figures, _ = steps(stage, make_mesh(devices=jax.devices()[:1]), runs)
    found = {"largest_parameter": max(leaf.nbytes for leaf in jax.tree.leaves(state.weights))}
    for mesh, sizes in MESHES.items():
        other, others, text = steps(stage, make_mesh(**sizes), runs)
        found[mesh] = {
            "figures": deviation(others, figures),
            "state": deviation(other.weights, state.weights),
            "collectives": collectives(text),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
