"""Train one stage.

  python -m neurolm_jax.train --config configs/quickstart.py:tokenizer --workdir W [--config.steps=40 ...]
  python -m neurolm_jax.train --config configs/pretrain.py:b [--config.batch_size=64 ...] --print | --dry_run

Started again with the same workdir it goes on from the newest checkpoint; a finished run is left as it is. SIGTERM
makes it save and end with code 75: the same command goes on later.
"""

import contextlib
import functools
import pathlib
import sys

from absl import flags

from neurolm_jax import configuration
from neurolm_jax.command import run
from neurolm_jax.command_line import CONFIG, config_file, parse_flags
from neurolm_jax.errors import GO_ON_LATER, UserError
from neurolm_jax.training import preemption, processes
from neurolm_jax.training.preemption import Notice
from neurolm_jax.training.processes import say

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints and metrics.")
_PRINT = flags.DEFINE_bool("print", False, "Print the derived and checked config as YAML, every field explained.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Open the data, compile a step, print tokens, steps, memory and time; write nothing."
)
_PROFILE = flags.DEFINE_integer(
    "profile", 0, "Trace so many steps, from the third after the start, into WORKDIR/profile.", lower_bound=0
)
_REPLAY = flags.DEFINE_integer(
    "replay",
    None,
    "Take this step of the run again, from the checkpoint before, and tell which of its rows and gradients are not"
    " finite.",
    lower_bound=1,
)


def train(
    config, workdir: pathlib.Path, replay: int | None = None, notice: Notice | None = None, profiled: int = 0
) -> bool:
    """Train a stage from where it is to its last step. Everything that differs between stages is in ``stages/``.

    Args:
      replay: a step to take a closer look at instead; nothing is written.
      notice: tells when to save and end.
      profiled: steps to trace.

    Returns:
      Whether the stage is finished; else it was asked to end, has saved, and the same call goes on.
    """
    import jax

    from neurolm_jax.outputs import locked
    from neurolm_jax.stages.inheritance import trained_on
    from neurolm_jax.stages.restore import restore_run
    from neurolm_jax.training import checkpoint, faults, health, profiling, provenance, saving
    from neurolm_jax.training.loop import Loop
    from neurolm_jax.training.replay import look_at
    from neurolm_jax.training.state import abstract_state, replicated_share
    from neurolm_jax.training.watchdog import Watchdog

    configuration.use_compilation_cache(config)
    stage, mesh, sources, held_out = plan(config)
    config = stage.config
    profiling.check(profiled, 0, config.steps)  # before there is a workdir
    process, abstract = (jax.process_index(), jax.process_count()), abstract_state(stage, mesh)
    if mesh.shape["fsdp"] * mesh.shape["tensor"] > 1 and (share := replicated_share(abstract)) > 0.1:
        say(f"mesh: {share:.0%} of the parameters are whole on every device; choose fsdp so that it divides the width")
    data = {name: rows.content for name, (rows, _) in sources.items()}
    restore = functools.partial(restore_run, stage, mesh, workdir, abstract)
    if replay is not None:
        look_at(replay, stage, mesh, workdir, restore, sources, data)
        return True
    with contextlib.ExitStack() as stack:
        watchdog = stack.enter_context(contextlib.closing(Watchdog(config.patience, process)))
        with watchdog.phase("restore", 0):
            stack.enter_context(locked(workdir) if process[0] == 0 else contextlib.nullcontext())
            step = checkpoint.newest_to_go_on(workdir)
            if step is not None:
                for line in provenance.check(workdir, checkpoint.read_meta(workdir, step), config, data):
                    say(f"{workdir}: goes on with {line}")
            state, progress = restore(step)
            told = trained_on(stage, workdir, step) if process[0] == 0 else None  # which finishes checkpoints
        checkpoints = stack.enter_context(saving.writing(workdir, config.keep_checkpoints, data, told))
        if (start := int(state.step)) >= config.steps:
            new = checkpoints.save(start, state, progress, config)
            say(f"{workdir}: {config.stage} {'taken over' if new else 'is trained already'}, {start} steps")
            return True
        profile = stack.enter_context(contextlib.closing(profiling.Profile(workdir, profiled, start, config.steps)))
        loop = Loop(stage, mesh, workdir, sources, held_out, checkpoints, watchdog, notice or Notice(), profile)
        while isinstance(back := loop.run(state, progress), faults.RollBack):
            del state  # there may be no room for two
            with watchdog.phase("restore", start):
                checkpoints.wait()
                step = checkpoint.newest_to_go_on(workdir)
                state, before = restore(step)
            before = before._replace(rollbacks=max(progress.rollbacks, before.rollbacks))
            progress = faults.roll_back(config, workdir, step or 0, before, back.position)
            state = state._replace(health=health.after_rollback(state.health, back.skipped))
        return back >= config.steps


