"""Ablation of this project: answers without the window's summary, and without noise on the features.

  python -m neurolm_jax.scaling --sweep configs/sweeps/window_summary.py:quickstart --workdir runs/sweeps

The argument: see docs/scaling.md.
"""

from neurolm_jax.studies.grids import ablation
from neurolm_jax.studies.sweep import Sweep


def get_config(base: str = "quickstart") -> Sweep:
    return ablation(
        "A summary of the window before the question",
        base,
        {
            "no summary": {"instruct": {"summary_width": 0}},
            "no noise": {"instruct": {"feature_noise": 0.0}},
            "neither (paper)": {"instruct": {"summary_width": 0, "feature_noise": 0.0}},
        },
        measured=("instruct",),
    )
