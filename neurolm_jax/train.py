"""Train one stage.

  python -m neurolm_jax.train --config configs/quickstart.py:tokenizer --workdir W [--config.steps=40 ...]

Started again with the same workdir it goes on from the newest checkpoint; a finished run is left as it is. SIGTERM
makes it save and end. --replay STEP takes one step again, from the checkpoint before, and tells which of its rows and
gradients are not finite.
"""

import contextlib
import functools
import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from neurolm_jax import configuration
from neurolm_jax.command import run
from neurolm_jax.errors import UserError
from neurolm_jax.training import preemption, processes
from neurolm_jax.training.preemption import Notice
from neurolm_jax.training.processes import say

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, with its argument after a colon.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints and metrics.")
_REPLAY = flags.DEFINE_integer("replay", None, "Look at this step of the run again instead of going on.", lower_bound=1)


def train(config, workdir: pathlib.Path, replay: int | None = None, notice: Notice | None = None) -> None:
    """A stage from where it is to its last step. Everything that differs between stages is in ``stages/``.

    Args:
      replay: a step to take a closer look at instead; nothing is written.
      notice: tells when to save and end.
    """
    import jax

    from neurolm_jax.outputs import locked
    from neurolm_jax.stages.restore import restore_run
    from neurolm_jax.training import checkpoint, faults, health, provenance
    from neurolm_jax.training.loop import Loop
    from neurolm_jax.training.replay import look_at
    from neurolm_jax.training.state import abstract_state, whole_share
    from neurolm_jax.training.watchdog import Watchdog

    configuration.use_compilation_cache(config)
    stage, mesh, sources, held_out = plan(config)
    process, abstract = (jax.process_index(), jax.process_count()), abstract_state(stage, mesh)
    if mesh.shape["fsdp"] * mesh.shape["tensor"] > 1 and (share := whole_share(abstract)) > 0.1:
        say(f"mesh: {share:.0%} of the parameters are whole on every device; choose fsdp so that it divides the width")
    data = {name: rows.content for name, (rows, _) in sources.items()}
    restore = functools.partial(restore_run, stage, mesh, workdir, abstract)
    if replay is not None:
        look_at(replay, stage, mesh, workdir, restore, sources, data)
        return
    with contextlib.ExitStack() as stack:
        watchdog = stack.enter_context(contextlib.closing(Watchdog(config.patience, process)))
        with watchdog.phase("restore", 0):
            stack.enter_context(locked(workdir) if process[0] == 0 else contextlib.nullcontext())
            step = checkpoint.newest_to_go_on(workdir)
            if step is not None:
                for line in provenance.check(workdir, checkpoint.read_meta(workdir, step), config, data):
                    say(f"{workdir}: goes on with {line}")
            state, progress = restore(step)
        checkpoints = stack.enter_context(checkpoint.writing(workdir, config.keep_checkpoints, data))
        if (start := int(state.step)) >= config.steps:
            new = checkpoints.save(start, state, progress, config)
            say(f"{workdir}: {config.stage} {'taken over' if new else 'is trained already'}, {start} steps")
            return
        loop = Loop(stage, mesh, workdir, sources, held_out, checkpoints, watchdog, notice or Notice())
        while back := loop.run(state, progress):
            del state  # there may be no room for two
            with watchdog.phase("restore", start):
                checkpoints.wait()
                step = checkpoint.newest_to_go_on(workdir)
                state, before = restore(step)
            before = before._replace(rollbacks=max(progress.rollbacks, before.rollbacks))
            progress = faults.roll_back(config, workdir, step or 0, before, back.position)
            state = state._replace(health=health.after_rollback(state.health, back.skipped))


def plan(config):
    """What a run needs, looked at before anything is made: the stage, its mesh, training and validation sources.

    Raises:
      UserError: something does not fit, or is not there.
    """
    from neurolm_jax.stages.inheritance import check_inherited
    from neurolm_jax.training import mesh as meshes

    configuration.check(config)
    stage = build(config)
    mesh = meshes.make_mesh(**config.mesh)
    sources, held_out = stage.sources(train=True), stage.sources(train=False)
    meshes.check_batches(mesh, {name: size for name, (_, size) in sources.items()}, config.accumulation)
    check_inherited(config)
    return stage, mesh, sources, held_out


def build(config):
    """The stage of a config, with errors of its model's fields in one line."""
    from neurolm_jax import stages

    try:
        return stages.build(config)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"config: {error}") from error


def main() -> None:
    config, workdir = parse(sys.argv)
    if "tasks" in config.data:  # files of the user's own are found again from any folder
        names = config.data.tasks
        config.data.tasks = tuple(str(pathlib.Path(n).absolute()) if n.endswith(".py") else n for n in names)
    configuration.check(config)  # before heavy imports
    with preemption.noticed() as notice, processes.joined():
        train(config, workdir, _REPLAY.value, notice)


def parse(argv: list[str]):
    """Config and workdir of a command line; every fault in it is a UserError."""
    parse_flags(argv, "config", "workdir")
    return _CONFIG.value, pathlib.Path(_WORKDIR.value)


def parse_flags(argv: list[str], *needed: str) -> None:
    """The same for a command line with other flags beside ``--config``, some of which are needed."""
    try:
        rest = flags.FLAGS(argv)[1:]
        if _CONFIG.value is not None:
            _ = _CONFIG.value.stage  # a config file that could not be read says so only here
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, ImportError) as error:
        raise UserError(error) from error
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}")
    for name in needed:
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing; see 'python -m neurolm_jax.train --help'")


if __name__ == "__main__":
    run(main, computes=True)
