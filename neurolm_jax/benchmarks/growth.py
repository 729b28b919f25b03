"""How a step's time and memory grow with tokens in a row, layers, width and channels.

Pre-training at a small size in float32, one row of EEG and one of 256 tokens of text; a row of more than 1,024 tokens
has more channels than the others, since it lasts no longer than 64 s. Time is the median of a few steps; memory is what
the compiled step needs beside its state, so that it is the same on every run.
"""

import pathlib
import statistics
import time

import numpy as np

from neurolm_jax.benchmarks import in_float32
from neurolm_jax.benchmarks.steps import eeg_batch

BASE = {"tokens": 1024, "layers": 4, "width": 256, "channels": 16}
GRID = {
    "tokens": (256, 512, 1024, 2048, 4096, 8192),
    "layers": (2, 4, 8, 16),
    "width": (128, 256, 512, 768),
    "channels": (16, 32, 64, 128),
}
HEAD = 64  # dimensions of an attention head
LONGEST = 64  # seconds of a row
STEPS = 3


def bench_grow(plot: pathlib.Path | None = None) -> dict[str, float]:
    """Milliseconds and MB of each point; ``plot`` is a file for the curves."""
    found = {}
    for axis, values in GRID.items():
        for value in values:
            seconds, size = _measure(**BASE | {axis: value})
            found[f"{axis} {value}: milliseconds"] = seconds * 1e3
            found[f"{axis} {value}: MB beside the state"] = size / 1e6
    if plot:
        _draw(found, plot)
    return found


def _measure(tokens, layers, width, channels):
    import jax

    from configs import pretrain
    from neurolm_jax import stages
    from neurolm_jax.training import schedule
    from neurolm_jax.training.mesh import make_mesh, put_batch
    from neurolm_jax.training.state import create_state, make_train_step

    channels = max(channels, tokens // LONGEST)
    c = in_float32(pretrain.get_config("debug"))
    c.update(batch_size=1, row_length=tokens, text_batch_size=1, text_length=256)
    for model in (c.tokenizer.encoder, c.language):
        model.update(layers=layers, width=width, heads=width // HEAD)
    stage, mesh = stages.build(schedule.resolved(c)), make_mesh()
    rng = np.random.default_rng(0)
    text = rng.integers(0, 50000, (1, 257)).astype(np.int32)
    batch = put_batch(mesh, {"eeg": eeg_batch(c, channels, tokens // channels, rng), "text": text})
    state, key = create_state(stage, mesh), jax.random.key(0)
    step = make_train_step(stage, mesh).lower(state, batch, key).compile()
    times = []
    for _ in range(STEPS + 1):
        begin = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch, key))
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:]), step.memory_analysis().temp_size_in_bytes


def _draw(found, file):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(2, len(GRID))
    for row, unit in zip(panels, ("milliseconds", "MB beside the state")):
        for axes, (axis, values) in zip(row, GRID.items()):
            heights = [found[f"{axis} {value}: {unit}"] for value in values]
            axes.plot(values, heights, "o-", label="measured")
            axes.plot(values, [heights[-1] * value / values[-1] for value in values], ":", color="grey", label="linear")
            axes.set(xscale="log", yscale="log", xlabel=axis)
            axes.set_xticks(values, [str(value) for value in values])
            axes.minorticks_off()
        row[0].set_ylabel(unit)
    panels[0, 0].legend()
    figure.savefig(file, dpi=110)
