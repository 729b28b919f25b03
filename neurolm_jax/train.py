"""Train one stage.

  python -m neurolm_jax.train --config configs/quickstart.py:tokenizer --workdir W [--config.steps=40 ...]

Started again with the same workdir it goes on from the newest checkpoint; a finished run is left as it is.
"""

import contextlib
import pathlib
import sys
import time

from absl import flags
from ml_collections import config_flags

from neurolm_jax import configuration
from neurolm_jax.command import run
from neurolm_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, with its argument after a colon.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints and metrics.")


def train(config, workdir: pathlib.Path) -> None:
    """The loop. Everything that differs between stages is in ``stages/``."""
    begin = time.perf_counter()
    configuration.check(config)

    import jax

    from neurolm_jax.data import streams
    from neurolm_jax.stages.restore import restore_weights
    from neurolm_jax.training import checkpoint, metrics
    from neurolm_jax.training import mesh as meshes
    from neurolm_jax.training.state import (
        abstract_state,
        create_state,
        make_train_step,
        make_validation_step,
        prepare,
        state_shardings,
        whole_share,
    )

    # What is needed is looked at before anything is made.
    configuration.use_compilation_cache(config)
    mesh = meshes.make_mesh(**config.mesh)
    stage = build(config)
    process = jax.process_index(), jax.process_count()
    sources, held_out = stage.sources(train=True), stage.sources(train=False)
    meshes.check_batches(mesh, {name: size for name, (_, size) in sources.items()}, config.accumulation)
    steps = streams.Steps(sources, config.steps, *process)
    rows, size = next(iter(held_out.values()))
    validation = streams.Steps(held_out, min(max(1, len(rows) // size), config.validation_batches), *process)

    abstract = abstract_state(stage, mesh)
    if mesh.shape["fsdp"] * mesh.shape["tensor"] > 1 and (share := whole_share(abstract)) > 0.1:
        _say(f"mesh: {share:.0%} of the parameters are whole on every device; choose fsdp so that it divides the width")
    if checkpoint.exists(workdir):
        state = checkpoint.restore(workdir, abstract)
    else:
        state = create_state(stage, mesh)
        weights = stage.inherit(state.weights, lambda path: restore_weights(path, mesh))
        state = state._replace(weights=jax.device_put(weights, state_shardings(stage, mesh).weights))
    start = int(state.step)
    manager = checkpoint.manager(workdir, config.checkpoint_every, config.keep_checkpoints)
    with contextlib.closing(manager) as checkpoints:
        if start >= config.steps:
            new = checkpoint.save(checkpoints, start, state, config, force=True)
            _say(f"{workdir}: {config.stage} {'taken over' if new else 'is trained already'}, {start} steps")
            return

        train_step, validation_step = make_train_step(stage, mesh), make_validation_step(stage, mesh)
        batches = streams.iterate(steps, start, config.data.threads, config.data.workers)
        batches = ((metrics.count_tokens(batch) * process[1], meshes.put_batch(mesh, batch)) for batch in batches)
        batches = streams.prefetch(batches)
        writer = metrics.Writer(workdir, config.stage, start)
        clock, rng = metrics.Clock(), jax.random.key(config.seed)
        with _progress(config, start) as bar, contextlib.closing(writer):
            for step in range(start + 1, config.steps + 1):
                waiting = time.perf_counter()
                tokens, batch = next(batches)
                clock.batch(time.perf_counter() - waiting, tokens)
                if step == 1:
                    state = prepare(stage, mesh, state, batch, rng)
                state, measured = train_step(state, batch, rng)

                last = step == config.steps
                validates = config.evaluate_every and (last or step % config.evaluate_every == 0)
                if step % config.log_every == 0 or step == 1 or validates:
                    found = metrics.scalars(measured) | clock.read()
                    if validates:
                        found |= _validate(stage, validation_step, state.weights, validation, mesh)
                    writer.write(step, found | {"seconds": writer.seconds + time.perf_counter() - begin})
                    bar.set_postfix_str(f"loss {found['loss']:.3f}, {found['tokens_per_second']:,.0f} tokens/s")
                checkpoint.save(checkpoints, step, state, config, force=last)
                bar.update()
        checkpoints.wait_until_finished()
    _say(f"{workdir}: {config.stage}, {config.steps} steps, loss {found['loss']:.3f}")


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
    processes.join()
    train(config, workdir)


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
