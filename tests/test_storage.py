"""Storage that fails: damaged checkpoints, full disks, folders that cannot be written."""

import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from small_data import config

from neurolm_jax import inspect, train
from neurolm_jax.errors import UserError
from neurolm_jax.stages.restore import restore_weights
from neurolm_jax.training import checkpoint, integrity, metrics
from neurolm_jax.training.mesh import make_mesh

ROOT = pathlib.Path(__file__).parents[1]


def largest(folder):
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


DAMAGES = [truncate, *(pytest.param(damage, marks=pytest.mark.slow) for damage in (flip, pathlib.Path.unlink))]


@pytest.fixture(scope="module")
def stopped(small_data, runs, tmp_path_factory):
    """A run that was stopped after step 4 of 6, with the checkpoints of steps 2 and 4."""
    workdir = tmp_path_factory.mktemp("stopped") / "w"
    train.train(config("tokenizer", small_data, runs), workdir)
    assert checkpoint.steps(workdir) == [2, 4]
    return workdir


@pytest.mark.parametrize("part", ["weights", "optimizer"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(stopped, small_data, runs, tmp_path, caplog, damage, part):
    workdir = tmp_path / "w"
    shutil.copytree(stopped, workdir)
    damage(largest(workdir / "checkpoints" / "4" / part))
    c = config("tokenizer", small_data, runs)
    with caplog.at_level(logging.WARNING):
        train.train(c, workdir)
    [said] = [record.getMessage() for record in caplog.records if "is used instead" in record.getMessage()]
    assert f"{workdir}/checkpoints/4: {part}/" in said and "the checkpoint of step 2 is used instead" in said
    # It ends as if nothing had been, and what was damaged lies aside.
    assert checkpoint.steps(workdir) == [2, 4] and (workdir / "checkpoints" / "4.damaged").is_dir()
    digests = [checkpoint.digest(checkpoint.read_arrays(w)) for w in (workdir, runs / "tokenizer")]
    assert digests[0] == digests[1]
    assert [line["step"] for line in metrics.read(workdir)] == [1, 2, 3, 4]


def test_later_stages_and_inspect_pass_over_damaged_weights_too(stopped, tmp_path, caplog, capsys):
    workdir = tmp_path / "w"
    shutil.copytree(stopped, workdir)
    flip(largest(workdir / "checkpoints" / "4" / "weights"))
    with caplog.at_level(logging.WARNING):
        restore_weights(str(workdir), make_mesh())
        inspect.inspect_checkpoint(workdir)
    assert caplog.text.count("the checkpoint of step 2 is used instead") >= 2
    assert "step 2\n" in capsys.readouterr().out
    flip(largest(workdir / "checkpoints" / "2" / "weights"))
    for call in (lambda: restore_weights(str(workdir), make_mesh()), lambda: inspect.inspect_checkpoint(workdir)):
        with pytest.raises(UserError, match="checkpoints/4: weights/.*there is no whole checkpoint before it"):
            call()


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(stopped, small_data, runs, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(stopped, workdir)
    for step in (2, 4):
        (workdir / "checkpoints" / str(step) / integrity.FILE).unlink()
    with pytest.raises(UserError, match="checkpoints/4: digests.json is missing, and there is no whole checkpoint"):
        train.train(config("tokenizer", small_data, runs), workdir)
    assert checkpoint.steps(workdir) == [2, 4]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"../../../etc/passwd": "x", "weights/../../x": "y"}', "\0"])
def test_digests_are_data(stopped, tmp_path, text):
    folder = tmp_path / "4"
    shutil.copytree(stopped / "checkpoints" / "4", folder)
    assert integrity.fault(folder, checkpoint.ALL) is None
    (folder / integrity.FILE).write_text(text)
    assert integrity.fault(folder, checkpoint.ALL)


CHILD = """
import sys, pathlib
from small_data import config
from neurolm_jax import train
from neurolm_jax.command import run
c = config("language", pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
run(lambda: train.train(c, pathlib.Path(sys.argv[3])))
"""
AFTER = "import sys; from neurolm_jax.training import checkpoint, integrity as i\n"
AFTER += "found = checkpoint.steps(sys.argv[1]); print(found)\n"
AFTER += "assert all(i.fault(checkpoint.folder(sys.argv[1]) / str(s), checkpoint.ALL) is None for s in found)\n"
AFTER += "print([p.name for p in checkpoint.folder(sys.argv[1]).glob('*tmp*')])"


def in_namespace(script, *arguments):
    """A shell script with rights to mount, in which nothing outside can be changed."""
    tried = subprocess.run(["unshare", "-rm", "true"], capture_output=True)
    if tried.returncode:
        pytest.skip("no rights to mount: unshare -rm")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
    command = ["unshare", "-rm", "bash", "-c", script, "_", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_last_checkpoint_stays(small_data, runs, tmp_path):
    size = sum(file.stat().st_size for file in (runs / "language" / "checkpoints" / "2").rglob("*") if file.is_file())
    script = f'mount -t tmpfs -o size={size * 3 // 2} none "$3" && "$0" -c "$4" "$1" "$2" "$3/w"; echo "code $?"\n'
    script = script.replace('"$0"', f'"{sys.executable}"') + f'"{sys.executable}" -c "$5" "$3/w"'
    (tmp_path / "disk").mkdir()
    done = in_namespace(script, small_data, runs, tmp_path / "disk", CHILD, AFTER)
    assert done.stdout == "code 2\n[2]\n[]\n", done
    error = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and "the checkpoint of step 4 cannot be written" in error[0], done.stderr[-2000:]
    assert "the newest whole one is of step 2. Make room" in error[0] and "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_told(small_data, runs, tmp_path):
    script = f'mount -t tmpfs -o ro none "$3" && "{sys.executable}" -c "$4" "$1" "$2" "$3/w"; echo "code $?"\n'
    (tmp_path / "disk").mkdir()
    done = in_namespace(script, small_data, runs, tmp_path / "disk", CHILD)
    assert done.stdout == "code 2\n", done
    assert "Traceback" not in done.stderr and "Read-only file system" in done.stderr.splitlines()[-1]


def test_a_corpus_on_a_full_disk_goes_on_when_there_is_room(tmp_path):
    """No recording is marked as one that cannot be read, for what cannot be written."""
    from small_corpora import noise, write_edf

    for i in range(2):
        write_edf(tmp_path / "in" / f"{i}.edf", noise(i, seconds=600))
    line = f'"{sys.executable}" -m neurolm_jax.prepare eeg "$1" --out "$2/out" --mains 50 >&2; echo "code $?"\n'
    script = f'mount -t tmpfs -o size=1m none "$2"\n{line}mount -o remount,size=64m "$2"\n{line}'
    (tmp_path / "disk").mkdir()
    done = in_namespace(script + 'cat "$2/out/manifest.json"', tmp_path / "in", tmp_path / "disk")
    first, second, manifest = done.stdout.split("\n", 2)
    assert (first, second) == ("code 2", "code 0"), done
    assert "Traceback" not in done.stderr and "No space left on device; make room" in done.stderr
    assert [r["outcome"] for r in json.loads(manifest)["recordings"]] == ["used", "used"]
