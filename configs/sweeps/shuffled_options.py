"""Ablation of the paper: lettered options in any order while tuning, and in any wording too.

  python -m neurolm_jax.scaling --sweep configs/sweeps/shuffled_options.py:quickstart --workdir runs/sweeps

Evaluation asks in the order that is published. Of the quickstart's sets none has lettered options, so there the first
variant must change nothing; take b,FOLDER and --set data.root=tasks for sets that do (TUEV, TUSL, SEED-IV, HMC).
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
