"""Ablation of this project: answers without a summary of the window, without one of its readings, without noise.

  python -m neurolm_jax.scaling --sweep configs/sweeps/window_summary.py:quickstart --workdir runs/sweeps

The argument: see docs/scaling.md.
"""

from neurolm_jax.models.config import SUMMARY_READS
from neurolm_jax.studies.grids import ablation
from neurolm_jax.studies.sweep import Sweep

READS = ("spectrum", "rhythms", "waveform")  # the quickstart's


def get_config(base: str = "quickstart") -> Sweep:
    variants = {
        "none, no noise": {"summary.reads": (), "feature_noise": 0.0},
        "none": {"summary.reads": ()},
        "no noise": {"summary.reads": READS, "feature_noise": 0.0},
        "no dropout": {"summary.reads": READS, "summary.dropout": 0.0},
        "features too": {"summary.reads": SUMMARY_READS},
    }
    variants |= {f"without {left}": {"summary.reads": tuple(r for r in READS if r != left)} for left in READS}
    return ablation(
        "A summary of the window before the question",
        base,
        {name: {"instruct": fields} for name, fields in variants.items()},
        measured=("instruct",),
    )
