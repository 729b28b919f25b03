"""Train one stage.

  python -m neurolm_jax.train --config configs/quickstart.py:tokenizer --workdir W [--config.steps=40 ...]

Started again with the same workdir it goes on from the newest checkpoint; a finished run is left as it is. SIGTERM
makes it save and end. --replay STEP takes one step again, from the checkpoint before, and tells which of its rows and
gradients are not finite.
"""

import contextlib
import pathlib
import sys
import time

from absl import flags
from ml_collections import config_flags

from neurolm_jax import configuration
from neurolm_jax.command import run
from neurolm_jax.errors import UserError, out_of_memory

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, with its argument after a colon.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints and metrics.")
_REPLAY = flags.DEFINE_integer("replay", None, "Look at this step of the run again instead of going on.", lower_bound=1)


def train(config, workdir: pathlib.Path, replay: int | None = None) -> None:
    """The loop. Everything that differs between stages is in ``stages/``.

    Args:
      replay: a step to take a closer look at instead; nothing is written.
    """
    begin = time.perf_counter()
    configuration.check(config)  # before heavy imports

    import jax

    from neurolm_jax.data import streams
    from neurolm_jax.training import checkpoint, faults, metrics, preemption
    from neurolm_jax.training import mesh as meshes
    from neurolm_jax.training.replay import look_at
    from neurolm_jax.training.state import abstract_state, make_train_step, make_validation_step, prepare, whole_share
    from neurolm_jax.training.watchdog import Watchdog

    configuration.use_compilation_cache(config)
    stage, mesh, sources, held_out = plan(config)
    process = jax.process_index(), jax.process_count()
    rows, size = next(iter(held_out.values()))
    validation = streams.Steps(held_out, min(max(1, len(rows) // size), config.validation_batches), *process)

    abstract, rng = abstract_state(stage, mesh), jax.random.key(config.seed)
    if mesh.shape["fsdp"] * mesh.shape["tensor"] > 1 and (share := whole_share(abstract)) > 0.1:
        _say(f"mesh: {share:.0%} of the parameters are whole on every device; choose fsdp so that it divides the width")
    train_step, validation_step = make_train_step(stage, mesh), make_validation_step(stage, mesh)

    def run(state, progress):
        """Steps from a state on, up to the last or until asked to end."""
        start, compiles = int(state.step), True
        steps = streams.Steps(sources, progress.position + config.steps - start, *process)
        batches = streams.iterate(steps, progress.position, config.data.threads, config.data.workers)
        batches = ((metrics.count_tokens(batch) * process[1], meshes.put_batch(mesh, batch)) for batch in batches)
        batches = streams.prefetch(batches)
        writer, looks = metrics.Writer(workdir, config.stage, start), faults.Faults(config, workdir, steps)
        rows, size = next(iter(sources.values()))
        clock = metrics.Clock()
        with _progress(config, start) as bar, contextlib.closing(writer):
            for step in range(start + 1, config.steps + 1):
                waiting = time.perf_counter()
                with watchdog.phase("data", step):
                    tokens, batch = next(batches)
                clock.batch(time.perf_counter() - waiting, tokens)
                with watchdog.phase("compile" if compiles else "step", step), _memory_told():
                    if step == 1:
                        state = prepare(stage, mesh, state, batch, rng)
                    state, measured = train_step(state, batch, rng)
                looks.add(step, progress.position, measured)
                progress = progress._replace(position=progress.position + 1)
                compiles, notice.armed = False, True

                last, asked = step == config.steps, notice.asked(step)
                saves = last or asked or step % config.checkpoint_every == 0
                validates = config.evaluate_every and (last or step % config.evaluate_every == 0)
                logs = validates or step == 1 or step % config.log_every == 0
                if logs:
                    with watchdog.phase("step", step):
                        found = metrics.scalars(measured) | clock.read()
                if saves or logs:
                    with watchdog.phase("step", step):
                        looks.look()
                if validates:
                    with watchdog.phase("step", step):
                        found |= _validate(stage, validation_step, state.weights, validation, mesh)
                    progress = progress._replace(best=_best(progress.best, step, found["validation_loss"]))
                    found["best_validation_loss"] = progress.best["validation_loss"]
                if logs:
                    found["epoch"] = progress.position * size / len(rows)
                    writer.write(step, found | {"seconds": writer.seconds + time.perf_counter() - begin})
                    bar.set_postfix_str(f"loss {found['loss']:.3f}, {found['tokens_per_second']:,.0f} tokens/s")
                if saves:
                    with watchdog.phase("save", step):
                        checkpoints.save(step, state, progress, config)
                bar.update()
                if asked and not last:
                    break
        with watchdog.phase("save", step):
            checkpoints.wait()
        if step < config.steps:
            _say(f"{workdir}: asked to end, saved at step {step} of {config.steps}; the same command goes on")
        else:
            _say(f"{workdir}: {config.stage}, {config.steps} steps, loss {found['loss']:.3f}")

    if replay is not None:
        look_at(replay, stage, mesh, workdir, abstract, train_step, sources)
        return
    state, progress = _begin(stage, mesh, workdir, abstract)
    with contextlib.ExitStack() as stack:
        notice = stack.enter_context(preemption.noticed())
        watchdog = stack.enter_context(contextlib.closing(Watchdog(config.patience, process)))
        checkpoints = stack.enter_context(checkpoint.writing(workdir, config.keep_checkpoints))
        if (start := int(state.step)) >= config.steps:
            new = checkpoints.save(start, state, progress, config)
            _say(f"{workdir}: {config.stage} {'taken over' if new else 'is trained already'}, {start} steps")
            return
        while True:
            try:
                run(state, progress)
                return
            except faults.RollBack as rollback:
                checkpoints.wait()
                state, before = _begin(stage, mesh, workdir, abstract)
                rollbacks = max(progress.rollbacks, before.rollbacks)
                progress = faults.roll_back(config, before._replace(rollbacks=rollbacks), rollback.position)


def plan(config):
    """What a run needs, looked at before anything is made: the stage, its mesh, training and validation sources.

    Raises:
      UserError: something does not fit, or is not there.
    """
    from neurolm_jax.stages.inheritance import check_inherited
    from neurolm_jax.training import mesh as meshes

    configuration.check(config)
    stage = build(config)
    check_inherited(config)
    mesh = meshes.make_mesh(**config.mesh)
    sources, held_out = stage.sources(train=True), stage.sources(train=False)
    meshes.check_batches(mesh, {name: size for name, (_, size) in sources.items()}, config.accumulation)
    return stage, mesh, sources, held_out


def _begin(stage, mesh, workdir, abstract):
    """The state to go on from, and how far that is: of the newest whole checkpoint, or the initial one."""
    import jax

    from neurolm_jax.stages.restore import restore_weights
    from neurolm_jax.training import checkpoint, provenance
    from neurolm_jax.training.state import create_state, state_shardings

    step = checkpoint.newest_to_go_on(workdir)
    if step is not None:
        for line in provenance.check(workdir, checkpoint.read_meta(workdir, step), stage.config):
            _say(f"{workdir}: goes on with {line}")
        return checkpoint.restore(workdir, step, abstract)
    state = create_state(stage, mesh)
    weights = stage.inherit(state.weights, lambda path: restore_weights(path, mesh))
    state = state._replace(weights=jax.device_put(weights, state_shardings(stage, mesh).weights))
    return state, checkpoint.Progress()


def _best(best, step, loss):
    """The lowest validation loss so far, and its step."""
    return {"step": step, "validation_loss": loss} if best is None or loss < best["validation_loss"] else best


@contextlib.contextmanager
def _memory_told():
    """A program that devices have no memory for, in one line."""
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if full := out_of_memory(error):
            raise full from error
        raise


def build(config):
    """The stage of a config, with errors of its model's fields in one line."""
    from neurolm_jax import stages

    try:
        return stages.build(config)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"config: {error}") from error


def _validate(stage, validation_step, weights, validation, mesh):
    """Metrics over the validation part, named ``validation_*``."""
    from neurolm_jax.training import metrics
    from neurolm_jax.training.gradients import weighted
    from neurolm_jax.training.mesh import put_batch

    found = [validation_step(weights, put_batch(mesh, validation[i])) for i in range(len(validation))]
    losses, others = metrics.total(found)
    scalars = metrics.scalars(losses | others | {"loss": weighted(stage, losses)})
    return {f"validation_{key}": value for key, value in scalars.items()}


def _progress(config, start):
    import jax
    from tqdm import tqdm

    quiet = True if jax.process_index() else None  # None: where there is no terminal
    return tqdm(total=config.steps, initial=start, desc=config.stage, unit=" steps", dynamic_ncols=True, disable=quiet)


def _say(text):
    """Once, however many processes there are."""
    import jax

    if jax.process_index() == 0:
        print(text)


def main() -> None:
    config, workdir = parse(sys.argv)
    if "tasks" in config.data:  # files of the user's own are found again from any folder
        names = config.data.tasks
        config.data.tasks = tuple(str(pathlib.Path(n).absolute()) if n.endswith(".py") else n for n in names)
    from neurolm_jax.training import processes

    configuration.check(config)
    with processes.joined():
        train(config, workdir, _REPLAY.value)


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
    run(main)
