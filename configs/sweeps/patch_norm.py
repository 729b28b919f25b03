"""Ablation of this project: group norm over the row, as in the released models, instead of over each patch.

  python -m neurolm_jax.scaling --sweep configs/sweeps/patch_norm.py:quickstart --workdir runs/sweeps

The argument is a size.
"""

from neurolm_jax.studies.grids import ablation, everywhere


def get_config(base: str = "quickstart"):
    return ablation(
        "Norm of patches",
        base,
        {"row norm": everywhere(tokenizer__encoder__patch_norm="row")},
    )
