"""Ablation of this project: dead codes are not revived, as in the released models, or revived late.

  python -m neurolm_jax.scaling --sweep configs/sweeps/revival.py:quickstart --workdir runs/sweeps

The argument is a size.
"""

from neurolm_jax.studies.grids import ablation, everywhere


def get_config(base: str = "quickstart"):
    return ablation(
        "Revival of dead codes",
        base,
        {
            "no revival": everywhere(tokenizer__dead_below=0.0),
            "late revival": everywhere(tokenizer__dead_below=0.01),
        },
    )
