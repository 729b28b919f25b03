"""Ablation of this project: dead codes are not revived, as in the released models, or revived late.

  python -m neurolm_jax.scaling --sweep configs/sweeps/revival.py:quickstart --workdir runs/sweeps

The argument: see docs/scaling.md.
"""

from neurolm_jax.studies.grids import ablation, everywhere
from neurolm_jax.studies.sweep import Sweep


def get_config(base: str = "quickstart") -> Sweep:
    return ablation(
        "Revival of dead codes",
        base,
        {
            "no revival": everywhere({"tokenizer.dead_below": 0.0}),
            "late revival": everywhere({"tokenizer.dead_below": 0.01}),
        },
    )
