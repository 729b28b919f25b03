"""Ends a process that has waited too long, and says for what."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping

INTERVAL = 1.0  # seconds between looks


class Watchdog:
    """Of one process.

    Args:
      patience: seconds for each phase by its name; 0 for any.
      process: number of this one, and how many there are.
      end: called with the exit code.
    """

    def __init__(self, patience: Mapping[str, float], process: tuple[int, int] = (0, 1), end=os._exit):
        self._patience, self._process, self._end = dict(patience), process, end
        self._phase: tuple[str, int, float] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")
        self._thread.start()

    @contextlib.contextmanager
    def phase(self, name: str, step: int) -> Iterator[None]:
        """What this process is at, in a step."""
        self._phase = name, step, time.monotonic()
        try:
            yield
        finally:
            self._phase = None

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self):
        while not self._closed.wait(INTERVAL):
            phase = self._phase
            if phase is None:
                continue
            name, step, begin = phase
            seconds = time.monotonic() - begin
            if self._patience[name] and seconds > self._patience[name]:
                number, count = self._process
                where = f"process {number} of {count}: " if count > 1 else ""
                print(
                    f"error: {where}step {step} has waited {seconds:.0f} s for {name} (config.patience.{name}); ended,"
                    " to be started again. Where it stands:",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(file=sys.__stderr__)
                self._end(1)
                return
