"""Memory in pages of 2 MB instead of 4 kB, where Linux gives them to those who ask.

A step on a CPU takes gigabytes of buffers and gives them back; each page is made anew when it is first written to,
which took a tenth of a step of size B on a virtual machine.
"""

import os
import pathlib
import sys

SETTING = "glibc.malloc.hugetlb=1"
_STATE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def ask_for_them() -> None:
    """Start this process's program again with the C library told to ask; it reads that when a program starts. Nothing
    where all get them, where none are, or where the setting is made already.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" in tunables or not on_request():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    environment = os.environ | {"GLIBC_TUNABLES": f"{tunables}:{SETTING}".strip(":")}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def on_request() -> bool:
    """Whether Linux gives huge pages to those who ask alone."""
    return sys.platform == "linux" and _STATE.exists() and "[madvise]" in _STATE.read_text()
