"""Ablation of this project: group norm over the row, as in the released models, instead of over each patch.

  python -m neurolm_jax.scaling --sweep configs/sweeps/patch_norm.py:quickstart --workdir runs/sweeps

The argument: see docs/scaling.md.
"""

from neurolm_jax.studies.grids import ablation, everywhere
from neurolm_jax.studies.sweep import Sweep


def get_config(base: str = "quickstart") -> Sweep:
    return ablation(
        "Norm of patches",
        base,
        {"row norm": everywhere({"tokenizer.encoder.patch_norm": "row"})},
    )
