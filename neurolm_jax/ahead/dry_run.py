"""What a run would take on the devices that are here: its step compiled, nothing run or written."""

import os

import jax.numpy as jnp

from neurolm_jax.ahead.arithmetic import main_model, parameter_count, places, work
from neurolm_jax.ahead.estimates import compiled_step
from neurolm_jax.ahead.product import best_product
from neurolm_jax.training.processes import say
from neurolm_jax.training.state import abstract_state


def show(stage, mesh, sources, held_out) -> None:
    """Prints the plan of ``figures``."""
    found = figures(stage, mesh, sources, held_out)
    lines = {
        "devices": f"{found['devices']} x {found['device']}; "
        + ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items()),
        "parameters": f"{found['parameters'] / 1e6:,.1f} M to train",
        "tokens": f"{found['tokens']:,} places a step, {found['tokens'] * found['steps']:,} in all",
    }
    for name, (rows, size) in found["rows"].items():
        epochs = found["steps"] * size / rows
        lines[f"rows of {name}"] = f"{size:,} a step of {rows:,}, {epochs:,.2f} epochs in {found['steps']:,} steps"
    lines["warm-up"] = f"{found['warmup_steps']:,} of {found['steps']:,} steps"
    lines["rows to validate on"] = ", ".join(f"{rows:,} of {name}" for name, rows in found["held_out"].items())
    held, memory = found["bytes"], found["memory"]
    fits = "fits" if sum(held.values()) <= memory else "DOES NOT FIT"
    parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in held.items())
    lines["memory a device"] = f"{sum(held.values()) / 1e9:.2f} of {memory / 1e9:.1f} GB: {fits} ({parts})"
    seconds, needed, speed = found["seconds"], found["flops"], found["flops_per_second"]
    lines["time"] = f"{seconds:.3g} s a step, {_clock(seconds * found['steps'])} in all, at least"
    lines["because"] = f"{needed / 1e9:,.1f} GFLOP a step, and products at {speed / 1e9:,.0f} GFLOP/s here"
    lines["compiled in"] = f"{found['compile_seconds']:.0f} s"
    say(f"{stage.config.stage}: a dry run, nothing is written")
    for name, text in lines.items():
        say(f"  {name:<20} {text}")


def figures(stage, mesh, sources, held_out) -> dict:
    """The plan of a stage on a mesh of devices that are here, as numbers; bytes are those of one device, at the step or
    before the first, where more is needed for that.

    The time is that of the arithmetic that the model needs at the speed of a large matrix product in the model's type,
    timed now: a bound that rows of padding do not lower.

    Raises:
      UserError: as ``compiled_step``.
    """
    config, device = stage.config, mesh.devices.flat[0]
    program = compiled_step(stage, mesh)
    weights = abstract_state(stage, mesh).weights
    needed = work(stage, weights).total
    speed = best_product(jnp.dtype(main_model(config).dtype))
    if device.platform != "cpu":  # whose devices share its cores
        speed *= mesh.size
    return {
        "devices": mesh.size,
        "device": device.device_kind,
        "parameters": parameter_count(weights.params),
        "steps": config.steps,
        "warmup_steps": config.warmup_steps,
        "tokens": sum(places(stage).values()),
        "rows": {name: (len(rows), size) for name, (rows, size) in sources.items()},
        "held_out": {name: len(rows) for name, (rows, _) in held_out.items()},
        "bytes": {"state and batch": program.held, "temporary": program.peak - program.held, "program": program.code},
        "memory": _memory(device) / (mesh.size if device.platform == "cpu" else 1),
        "flops": needed,
        "flops_per_second": speed,
        "seconds": needed / speed,
        "compile_seconds": program.seconds,
    }


def _memory(device):
    """Bytes of a device, as it tells; of a CPU, the machine's."""
    told = device.memory_stats() or {}
    return told.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _clock(seconds):
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 60 else f"{minutes / 60:,.1f} h"
