"""Ablation of the paper: the tokenizer without text alignment.

  python -m neurolm_jax.scaling --sweep configs/sweeps/no_alignment.py:quickstart --workdir runs/sweeps

Three seeds of all stages with and without the domain loss; about 40 minutes on two cores, the baseline shared with the
other ablations in the same workdir. The argument is
quickstart, or b,FOLDER with the weights of GPT-2.
"""

from neurolm_jax.studies.grids import ablation
from neurolm_jax.studies.sweep import Sweep


def get_config(base: str = "quickstart") -> Sweep:
    return ablation("Without text alignment", base, {"no alignment": {"tokenizer": {"domain_loss_weight": 0.0}}})
