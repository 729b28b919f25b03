"""The runs of a sweep, each an ordinary ``train`` in a process of its own."""

import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from neurolm_jax.errors import GO_ON_LATER, JobError, UserError
from neurolm_jax.inference.findings import evaluation_file
from neurolm_jax.studies.sweep import EVALUATED, Run, Sweep, arguments, in_order, load
from neurolm_jax.training import checkpoint
from neurolm_jax.training.preemption import Notice

CACHE = "compilation_cache"  # beside the runs: seeds and shares of data have one program


def run_all(sweep: Sweep, runs: pathlib.Path, notice: Notice) -> bool:
    """Train and evaluate what is not finished, one after the other; whether all is. What is begun goes on.

    Where a run was asked to end by itself, no other begins either: it might start from what is half trained.

    Args:
      notice: SIGTERM is handed on; the run at hand saves and ends, and no other begins.

    Raises:
      UserError: a run was refused. JobError: it ended otherwise. Both name its log.
    """
    begin, steps = time.monotonic(), list(_open_steps(sweep, runs))
    for count, (name, command) in enumerate(steps, start=1):
        print(f"{count} of {len(steps)}: {name}", flush=True)
        started = time.monotonic()
        if not _run(command, runs / f"{name}.log", notice):
            print("asked to end, the same command goes on")
            return False
        rest = (time.monotonic() - begin) / count * (len(steps) - count)
        print(f"  took {time.monotonic() - started:.0f} s, about {rest / 60:.0f} min left", flush=True)
    return True


def ready(sweep: Sweep, runs: pathlib.Path) -> tuple[list[str], int]:
    """Commands for a shell that can be started now, in any order and at the same time, and how many wait for them."""
    lines, waiting, known = [], 0, in_order(sweep)
    for name, command in _open_steps(sweep, runs):
        run = known[name]
        first = all(finished(earlier, runs) for earlier in run.initial.values())
        if "neurolm_jax.evaluate" in command:
            first = finished(run, runs)
        waiting += not first
        if first:
            lines.append(shlex.join(command))
    return lines, waiting


def finished(run: Run, runs: pathlib.Path) -> bool:
    """Whether a run's last checkpoint is there."""
    there = checkpoint.steps(runs / run.name)
    return bool(there) and there[-1] >= load(run).steps


def _open_steps(sweep, runs) -> Iterator[tuple[str, Sequence[str]]]:
    """Runs that are not finished, or not evaluated, by name, with their commands, in order; of those before measured
    ones only what these still need."""
    measured = {run.name for point in sweep.points for run in point.runs.values()}
    needed = set()

    def need(run):
        if run.name not in needed and not finished(run, runs):
            needed.add(run.name)
            for earlier in run.initial.values():
                need(earlier)

    known = in_order(sweep)
    for name in measured:
        need(known[name])
    for name, run in known.items():
        if name in needed:
            yield name, train_command(run, runs)
        wanted = sweep.evaluate and run.stage == "instruct" and name in measured
        if wanted and not evaluation_file(runs / name, EVALUATED).is_file():
            yield name, _evaluate_command(run, runs)


def train_command(run: Run, runs: pathlib.Path) -> list[str]:
    """The arguments, program first, that train a run in its folder under ``runs``, or go on with it."""
    initial = {stage: str(runs / earlier.name) for stage, earlier in run.initial.items()}
    line = ["--workdir", str(runs / run.name), *arguments(run, initial)]
    line.append(f"--config.compilation_cache={runs / CACHE}")
    return [sys.executable, "-m", "neurolm_jax.train", *line]


def _evaluate_command(run, runs):
    line = ["--checkpoint", str(runs / run.name), "--split", EVALUATED, "--quick"]
    if any(name.endswith(".py") for name in load(run).data.tasks):
        line.append("--trust_code")  # the sweep names it, and training has run it
    return [sys.executable, "-m", "neurolm_jax.evaluate", *line]


def _run(command, log, notice):
    """Whether the command ended well, without being asked to end."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        before = file.tell()  # of earlier attempts
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                if notice.here:
                    process.send_signal(signal.SIGTERM)
                    process.wait()
                time.sleep(0.2)
        finally:
            if process.poll() is None:  # this process ends otherwise: the run saves
                process.send_signal(signal.SIGTERM)
                process.wait()
    if notice.here or process.returncode == GO_ON_LATER:
        return False
    if process.returncode:
        lines = log.read_bytes()[before:].decode(errors="replace").splitlines()
        said = [line for line in lines if line.startswith("error: ")]
        why = said[-1].removeprefix("error: ") if said else f"it ended with code {process.returncode}"
        raise (UserError if process.returncode == 2 else JobError)(f"{log}: {why}")
    return True
