"""Where a command asks for huge pages: on a CPU that computes alone, and nowhere else."""

import os
import pathlib
import subprocess
import sys

import pytest

from neurolm_jax import huge_pages

ROOT = pathlib.Path(__file__).parents[1]


def test_a_command_that_computes_starts_again_with_huge_pages(tmp_path):
    """Once, with the same arguments and process; not where the setting was made by its user."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from neurolm_jax import command, huge_pages\n"
        "huge_pages.on_request = lambda: True\n"
        "def main():\n"
        "    print(os.environ.get('GLIBC_TUNABLES'), os.getpid(), *sys.argv[1:])\n"
        "if __name__ == '__main__':\n"
        "    command.run(main, computes=True)\n"
    )
    for given, want in (
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=0", "glibc.malloc.check=0:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ):
        environment = os.environ | {"GLIBC_TUNABLES": given, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        process = subprocess.Popen(
            [sys.executable, program, "a", "b c"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        out, errors = process.communicate()
        assert out.split() == [want, str(process.pid), "a", "b", "c"] and errors == ""


@pytest.mark.parametrize(
    ("environment", "plugin", "device", "want"),
    [
        ({}, False, None, True),
        ({}, True, None, True),  # a plugin without its device is passed over by JAX
        ({}, False, "nvidia0", True),
        ({}, True, "nvidiactl", True),
        ({}, True, "nvidia0", False),
        ({}, True, "accel3", False),
        ({}, True, "vfio/0", False),
        ({"JAX_PLATFORMS": "cpu"}, True, "nvidia0", True),
        ({"JAX_PLATFORMS": "tpu"}, False, None, False),
        ({"JAX_PLATFORMS": "cuda,cpu"}, True, "nvidia0", False),
        ({"JAX_PLATFORMS": "cpu", "NEUROLM_COORDINATOR": "host:1234"}, False, None, False),
        ({"NEUROLM_COORDINATOR": "auto"}, False, None, False),
    ],
)
def test_only_a_cpu_that_computes_alone_asks_for_huge_pages(tmp_path, monkeypatch, environment, plugin, device, want):
    for name in ("JAX_PLATFORMS", "NEUROLM_COORDINATOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(huge_pages, "has_plugin", lambda: plugin)
    if device:
        (tmp_path / device).parent.mkdir(exist_ok=True)
        (tmp_path / device).touch()
    assert huge_pages.cpu_computes(tmp_path) == want


def test_plugins_are_seen_without_jax(tmp_path):
    """As the wheels of CUDA and TPUs bring them: a folder jax_plugins, a package libtpu."""
    code = "import sys; from neurolm_jax import huge_pages; print(huge_pages.has_plugin(), 'jax' in sys.modules)"
    for name, want in (("nothing", "False False"), ("jax_plugins/xla_cuda12", "True False"), ("libtpu", "True False")):
        folder = tmp_path / name.replace("/", "_")
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
        environment = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=folder)
        assert done.stdout.strip() == want, done.stderr
