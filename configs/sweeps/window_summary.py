"""Ablation of this project: answers with a summary of the window, by what it reads, and with noise on that.

  python -m neurolm_jax.scaling --sweep configs/sweeps/window_summary.py:quickstart --workdir runs/sweeps

The argument: see docs/scaling.md.
"""

from neurolm_jax.models.config import SUMMARY_READS
from neurolm_jax.studies.grids import ablation
from neurolm_jax.studies.sweep import Sweep


def get_config(base: str = "quickstart") -> Sweep:
    noise = {"feature_noise": 1.0}
    variants = {"noise": noise, "all of it": {"summary.reads": SUMMARY_READS, **noise}}
    variants["all of it, no noise"] = {"summary.reads": SUMMARY_READS}
    variants |= {read: {"summary.reads": (read,), **noise} for read in SUMMARY_READS}
    return ablation(
        "A summary of the window before the question",
        base,
        {name: {"instruct": fields} for name, fields in variants.items()},
        measured=("instruct",),
    )
