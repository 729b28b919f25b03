"""Ablation of the paper: instruction tuning without autoregressive pre-training before it.

  python -m neurolm_jax.scaling --sweep configs/sweeps/no_pretraining.py:quickstart --workdir runs/sweeps

The pretrain stage takes over encoder and language model and makes no step. The argument: see docs/scaling.md.
"""

from neurolm_jax.studies.grids import ablation
from neurolm_jax.studies.sweep import Sweep


def get_config(base: str = "quickstart") -> Sweep:
    return ablation(
        "Without autoregressive pre-training",
        base,
        {"no pre-training": {"pretrain": {"steps": 0}}},
        measured=("instruct",),
    )
