"""A trace of some training steps, that XProf and TensorBoard open."""

import pathlib
from collections.abc import Callable

import jax

from neurolm_jax.errors import UserError

BEFORE = 2  # steps: the first compiles, in the second buffers are made


def check(count: int, start: int, stop: int) -> None:
    """Refuse a trace of more steps than a run from ``start`` to ``stop`` takes.

    Raises:
      UserError: too few steps are left.
    """
    if count and stop - start < BEFORE + count:
        raise UserError(
            f"--profile {count}: {stop - start} steps are left, the first {BEFORE} of which are not traced; ask for"
            " fewer, or raise config.steps"
        )


class Profile:
    """Traces ``count`` steps from the third after the start into WORKDIR/profile; 0 traces none.

    Of several processes the first alone, and its devices.

    Args:
      start, stop: the run's steps so far and in all.

    Raises:
      UserError: too few steps are left.
    """

    def __init__(self, workdir: pathlib.Path, count: int, start: int, stop: int):
        check(count, start, stop)
        self.folder, self._step = workdir / "profile", start
        self._first, self._last = start + BEFORE + 1, start + BEFORE + count
        self._traces, self._tracing = bool(count) and jax.process_index() == 0, False

    def around(self, step: Callable) -> Callable:
        """A step that is traced when its turn has come, and marked by its number."""
        if not self._traces:
            return step

        def traced(*arguments):
            self._step += 1
            if self._step == self._first:
                jax.profiler.start_trace(self.folder)
                self._tracing = True
            with jax.profiler.StepTraceAnnotation("train", step_num=self._step):
                found = step(*arguments)
            if self._step == self._last:
                jax.block_until_ready(found)
                self.close()
                print(f"{self.folder}: a trace of steps {self._first} to {self._last}")
            return found

        return traced

    def close(self) -> None:
        """End a trace that is under way."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
