"""Compile a config's training step for a TPU slice that is not here, and tell what it would do there.

  python -m neurolm_jax.aot --config configs/pretrain.py:xl --topology v5p:4x4x4 --config.mesh.data=1 \\
    --config.mesh.fsdp=-1 [--json FILE]

Needs the compiler for TPUs (pip install libtpu), no TPU and no data. Memory is the compiler's own account. Operations
are those of matrix products in the compiled program, loops counted as often as they run, and of attention kernels;
"needed" is what the model's arithmetic asks for, so that their ratio is what recomputation and padding cost. The step's
time is the larger of computing at peak speed and sending over all links at once, with nothing else in the way: a bound,
not a forecast.
"""

import json
import pathlib
import sys

from absl import flags

from neurolm_jax import configuration, train
from neurolm_jax.command import run
from neurolm_jax.outputs import appearing_file

_TOPOLOGY = flags.DEFINE_string("topology", None, "A slice: v5e:4x4, v5p:4x4x4, v6e:16x16 ...")
_JSON = flags.DEFINE_string("json", None, "Write the figures here too.")


def main() -> None:
    train.parse_flags(sys.argv, "config", "topology")
    config = flags.FLAGS["config"].value
    configuration.check(config)

    from neurolm_jax.ahead import topologies
    from neurolm_jax.ahead.estimates import estimate

    chip, devices = topologies.devices(_TOPOLOGY.value)
    found = estimate(train.build(config), chip, devices)
    show(found, f"{config.stage}, {_TOPOLOGY.value}: {len(devices)} x {chip.name}")
    if _JSON.value:
        with appearing_file(pathlib.Path(_JSON.value)) as file:
            file.write_text(json.dumps(found, indent=1))


def show(found: dict, title: str) -> None:
    """The figures as lines."""
    held, sent, seconds = found["bytes"], found["sent"], found["seconds"]
    lines = {
        "mesh": ", ".join(f"{axis} {size}" for axis, size in found["mesh"].items()),
        "parameters": f"{found['parameters'] / 1e6:,.0f} M",
        "weights, optimizer, batch, temporary": " + ".join(
            f"{held[part] / 1e9:.2f}" for part in ("parameters", "optimizer", "batch", "temporary")
        )
        + " GB a chip",
        "peak, with the program": f"{(held['peak'] + held['program']) / 1e9:.2f} of {held['memory'] / 1e9:.0f} GB: "
        + ("fits" if found["fits"] else "DOES NOT FIT"),
        "operations a chip": f"{found['flops']['program'] / 1e12:.2f} T, {found['waste']:.2f} times the needed",
        "sent a chip": ", ".join(f"{kind} {size / 1e9:.2f}" for kind, size in sent.items()) + " GB",
        "computing, memory, network": ", ".join(
            f"{1e3 * seconds[part]:.1f}" for part in ("compute", "memory", "network")
        )
        + " ms",
        "step, utilisation": f"{1e3 * seconds['step']:.1f} ms at least, {found['utilisation']:.1%} at most",
        "tokens a second": f"{found['tokens_per_second']:,.0f} at most",
        "compiled in": f"{found['compile_seconds']:.0f} s",
    }
    if found["corpus_hours"]:
        hours = f"{found['corpus_hours']:.2f} h, {found['corpus_chip_hours']:,.0f} chip-hours at least"
        lines["25,000 h of recording, once"] = hours
    print(title)
    for name, text in lines.items():
        print(f"  {name:<38} {text}")


if __name__ == "__main__":
    run(main)
