"""The loop over a stage's steps."""

import contextlib
import math
import pathlib
import time

import jax
from tqdm import tqdm

from neurolm_jax.data import streams
from neurolm_jax.data.held_out import held_out_steps
from neurolm_jax.errors import memory_told
from neurolm_jax.training import faults, metrics, sinks
from neurolm_jax.training.checkpoint import Progress
from neurolm_jax.training.collapse import Collapse
from neurolm_jax.training.gradients import weighted
from neurolm_jax.training.mesh import put_batch, rows_per_local_row, rows_to_read
from neurolm_jax.training.preemption import Notice
from neurolm_jax.training.profiling import Profile
from neurolm_jax.training.saving import Checkpoints
from neurolm_jax.training.state import TrainState, make_train_step, make_validation_step, prepare
from neurolm_jax.training.watchdog import Watchdog

OF_TASKS = "answer_"  # how metrics begin that a task has of its own


class Loop:
    """Takes steps, validates, logs, saves.

    Args:
      sources, held_out: as ``Stage.sources`` gives them, to learn from and to validate on.
    """

    def __init__(
        self,
        stage,
        mesh,
        workdir: pathlib.Path,
        sources,
        held_out,
        checkpoints: Checkpoints,
        watchdog: Watchdog,
        notice: Notice,
        profile: Profile,
    ):
        self._stage, self._mesh, self._workdir, self._config = stage, mesh, workdir, stage.config
        self._checkpoints, self._watchdog, self._notice = checkpoints, watchdog, notice
        self._train_step = profile.around(make_train_step(stage, mesh))
        self._validation_step = make_validation_step(stage, mesh)
        self._sources = sources
        limits = stage.config.validation_rows, stage.config.validation_text_rows
        mine = rows_to_read(mesh, held_out)
        self._validation = held_out_steps(held_out, stage.empty_rows(), *limits, mine)
        rows, size = next(iter(sources.values()))
        self._epochs = size / len(rows)  # of the first source, in a step
        self._damaged = faults.Damaged(stage.config.data.damaged)
        self._begin = time.perf_counter()
        self._compiles = True

    def run(self, state: TrainState, progress: Progress) -> faults.RollBack | int:
        """Take steps from a state on, up to the last or until asked to end.

        Returns:
          The last step taken, which is saved; or what to roll back for.
        """
        config, start = self._config, int(state.step)
        mine = rows_to_read(self._mesh, self._sources)
        steps = streams.Steps(self._sources, progress.position + config.steps - start, mine)
        writer = sinks.Writer(self._workdir, config, start)
        with contextlib.closing(writer), self._bar(start) as bar:
            try:
                step, loss = self._steps(state, progress, start, steps, writer, bar)
            except faults.RollBack as back:
                self._begin = time.perf_counter()
                return back.with_traceback(None)  # which would hold the state
        with self._watchdog.phase("save", step):
            self._checkpoints.wait()
        if jax.process_index() == 0:
            if step < config.steps:
                print(
                    f"{self._workdir}: asked to end, saved at step {step} of {config.steps}; the same command goes on"
                )
            else:
                print(f"{self._workdir}: {config.stage}, {config.steps} steps, loss {loss:.3f}")
        return step

    def _steps(self, state, progress, start, steps, writer, bar):
        """The last step taken, and the loss when it was last looked at."""
        config, clock, rng = self._config, metrics.Clock(), jax.random.key(self._config.seed)
        collapse = Collapse(config.faults.collapse, 2 * config.warmup_steps)
        looks, batches, loss = faults.Faults(config, self._workdir, steps), self._batches(steps, progress), math.nan
        for step in range(start + 1, config.steps + 1):
            waiting = time.perf_counter()
            with self._watchdog.phase("data", step):
                tokens, batch, damaged = next(batches)
            clock.batch(time.perf_counter() - waiting, tokens, state.step.is_ready())
            self._damaged.add(damaged)
            with self._watchdog.phase("compile" if self._compiles else "step", step), memory_told():
                if step == 1:
                    state = prepare(self._stage, self._mesh, state, batch, rng)
                state, measured = self._train_step(state, batch, rng)
            looks.add(step, progress.position, measured)
            progress = progress._replace(position=progress.position + 1)
            self._compiles, self._notice.armed = False, True

            with self._watchdog.phase("step", step):
                last, asked = step == config.steps, self._notice.asked()
                saves = last or asked or step % config.checkpoint_every == 0
                validates = not asked and config.evaluate_every and (last or step % config.evaluate_every == 0)
                logs = last or validates or step == 1 or step % config.log_every == 0
                if logs:
                    found = metrics.scalars(measured) | clock.read()
                    found |= {"damaged_records": len(self._damaged), "epoch": progress.position * self._epochs}
                    loss = found["loss"]
                    collapse.look(step, found)
                if logs or saves:
                    looks.look()
                    self._checkpoints.check()
                if validates:
                    with clock.paused():
                        validated = self._validate(state.weights)
                if validates and validated:
                    progress = progress._replace(best=_best(progress.best, step, validated["validation_loss"]))
                    found |= validated
                    found |= {"best_validation_loss": progress.best["validation_loss"]} if progress.best else {}
                if logs:
                    writer.write(step, found | {"seconds": writer.seconds + time.perf_counter() - self._begin})
                    bar.set_postfix_str(f"loss {loss:.3f}, {found['tokens_per_second']:,.0f} tokens/s")
            if saves:
                with self._watchdog.phase("save", step):
                    jax.block_until_ready(state)  # which saving waits for, but is the step's time
                    with clock.paused():
                        self._checkpoints.save(step, state, progress, config)
            bar.update()
            if asked:
                break
        return step, loss

    def _batches(self, steps, progress):
        """(valid tokens of the global batch, the batch on devices, what could not be read of it), read ahead.

        Tokens are counted among the rows that this process reads, and taken to be as many in the others.
        """
        config, repeated = self._config, rows_per_local_row(self._mesh)
        batches = streams.iterate(steps, progress.position, config.data.threads, config.data.workers)
        return streams.prefetch(
            (
                round(metrics.count_tokens(batch) * repeated),
                put_batch(self._mesh, streams.without_faults(batch)),
                damaged,
            )
            for batch in batches
            for damaged in [batch.get(streams.FAULTS, [])]
        )

    def _validate(self, weights):
        """Metrics over the validation part, named ``validation_*``, those of a task with its name behind; none if the
        run is asked to end meanwhile."""
        found, scalars = [], {}
        for task, steps in self._validation:
            of_task = []
            for i in range(len(steps)):
                batch = streams.without_faults(steps[i])
                of_task.append(self._validation_step(weights, put_batch(self._mesh, batch)))
                if self._notice.here:
                    return {}
            if task and of_task:
                losses, others = metrics.total(of_task)
                values = metrics.scalars({k: v for k, v in (losses | others).items() if k.startswith(OF_TASKS)})
                scalars |= {f"{key}_{task}": value for key, value in values.items()}
            found += of_task
        losses, others = metrics.total(found)
        scalars |= metrics.scalars(losses | others | {"loss": weighted(self._stage, losses)})
        return {f"validation_{key}": value for key, value in scalars.items()}

    def _bar(self, start):
        quiet = True if jax.process_index() else None  # None: where there is no terminal
        total, name = self._config.steps, self._config.stage
        return tqdm(total=total, initial=start, desc=name, unit=" steps", dynamic_ncols=True, disable=quiet)


def _best(best, step, loss):
    """The lowest validation loss so far, and its step."""
    if not math.isfinite(loss) or (best and loss >= best["validation_loss"]):
        return best
    return {"step": step, "validation_loss": loss}
