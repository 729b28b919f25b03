"""Memory in pages of 2 MB instead of 4 kB, where Linux gives them to those who ask and a CPU computes.

A step on a CPU takes gigabytes of buffers and gives them back; each page is made anew when it is first written to,
which took a tenth of a step of size B on a virtual machine. Accelerators' buffers are not the C library's.
"""

import importlib.metadata
import importlib.util
import logging
import os
import pathlib
import sys

SETTING = "glibc.malloc.hugetlb=1"
ACCELERATORS = "nvidia[0-9]*", "accel[0-9]*", "vfio/[0-9]*", "kfd"  # their files under /dev, of GPUs and TPUs
_STATE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def ask_for_them() -> None:
    """Start this process's program again with the C library told to ask; it reads that when a program starts.

    Nothing is done where the CPU is not what computes, in a job of several processes, where all get huge pages or none
    do, or where the setting is made already.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" in tunables or not on_request() or not cpu_computes():
        return
    logging.getLogger(__name__).debug("starting again with GLIBC_TUNABLES=%s", SETTING)
    sys.stdout.flush()
    sys.stderr.flush()
    environment = os.environ | {"GLIBC_TUNABLES": f"{tunables}:{SETTING}".strip(":")}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def on_request() -> bool:
    """Whether Linux gives huge pages to those who ask alone."""
    return sys.platform == "linux" and _STATE.exists() and "[madvise]" in _STATE.read_text()


def cpu_computes(devices: pathlib.Path = pathlib.Path("/dev")) -> bool:
    """Whether JAX will compute on this machine's CPU, in one process, told without JAX.

    Args:
      devices: the folder of device files.
    """
    if os.environ.get("NEUROLM_COORDINATOR"):
        return False
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    return not (has_plugin() and any(any(devices.glob(pattern)) for pattern in ACCELERATORS))


def has_plugin() -> bool:
    """Whether something is installed that lets JAX use a GPU or TPU."""
    found = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    return found or bool(importlib.metadata.entry_points(group="jax_plugins"))