def plan(config):
    """What a run needs, looked at before anything is made: the stage, its mesh, training and validation sources.

    The stage's config has numbers of steps where the given one has epochs and a fraction.

    Raises:
      UserError: something does not fit, or is not there.
    """
    from neurolm_jax import stages
    from neurolm_jax.stages.inheritance import check_inherited
    from neurolm_jax.training import mesh as meshes
    from neurolm_jax.training import schedule, sinks

    configuration.check(config)
    sinks.check(config)
    stage = stages.build(config)
    mesh = meshes.make_mesh(**config.mesh)
    sources, held_out = stage.sources(train=True), stage.sources(train=False)
    stage = stages.build(schedule.resolved_by(config, sources))
    meshes.check_batches(mesh, {name: size for name, (_, size) in sources.items()}, config.accumulation)
    check_inherited(config)
    return stage, mesh, sources, held_out


def with_lengths(config):
    """The config with numbers of steps in place of epochs and a fraction, as far as they are known without data.

    Where they follow from data that are not there yet, the config as it is; that is said on standard error.

    Raises:
      UserError: the data are there, and cannot be opened.
    """
    from neurolm_jax.data import remote
    from neurolm_jax.training import schedule

    if config.steps >= 0:
        return schedule.resolved(config)
    if not remote.is_url(config.data.root) and not pathlib.Path(config.data.root).is_dir():
        print(
            f"config.steps: follows from {config.epochs:g} epochs of what is in {config.data.root}, which is not there",
            file=sys.stderr,
        )
        return config
    from neurolm_jax import stages

    return schedule.resolved_by(config, stages.build(config).sources(train=True))


def plan_only(config) -> None:
    """Everything that a run needs looked at, its step compiled for the devices that are here, and the plan printed."""
    from neurolm_jax.ahead import dry_run

    stage, mesh, sources, held_out = plan(config)
    dry_run.show(stage, mesh, sources, held_out)


def main() -> int | None:
    parse_flags(sys.argv, "config")
    config = CONFIG.value
    if "tasks" in config.data:  # files of the user's own are found again from any folder
        from neurolm_jax.eeg.tasks import FILE_SUFFIXES

        names = config.data.tasks
        config.data.tasks = tuple(str(pathlib.Path(n).absolute()) if n.endswith(FILE_SUFFIXES) else n for n in names)
    configuration.check(config)  # before heavy imports
    if _PRINT.value:
        from neurolm_jax.reporting import fields

        print(
            fields.to_yaml(with_lengths(config), fields.documentation(config.stage, config_file().partition(":")[0])),
            end="",
        )
    elif _DRY_RUN.value:
        with processes.joined():
            plan_only(config)
    elif not _WORKDIR.value:
        raise UserError("--workdir is missing; see 'python -m neurolm_jax.train --help'")
    else:
        with preemption.noticed() as notice, processes.joined():
            finished = train(config, pathlib.Path(_WORKDIR.value), _REPLAY.value, notice, _PROFILE.value)
        return None if finished else GO_ON_LATER
    return None


if __name__ == "__main__":
    run(main, computes=True)
