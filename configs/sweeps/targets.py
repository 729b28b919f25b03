"""Ablation of the paper: the tokenizer rebuilds patches in time alone, or their spectra alone.

  python -m neurolm_jax.scaling --sweep configs/sweeps/targets.py:quickstart --workdir runs/sweeps

The reconstruction that is not learnt is measured all the same. The argument: see docs/scaling.md.
"""

from neurolm_jax.studies.grids import ablation
from neurolm_jax.studies.sweep import Sweep


def get_config(base: str = "quickstart") -> Sweep:
    return ablation(
        "Temporal or frequency target alone",
        base,
        {
            "temporal alone": {"tokenizer": {"frequency_loss_weight": 0.0}},
            "frequency alone": {"tokenizer": {"raw_loss_weight": 0.0}},
        },
    )
