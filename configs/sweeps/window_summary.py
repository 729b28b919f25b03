"""Ablation of this project: answers with a summary of the window, and with noise on the features.

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
            "summary": {"instruct": {"summary.reads": ("features",)}},
            "noise": {"instruct": {"feature_noise": 1.0}},
            "both": {"instruct": {"summary.reads": ("features",), "feature_noise": 1.0}},
        },
        measured=("instruct",),
    )
