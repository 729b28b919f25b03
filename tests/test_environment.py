"""The installation that the scripts of launch/ begin with. Interpreters and pip are stand-ins; the scripts are not."""

import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TOOLS = "bash", "cat", "cksum", "cp", "dirname", "flock", "mkdir", "rm", "sed", "sleep"

# Says what version it is, runs the code of -c with a real interpreter, and writes down what -m is asked.
INTERPRETER = """#!{bash}
version={version}
case $1 in
  --version) echo "Python $version.0" ;;
  -c)
    lie="import sys; sys.version_info = (*map(int, '$version'.split('.')), 0)"
    [[ $2 == *version_info* ]] || lie=
    exec {real} -c "$lie"$'\\n'"$2" ;;
  -m)
    printf '%q ' "$2" "${{@:3}}" ${{PYTHONDONTWRITEBYTECODE:+uncompiled}} >> "$LOG"; echo >> "$LOG"
    case $2 in
      venv) rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
      pip) until [ ! -e "$LOG.hold" ]; do sleep 0.05; done; [ ! -e "$LOG.fail" ] ;;
    esac ;;
esac
"""


class Clone:
    """A copy of the scripts and requirements in a folder with a space in its name, with a search path of its own."""

    def __init__(self, folder: pathlib.Path, **interpreters: str):
        self.root, self.bin, self.log = folder / "a clone", folder / "bin", folder / "log"
        self.hold, self.fail = folder / "log.hold", folder / "log.fail"
        shutil.copytree(ROOT / "launch", self.root / "launch")
        for file in ROOT.glob("requirements*.txt"):
            shutil.copy(file, self.root)
        (self.root / "runs" / "quickstart").mkdir(parents=True)
        self.bin.mkdir()
        self.log.touch()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        for name, version in interpreters.items():
            file = self.bin / name.replace("_", ".")
            file.write_text(
                INTERPRETER.format(bash=shutil.which("bash"), version=version, real=shlex.quote(sys.executable))
            )
            file.chmod(0o755)

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen:
        """A script without a terminal, and without TERM and HOME."""
        return subprocess.Popen(
            [shutil.which("bash"), self.root / "launch" / script, *arguments],
            env={"PATH": str(self.bin), "LOG": str(self.log)} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(script, *arguments, **environment)
        out, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)

    def asked(self, module: str = "") -> list[str]:
        """What modules the interpreters were asked to run since the last look."""
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return [line for line in lines if line.startswith(module)]


@pytest.mark.parametrize("script", ["quickstart.sh", "test.sh"])
@pytest.mark.parametrize("version", ["3.10", "3.15"])
def test_an_unsuitable_python_is_refused_in_one_line(tmp_path, script, version):
    clone = Clone(tmp_path, python3=version, python3_13="3.9")  # a name that lies is not believed
    done = clone.run(script)
    want = f"error: python3 is Python {version}.0; Python 3.11 to 3.14 is needed (PYTHON=python3.12 bash "
    assert done.returncode == 2 and done.stderr.startswith(want) and done.stderr.count("\n") == 1
    assert done.stdout == "" and not clone.asked() and not (clone.root / ".venv").exists()


def test_no_python_is_refused_too(tmp_path):
    done = Clone(tmp_path).run("test.sh")
    assert done.returncode == 2 and done.stderr.startswith("error: python3 is no Python; ") and not done.stdout
    assert done.stderr.count("\n") == 1


def test_another_python_of_the_search_path_is_used_and_named(tmp_path):
    clone = Clone(tmp_path, python3="3.15", python3_11="3.10", python3_13="3.13")
    done = clone.run("test.sh")
    assert done.returncode == 0 and "python3 is Python 3.15.0; python3.13 is used\n" in done.stdout, done.stderr
    done = clone.run("test.sh", PYTHON="python3")  # asked for, and so not replaced
    assert done.returncode == 2 and "error: python3 is Python 3.15.0;" in done.stderr


