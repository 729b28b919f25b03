"""Low-rank adaptation: which parameters it trains, and how they go back into the weights (Hu et al. 2021).

The terms themselves are in ``transformer.Linear``: ``lora_down`` [in, r] and ``lora_up`` [r, out] beside a kernel.
"""

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

NAMES = ("lora_down", "lora_up")


def split(params: dict) -> tuple[dict, dict]:
    """Return what is trained, low-rank terms and the summary of a window (new in this stage too), and the rest."""
    flat = flatten_dict(params)
    terms = {path: leaf for path, leaf in flat.items() if path[-1] in NAMES or path[0] == "summary"}
    return unflatten_dict(terms), unflatten_dict({path: leaf for path, leaf in flat.items() if path not in terms})


def join(terms: dict, rest: dict) -> dict:
    """The inverse of ``split``."""
    return unflatten_dict(flatten_dict(terms) | flatten_dict(rest))


def fold(params: dict, scale: float) -> dict:
    """Parameters of the same function without low-rank terms: each is added to its kernel."""
    flat = flatten_dict(params)
    rest = {path: leaf for path, leaf in flat.items() if path[-1] not in NAMES}
    for path, down in flat.items():
        if path[-1] == "lora_down":
            kernel = (*path[:-1], "kernel")
            rest[kernel] = rest[kernel] + scale * jnp.matmul(down, flat[(*path[:-1], "lora_up")])
    return unflatten_dict(rest)
