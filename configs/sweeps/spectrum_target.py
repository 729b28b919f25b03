"""Ablation of this project: log power as the spectral target, read from the features too, instead of amplitudes.

  python -m neurolm_jax.scaling --sweep configs/sweeps/spectrum_target.py:quickstart --workdir runs/sweeps

Losses over other targets do not compare: only the answers and the use of the codes do.
The argument: see docs/scaling.md.
"""

from neurolm_jax.studies.grids import ablation, everywhere
from neurolm_jax.studies.sweep import Sweep


def get_config(base: str = "quickstart") -> Sweep:
    power = {"tokenizer.spectrum_target": "log_power"}
    return ablation(
        "Log power or amplitudes",
        base,
        {
            "log power": everywhere(power),
            "log power, spectrum head": everywhere({**power, "tokenizer.spectrum_head": True}),
        },
        measured=("instruct",),
    )
