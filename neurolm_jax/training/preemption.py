"""SIGTERM: whoever takes the machine away says so shortly before."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

from neurolm_jax.errors import GO_ON_LATER


class Notice:
    """Whether this run is asked to end. A signal is noticed even while the compiler works; until ``armed``, when there
    is something to save, it ends the process at once, with code 75 (``errors.GO_ON_LATER``)."""

    def __init__(self):
        self.armed = False
        self._asked = threading.Event()
        self._looks = 0

    def asked(self) -> bool:
        """True at the same look in every process of a job."""
        import jax

        if not jax.distributed.is_initialized():
            return self._asked.is_set()
        from jax.experimental import multihost_utils

        self._looks += 1  # a step may come twice; what processes agree on may not
        return multihost_utils.reached_preemption_sync_point(self._looks)

    @property
    def here(self) -> bool:
        """Whether this process was asked, if it is the only one."""
        return self._asked.is_set()

    def _watch(self, pipe):
        while told := pipe.recv(64):
            if signal.SIGTERM in told:
                self._asked.set()
                if not self.armed:
                    os._exit(GO_ON_LATER)


@contextlib.contextmanager
def noticed() -> Iterator[Notice]:
    """A notice that SIGTERM sets while the block lasts; from where a process has joined a job on, JAX's own service
    takes the signal, with which all processes agree on a step."""
    notice = Notice()
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return
    written, read = socket.socketpair()
    written.setblocking(False)
    thread = threading.Thread(target=notice._watch, args=(read,), daemon=True, name="preemption")
    thread.start()
    # Python runs handlers between instructions of the main thread, which may be long in coming; the pipe is at once.
    before = signal.signal(signal.SIGTERM, lambda *_: None), signal.set_wakeup_fd(written.fileno())
    try:
        yield notice
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.set_wakeup_fd(before[1])
        written.close()
        thread.join()
        read.close()
