"""Devices of machines that are not here, to compile for."""

import os
import re

from neurolm_jax.ahead.chips import CHIPS, Chip
from neurolm_jax.errors import UserError

INSTALL = "pip install libtpu, in the version that 'pip show jax' lists for its extra 'tpu'"


def devices(name: str) -> tuple[Chip, list]:
    """The kind of chip, and the devices of a TPU slice such as ``v5p:4x4x4``.

    Raises:
      UserError: no such slice, or the compiler for it is not installed.
    """
    kind, _, shape = name.partition(":")
    if kind not in CHIPS or not re.fullmatch(r"\d+(x\d+){1,2}", shape):
        kinds = ", ".join(CHIPS)
        raise UserError(f"--topology {name}: want KIND:SHAPE such as v5e:4x4 or v5p:4x4x4; kinds are {kinds}")
    if CHIPS[kind].outside:
        raise UserError(f"--topology {name}: programs for GPUs cannot be compiled ahead yet; TPUs can")
    return CHIPS[kind], _tpus(name)


def _tpus(name):
    import jax
    from jax.experimental import topologies

    # Nobody is to be asked about a TPU of this machine.
    for variable in ("TPU_SKIP_MDS_QUERY", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES"):
        os.environ.setdefault(variable, {"TPU_SKIP_MDS_QUERY": "1"}.get(variable, ""))
    options = {}
    if name.startswith("v4:"):
        options = {"chip_config_name": "megacore", "chips_per_host_bounds": (2, 2, 1)}
    try:
        return list(topologies.get_topology_desc(name, "tpu", **options).devices)
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        if "libtpu" in text and "not" in text:
            raise UserError(f"--topology {name}: the compiler for TPUs is missing; {INSTALL}") from error
        raise UserError(f"--topology {name}: {text[:300]}") from error
