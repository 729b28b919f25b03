"""Ablation of this project: an encoder that sees the whole segment, as the released one, instead of the past alone.

  python -m neurolm_jax.scaling --sweep configs/sweeps/causal_encoder.py:quickstart --workdir runs/sweeps

Losses of later stages profit from a leak then (docs/numerics.md): only the answers compare.
The argument: see docs/scaling.md.
"""

from neurolm_jax.studies.grids import ablation, everywhere
from neurolm_jax.studies.sweep import Sweep


def get_config(base: str = "quickstart") -> Sweep:
    return ablation(
        "Causal or bidirectional encoder",
        base,
        {"bidirectional": everywhere({"tokenizer.encoder.causal": False})},
        measured=("instruct",),
    )
