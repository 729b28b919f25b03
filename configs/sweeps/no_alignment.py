"""Ablation of the paper: the tokenizer without text alignment.

  python -m neurolm_jax.scaling --sweep configs/sweeps/no_alignment.py:quickstart --workdir runs/sweeps

About 40 minutes on two cores for the quickstart. The argument: see docs/scaling.md.
"""

from neurolm_jax.studies.grids import ablation
from neurolm_jax.studies.sweep import Sweep


def get_config(base: str = "quickstart") -> Sweep:
    return ablation("Without text alignment", base, {"no alignment": {"tokenizer": {"domain_loss_weight": 0.0}}})
