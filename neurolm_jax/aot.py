"""Compile a config's training step for a machine that is not here, and tell what it would do there.

  python -m neurolm_jax.aot --config configs/pretrain.py:xl --topology v5p:4x4x4 --config.mesh.fsdp=16 \\
    --config.batch_size=512 --config.text_batch_size=64 [--json FILE] [--quick]
  python -m neurolm_jax.aot --config configs/pretrain.py:l --topology h100:4x8 --search [--rows 4,8,16]
  python -m neurolm_jax.aot --tables FOLDER

Needs a compiler, but no TPU or GPU and no data. That for GPUs: pip install 'jax[cuda12]'. That for TPUs is kept out of
the environment, since JAX looks for a TPU wherever it is installed:

  pip install --no-deps --target .venv/libtpu -r requirements-libtpu.txt
  PYTHONPATH=.venv/libtpu:. TPU_LIBRARY_PATH=.venv/libtpu/libtpu/libtpu.so JAX_PLATFORMS=cpu \\
    python -m neurolm_jax.aot ...

Memory is the compiler's own account. Operations are those of matrix products in the compiled program, loops counted
as often as they run, and of attention kernels; "needed" is what the model's arithmetic asks for, so that their ratio is
what recomputation and padding cost. The step's time is the largest of computing at peak speed, moving all operands and
results of the program's instructions, and sending over all links at once, each with nothing else in the way: a bound,
not a forecast. --quick compiles three times as fast, but leaves out what is moved. --search tries meshes and rows a
device; --tables puts JSON files of a folder side by side.
"""

import pathlib
import sys

from absl import flags

from neurolm_jax import command_line, configuration
from neurolm_jax.command import run
from neurolm_jax.errors import UserError
from neurolm_jax.outputs import write_json

_TOPOLOGY = flags.DEFINE_string("topology", None, "A slice (v5e:4x4, v5p:4x4x4, v6e:16x16) or GPUs (h100:4x8).")
_JSON = flags.DEFINE_string("json", None, "Write the figures here too.")
_SEARCH = flags.DEFINE_bool("search", False, "Try meshes and rows a device, the best first.")
_QUICK = flags.DEFINE_bool("quick", False, "Compile with little effort; what is moved is then not told.")
_ROWS = flags.DEFINE_list("rows", ["4", "8", "16"], "Of EEG (or text), for each part of the batch that --search tries.")
_TABLES = flags.DEFINE_string("tables", None, "Print the JSON files of a folder as tables; compiles nothing.")


def main() -> None:
    command_line.parse_flags(sys.argv)
    if _TABLES.value:
        from neurolm_jax.ahead import tables

        found = tables.read(pathlib.Path(_TABLES.value))
        print(tables.programs(found), tables.weak_scaling(found), sep="\n")
        return
    command_line.require("config", "topology")
    config = command_line.CONFIG.value
    configuration.check(config)

    from neurolm_jax import stages
    from neurolm_jax.ahead import topologies
    from neurolm_jax.ahead.estimates import estimate
    from neurolm_jax.training import schedule

    config = schedule.resolved(config)
    chip, devices = topologies.devices(_TOPOLOGY.value)
    name = pathlib.Path(command_line.config_file())
    told = {"config": f"{name.parent.name}/{name.name}", "topology": _TOPOLOGY.value}
    if _SEARCH.value:
        found = told | search_and_show(config, chip, devices, _ROWS.value, _TOPOLOGY.value, _QUICK.value)
    else:
        found = told | estimate(stages.build(config), chip, devices, _QUICK.value)
        show(found, f"{config.stage}, {_TOPOLOGY.value}: {len(devices)} x {chip.name}")
    if _JSON.value:
        write_json(_JSON.value, found)


def search_and_show(config, chip, devices, rows, topology: str, quick: bool = False) -> dict:
    """Prints what ``search`` tries, and the best again as a whole; ``rows`` are numbers as they were typed.

    Returns ``{"best", "tried"}``.

    Raises:
      UserError: rows that are no numbers; nothing fits.
    """
    from neurolm_jax.ahead import search

    try:
        counts = [int(value) for value in rows]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise UserError(f"--rows {','.join(rows)}: want whole numbers of rows, 1 or more")
    found = []
    print(f"{'data':>5} {'fsdp':>5} {'tensor':>6} {'rows':>5} {'GB':>6} {'ms at least':>12} {'tokens/s at most':>17}")
    for one in search.search(config, chip, devices, counts, quick):
        found.append(one)
        mesh = one["mesh"]
        begin = f"{mesh['data']:>5} {mesh['fsdp']:>5} {mesh['tensor']:>6} {one['rows_each']:>5}"
        if "error" in one:
            print(f"{begin} {one['error'].partition(';')[0]}", flush=True)
            continue
        peak = (one["bytes"]["peak"] + one["bytes"]["program"]) / 1e9
        step, speed = 1e3 * one["seconds"]["step"], one["tokens_per_second"]
        end = "" if one["fits"] else " DOES NOT FIT"
        print(f"{begin} {peak:>6.1f} {step:>12.1f} {speed:>17,.0f}{end}", flush=True)
    ranked = search.best(found)
    if not ranked:
        raise UserError(f"--search: nothing fits {len(devices)} x {chip.name}; try fewer --rows")
    show(ranked[0], f"best: {config.stage}, {topology}")
    return {"best": ranked[0], "tried": found}


def show(found: dict, title: str) -> None:
    """The figures as lines."""
    from neurolm_jax.ahead.estimates import HOURS

    held, sent, seconds = found["bytes"], found["sent"], found["seconds"]
    lines = {
        "mesh": ", ".join(f"{axis} {size}" for axis, size in found["mesh"].items()),
        "parameters": f"{found['parameters'] / 1e6:,.0f} M; {found['replicated_share']:.1%} whole on each chip",
        "weights, optimizer, batch, temporary": " + ".join(
            f"{held[part] / 1e9:.2f}" for part in ("parameters", "optimizer", "batch", "temporary")
        )
        + " GB a chip",
        "before the first step": f"{held['before'] / 1e9:.2f} GB" if held["before"] else "nothing",
        "peak, with the program": f"{(held['peak'] + held['program']) / 1e9:.2f} of {held['memory'] / 1e9:.0f} GB: "
        + ("fits" if found["fits"] else "DOES NOT FIT"),
        "operations a chip": f"{found['flops']['program'] / 1e12:.2f} T, {found['waste']:.2f} times the needed",
        "sent a chip": ", ".join(f"{kind} {size / 1e9:.2f}" for kind, size in sent.items()) + " GB",
        "computing, memory, network": ", ".join(
            "?" if part == "memory" and found["quick"] else f"{1e3 * seconds[part]:.1f}"
            for part in ("compute", "memory", "network")
        )
        + " ms",
        "step, utilisation": f"{1e3 * seconds['step']:.1f} ms at least, {found['utilisation']:.1%} at most",
        "tokens a second": f"{found['tokens_per_second']:,.0f} at most",
        "compiled in": f"{found['compile_seconds']:.0f} s",
    }
    if found["corpus_hours"]:
        hours = f"{found['corpus_hours']:.2f} h, {found['corpus_chip_hours']:,.0f} chip-hours at least"
        lines[f"{HOURS:,} h of recording, once"] = hours
    print(title)
    for name, text in lines.items():
        print(f"  {name:<38} {text}")


if __name__ == "__main__":
    run(main)
