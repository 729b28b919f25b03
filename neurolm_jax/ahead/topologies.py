"""Devices of machines that are not here, to compile for."""

import os
import re

from neurolm_jax.ahead.chips import CHIPS, Chip
from neurolm_jax.errors import UserError

INSTALL = {
    "tpu": "pip install libtpu, in the version that 'pip show jax' lists for its extra 'tpu'",
    "cuda": "pip install 'jax[cuda12]'",
}


def devices(name: str) -> tuple[Chip, list]:
    """The kind of chip, and the devices of a TPU slice such as ``v5p:4x4x4`` or of ``h100:4x8``, nodes x GPUs.

    Raises:
      UserError: no such slice, or the compiler for it is not installed.
    """
    kind, _, shape = name.partition(":")
    if kind not in CHIPS or not re.fullmatch(r"\d+(x\d+){1,2}", shape):
        kinds = ", ".join(CHIPS)
        raise UserError(f"--topology {name}: want KIND:SHAPE such as v5e:4x4, v5p:4x4x4 or h100:4x8; kinds are {kinds}")
    chip = CHIPS[kind]
    if not chip.node:
        return chip, _tpus(name)
    nodes, _, each = shape.partition("x")
    if each != str(chip.node):
        raise UserError(f"--topology {name}: want NODESx{chip.node}, nodes of {chip.node} {chip.name}")
    return chip, _gpus(name, f"1x{nodes}x{each}", chip)


def _tpus(name):
    # Nobody is to be asked about a TPU of this machine, nor kept from it.
    for variable in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        os.environ.setdefault(variable, "1")
    for variable in ("TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES"):
        os.environ.setdefault(variable, "")
    options = {}
    if name.startswith("v4:"):
        options = {"chip_config_name": "megacore", "chips_per_host_bounds": (2, 2, 1)}
    return _described(name, name, "tpu", options)


def _gpus(name, shape, chip):
    return _described(name, shape, "cuda", {"topology": shape, "target_config": chip.target})


def _described(name, shape, platform, options):
    import jax
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(shape, platform, **options).devices)
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError, NotImplementedError) as error:
        text = " ".join(str(error).split())
        if re.search(rf"(?i)(lib)?{platform}.*\b(not|no)\b|\b(not|no)\b.*{platform}", text):
            raise UserError(
                f"--topology {name}: its compiler is missing ({text[:200]}); {INSTALL[platform]}"
            ) from error
        raise UserError(f"--topology {name}: {text[:300]}") from error
