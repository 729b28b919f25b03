"""Ablation of the paper: pre-training starts from a language model with random weights.

  python -m neurolm_jax.scaling --sweep configs/sweeps/from_scratch.py:quickstart --workdir runs/sweeps

The tokenizer is aligned with the trained one as before. The argument: see docs/scaling.md.
"""

from neurolm_jax.studies.grids import PRETRAIN_LANGUAGE, ablation
from neurolm_jax.studies.sweep import Sweep


def get_config(base: str = "quickstart") -> Sweep:
    return ablation(
        "Language model from scratch",
        base,
        {"from scratch": {PRETRAIN_LANGUAGE: {"initial.gpt2": "", "steps": 0}}},
        measured=("pretrain", "instruct"),
    )