@pytest.mark.parametrize("version", ["3.11", "3.14"])
def test_both_commands_in_a_path_with_a_space(tmp_path, version):
    clone = Clone(tmp_path, python3=version)
    done = clone.run("quickstart.sh")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in clone.asked()] == ["venv", "pip", "pip"] + (
        ["neurolm_jax.prepare"] * 4 + ["neurolm_jax.train"] * 4 + ["neurolm_jax.evaluate", "neurolm_jax.report"]
    )
    done = clone.run("test.sh", "-k", "two words")  # which adds to what is there
    assert (done.returncode, done.stderr) == (0, "")
    first, second = clone.asked()
    assert first.startswith("pip install") and first.endswith(" -r requirements-test.txt ")
    assert second == "pytest --numprocesses=2 --dist=loadfile -k two\\ words "
    assert clone.run("test.sh").stdout == "" and len(clone.asked()) == 1
    assert clone.run("quickstart.sh").stdout == "" and not clone.asked("pip")


def test_libraries_in_folders_with_spaces_are_read(tmp_path):
    clone = Clone(tmp_path, python3="3.12")
    packages = tmp_path / "site packages"
    for name in ("numpy", "scipy"):
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").touch()
    assert clone.run("quickstart.sh", PYTHONPATH=str(packages)).returncode == 0
    [line] = clone.asked("neurolm_jax.prepare text")
    assert [str(packages / name) for name in ("numpy", "scipy")] == shlex.split(line)[-4:-2]


def test_modules_stay_compiled_whatever_the_image_says(tmp_path):
    """Images for containers forbid it; then each process would compile every module it imports."""
    clone = Clone(tmp_path, python3="3.12")
    assert clone.run("test.sh", PYTHONDONTWRITEBYTECODE="1").returncode == 0
    assert clone.asked("pytest") == ["pytest --numprocesses=2 --dist=loadfile "]


def test_an_installation_that_did_not_end_is_done_again(tmp_path):
    clone = Clone(tmp_path, python3="3.12")
    clone.fail.touch()
    assert clone.run("test.sh").returncode == 1
    assert [line.split()[0] for line in clone.asked()] == ["venv", "pip"]
    clone.fail.unlink()
    clone.hold.touch()
    process = clone.start("test.sh")
    wait_for(lambda: clone.log.read_text().count("pip"))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    clone.hold.unlink()
    clone.asked()
    assert clone.run("test.sh").returncode == 0
    assert [line.split()[0] for line in clone.asked()] == ["venv", "pip", "pip", "pip", "pytest"]


def test_two_at_once_in_a_clone_install_once(tmp_path):
    clone = Clone(tmp_path, python3="3.12")
    clone.hold.touch()
    first = clone.start("test.sh")
    wait_for(lambda: clone.log.read_text().count("pip"))
    second = clone.start("quickstart.sh")
    assert second.stdout.readline() == "Waiting for another installation into .venv ...\n"
    clone.hold.unlink()
    for process in (first, second):
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, (out, errors)
    assert len(clone.asked("venv")) == 1


def test_an_environment_is_made_anew_for_other_pins_or_another_python(tmp_path):
    clone = Clone(tmp_path, python3="3.12", python3_13="3.13")
    modules = []
    for change in ({}, {"PYTHON": "python3"}, {"PYTHON": "python3.13"}, {}, {"ACCELERATOR": "tpu"}):
        assert clone.run("test.sh", **change).returncode == 0
        modules.append([line.split()[0] for line in clone.asked()])
    new, kept = ["venv", "pip", "pip", "pip", "pytest"], ["pytest"]
    assert modules == [new, kept, new, kept, new]
    with open(clone.root / "requirements-test.txt", "a") as file:
        file.write("another==1.0\n")
    assert clone.run("test.sh", ACCELERATOR="tpu").returncode == 0
    assert [line.split()[0] for line in clone.asked()] == ["pip", "pytest"]


def test_tests_with_another_python_leave_the_environment(tmp_path):
    clone = Clone(tmp_path, python3="3.11", python3_13="3.13")
    done = clone.run("test_python.sh", "python3.13", "-x")
    assert done.returncode == 0, done.stderr
    assert clone.asked()[-1].endswith("-x ") and not (clone.root / ".venv").exists()
    assert (clone.root / ".venv-3.13" / "installed").exists()
    done = clone.run("test_python.sh")
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
