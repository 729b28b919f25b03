"""Ablation of the paper: sizes of the codebook, a quarter to four times the base's.

  python -m neurolm_jax.scaling --sweep configs/sweeps/codebook.py:quickstart --workdir runs/sweeps

The argument: see docs/scaling.md.
"""

from neurolm_jax.studies.grids import ablation, everywhere
from neurolm_jax.studies.sweep import Sweep

SIZES = {"quickstart": (64, 128, 512, 1024), "b": (2048, 4096, 16384, 32768)}  # beside the base's own


def get_config(base: str = "quickstart") -> Sweep:
    return ablation(
        "Codebook sizes",
        base,
        {f"{codes} codes": everywhere({"tokenizer.codes": codes}) for codes in SIZES.get(base, SIZES["b"])},
    )
