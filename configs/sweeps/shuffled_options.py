"""Ablation of the paper: lettered options in any order while tuning, and in any wording too.

  python -m neurolm_jax.scaling --sweep configs/sweeps/shuffled_options.py:quickstart --workdir runs/sweeps

Evaluation asks in the order that is published. None of the quickstart's sets has lettered options, so there the first
variant changes nothing; b,FOLDER reads sets that do (TUEV, TUSL, SEED-IV, HMC). The argument: see docs/scaling.md.
"""

from neurolm_jax.studies.grids import ablation
from neurolm_jax.studies.sweep import Sweep


def get_config(base: str = "quickstart") -> Sweep:
    return ablation(
        "Shuffled options",
        base,
        {
            "shuffled options": {"instruct": {"data.prompts": "shuffled"}},
            "other words too": {"instruct": {"data.prompts": "varied"}},
        },
        measured=("instruct",),
    )
