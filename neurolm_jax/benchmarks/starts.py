"""How long a run takes from the shell to its first step, and the package to be imported."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time


def bench_start(size: str = "b") -> dict[str, float]:
    """Seconds of importing the package, and of a process that builds the pretrain stage at a size, creates its state
    and takes a step: without compiled programs at hand, and with them; and what of it passes before the step begins."""
    found = {"import, seconds": min(_run("import neurolm_jax")[0] for _ in range(3))}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "cached"):
            whole, step = _run(_STEP, size, cache)
            found[f"pretrain {name}, to the first step's begin, seconds"] = whole - float(step)
            found[f"pretrain {name}, to its end, seconds"] = whole
    return found


_STEP = "import sys; from neurolm_jax.benchmarks.starts import first_step; first_step(*sys.argv[1:])"


def first_step(size: str, cache: str) -> None:
    """Prints the seconds of the step alone."""
    import jax

    from neurolm_jax import configuration
    from neurolm_jax.benchmarks.steps import build_stage, make_batch
    from neurolm_jax.command import make_configs_importable
    from neurolm_jax.training.mesh import make_mesh, put_batch
    from neurolm_jax.training.state import create_state, make_train_step

    make_configs_importable()
    stage, mesh = build_stage("pretrain", size), make_mesh()
    stage.config.compilation_cache = cache
    configuration.use_compilation_cache(stage.config)
    state, batch = create_state(stage, mesh), put_batch(mesh, make_batch(stage)[0])
    rng = jax.random.key(0)
    step = make_train_step(stage, mesh).lower(state, batch, rng).compile()
    jax.block_until_ready(state)
    begin = time.perf_counter()
    jax.block_until_ready(step(state, batch, rng))
    print(time.perf_counter() - begin)


def _run(code, *arguments):
    root = pathlib.Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    begin = time.perf_counter()
    command = [sys.executable, "-c", code, *arguments]
    said = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
    return time.perf_counter() - begin, said
