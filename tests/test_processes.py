"""Several real processes as one job: the same numbers, and nobody waits for ever."""

import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from neurolm_jax.errors import JobError, UserError
from neurolm_jax.training import checkpoint, metrics, processes

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / "launch" / "local_processes.sh"


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def launch(count, *command, **variables):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"} | variables
    line = ["bash", str(LAUNCH), str(count), *map(str, command)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=1500)


@pytest.mark.slow
def test_two_processes_of_two_devices_train_as_one(small_data, tmp_path):
    """Data split over processes, parameters over devices of both, checkpoints written by both."""
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    script = ROOT / "tests" / "all_stages.py"
    done = launch(2, sys.executable, script, small_data, tmp_path / "two", 2, DEVICES="2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("instruct, 4 steps") == 1  # said once
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, script, small_data, tmp_path / "one", "1"], env=environment, check=True)
    for stage in ("language", "tokenizer", "pretrain", "instruct"):
        two, one = (metrics.read(tmp_path / name / stage) for name in ("two", "one"))
        assert [line["step"] for line in two] == [line["step"] for line in one] == [1, 2, 3, 4]
        for ours, theirs in zip(two, one):
            assert ours.keys() == theirs.keys()
            for key in {"loss", "gradient_norm", "validation_loss"} & ours.keys():
                assert ours[key] == pytest.approx(theirs[key], rel=1e-4), (stage, key)
        arrays = [checkpoint.read_arrays(tmp_path / name / stage) for name in ("two", "one")]
        for name, array in arrays[1].items():
            want, got = array.astype(np.float64), arrays[0][name].astype(np.float64)
            scale = max(np.abs(want).max(initial=0), 1e-3)
            np.testing.assert_allclose(got, want, atol=5e-3 * scale, err_msg=f"{stage} {name}")


ONE_STAGE = """
import pathlib, sys
from small_data import config
from neurolm_jax import train
from neurolm_jax.training import processes
data, runs, workdir, steps, fsdp, tensor, *sequence = sys.argv[1:]
with processes.joined():
    c = config("pretrain", pathlib.Path(data), pathlib.Path(runs), batch_size=8, text_batch_size=8, steps=int(steps))
    c.mesh.update(fsdp=int(fsdp), tensor=int(tensor), sequence=int(*sequence or "1"))
    train.train(c, pathlib.Path(workdir))
"""


@pytest.mark.slow
def test_processes_that_are_asked_to_end_save_the_same_step(small_data, runs, tmp_path):
    """One of them is asked a little later than the other."""
    port, environment = free_port(), os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
    environment |= {"NEUROLM_PROCESSES": "2", "NEUROLM_COORDINATOR": f"localhost:{port}", "PJRT_NPROC": "128"}
    code = ONE_STAGE.replace("with processes.joined():", "with preemption.noticed() as notice, processes.joined():")
    code = code.replace(
        "train.train(c, pathlib.Path(workdir))", "done = train.train(c, pathlib.Path(workdir), notice=notice)"
    )
    code += "sys.exit(0 if done else 75)"
    code = code.replace("import processes", "import preemption, processes")
    command = sys.executable, "-c", code, small_data, runs, tmp_path / "w", 2000, 2, 1
    command = [str(part) for part in command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pair = [subprocess.Popen(command, env=environment | {"NEUROLM_PROCESS": str(i)}, **pipes) for i in (0, 1)]
    begin = time.monotonic()
    while len(metrics.read(tmp_path / "w")) < 5:
        assert time.monotonic() - begin < 200 and pair[0].poll() is None, pair[0].communicate()
        time.sleep(0.1)
    begin = time.monotonic()
    for process in pair:
        process.terminate()
        time.sleep(0.3)
    said = [process.communicate(timeout=60) for process in pair]
    assert [process.returncode for process in pair] == [75, 75], said
    assert time.monotonic() - begin < 30
    step = checkpoint.newest_step(tmp_path / "w", checkpoint.ALL)
    assert (
        f"asked to end, saved at step {step} of 2000" in said[0][0] and metrics.read(tmp_path / "w")[-1]["step"] == step
    )


@pytest.mark.slow
def test_a_run_goes_on_with_other_devices_processes_and_meshes(small_data, runs, tmp_path):
    """Saved by two processes of two devices; on one, on eight, on a mesh of all axes: the same batches follow."""

    def train(name, count, devices, steps, fsdp, tensor):
        code = sys.executable, "-c", ONE_STAGE, small_data, runs, tmp_path / name, steps, fsdp, tensor
        done = launch(count, *code, DEVICES=str(devices))
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    train("whole", 1, 1, 8, 1, 1)
    train("two", 2, 2, 8, 2, 1)
    want = metrics.read(tmp_path / "whole")
    for name, shape in {"one": (1, 1, 1, 1), "eight": (1, 8, 2, 2), "two again": (2, 2, 1, 2)}.items():
        shutil.copytree(tmp_path / "two", tmp_path / name)
        shutil.rmtree(tmp_path / name / "checkpoints" / "8")
        assert checkpoint.newest_step(tmp_path / name, checkpoint.ALL) == 6
        count, devices, fsdp, tensor = shape
        said = train(name, count, devices, 8, fsdp, tensor)
        assert "goes on with config.mesh" in said
        got = metrics.read(tmp_path / name)
        assert [line["step"] for line in got] == list(range(1, 9))
        for ours, theirs in zip(got, want):
            for key in {"loss", "gradient_norm", "validation_loss", "epoch"} & theirs.keys():
                assert ours[key] == pytest.approx(theirs[key], rel=2e-4), (name, ours["step"], key)
        meta = checkpoint.read_meta(tmp_path / name)
        assert meta["position"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("tensor, sequence, devices", [(2, 1, 1), (1, 2, 1), (2, 2, 2)])
def test_processes_that_share_rows_read_the_same(small_data, runs, tmp_path, tensor, sequence, devices):
    """Two processes whose devices split tensor, sequence or both, so that each needs the whole batch."""

    def train(name, count, devices, *axes):
        code = sys.executable, "-c", ONE_STAGE, small_data, runs, tmp_path / name, 4, 1, *axes
        done = launch(count, *code, DEVICES=str(devices))
        assert done.returncode == 0, done.stderr[-3000:]
        return metrics.read(tmp_path / name)

    one, two = train("one", 1, 1, 1, 1), train("two", 2, devices, tensor, sequence)
    for ours, theirs in zip(two, one, strict=True):
        for key in {"loss", "gradient_norm", "validation_loss", "eeg_accuracy"} & theirs.keys():
            assert ours[key] == pytest.approx(theirs[key], rel=2e-4), (ours["step"], key)


def test_a_process_that_never_arrives_is_named():
    variables = {"NEUROLM_COORDINATOR": f"localhost:{free_port()}", "NEUROLM_PROCESSES": "4"}
    said = {}

    def arrive(number):
        with pytest.raises(JobError) as error:
            processes.join(variables | {"NEUROLM_PROCESS": str(number)}, wait=3)
        said[number] = str(error.value)

    begin = time.monotonic()
    threads = [threading.Thread(target=arrive, args=(number,)) for number in (0, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert said == dict.fromkeys((0, 2), "process 1, 3 of 4 did not arrive; see its log")
    assert time.monotonic() - begin < 30


def test_strangers_at_the_port_are_passed_over():
    """One says nothing, one hangs up at once, one speaks otherwise; then the process comes that was missing."""
    port = free_port()
    seconds = time.monotonic() + 40
    gathered = threading.Thread(target=processes._gather, args=(port, 2, seconds))
    gathered.start()
    strangers = []
    for said in (b"", b"x", b"PRI * HTTP/2.0", b"neurolm x 2", b"neurolm 7 2"):
        while True:
            try:
                strangers.append(socket.create_connection(("localhost", port), timeout=5))
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        if said == b"x":  # closed with a reset
            strangers[-1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            strangers[-1].close()
        elif said:
            strangers[-1].sendall(said)
    processes._report("localhost", port, 2, 1, seconds)
    gathered.join(timeout=30)
    assert not gathered.is_alive()


def test_what_answers_in_process_0s_place_is_not_believed():
    """Such as the coordinator of a job that has not ended yet: it says bytes that are no text, then is gone."""
    port = free_port()
    with socket.create_server(("localhost", port)) as other:
        answering = threading.Thread(target=lambda: other.accept()[0].sendall(b"\0\xff\x04"))
        answering.start()
        reporting = threading.Thread(target=processes._report, args=("localhost", port, 2, 1, time.monotonic() + 40))
        reporting.start()
        answering.join(timeout=30)
    processes._gather(port, 2, time.monotonic() + 40)
    reporting.join(timeout=30)
    assert not reporting.is_alive()


def test_auto_outside_of_a_cluster_is_refused():
    code = "from neurolm_jax.command import run; from neurolm_jax.training import processes; run(processes.join)"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NEUROLM_COORDINATOR": "auto", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("error: NEUROLM_COORDINATOR=auto: JAX finds no job"), done


def test_processes_wait_for_the_one_that_works_alone(tmp_path):
    """Longer than a process that has ended would be waited for."""
    program = """
import os, pathlib, sys, time
from neurolm_jax.training import processes
processes.join()
import jax
file = pathlib.Path(sys.argv[1])
if not jax.process_index():
    time.sleep(5)
    file.write_text("done")
processes.meet("written")
assert file.read_text() == "done"
"""
    done = launch(2, sys.executable, "-c", program, tmp_path / "file", JAX_PLATFORMS="cpu")
    assert done.returncode == 0, done.stderr


def test_a_job_without_process_0_ends():
    variables = {"NEUROLM_COORDINATOR": f"localhost:{free_port()}", "NEUROLM_PROCESSES": "2", "NEUROLM_PROCESS": "1"}
    with pytest.raises(JobError, match="process 1 of 2: process 0 is not at localhost:"):
        processes.join(variables, wait=1)


@pytest.mark.parametrize(
    "variables",
    [
        {"NEUROLM_COORDINATOR": "localhost"},
        {"NEUROLM_COORDINATOR": "localhost:80"},
        {"NEUROLM_COORDINATOR": "localhost:80", "NEUROLM_PROCESSES": "2", "NEUROLM_PROCESS": "2"},
        {"NEUROLM_COORDINATOR": "localhost:x", "NEUROLM_PROCESSES": "2", "NEUROLM_PROCESS": "1"},
    ],
)
def test_variables_that_make_no_sense_are_named(variables):
    with pytest.raises(UserError, match="NEUROLM_COORDINATOR=localhost.* want HOST:PORT"):
        processes.join(variables)
    assert jax.process_count() == 1


@pytest.mark.parametrize("wait", ["soon", "0", "nan", "-3"])
def test_a_wait_that_makes_no_sense_is_named(wait):
    variables = {"NEUROLM_COORDINATOR": "localhost:1", "NEUROLM_PROCESSES": "1", "NEUROLM_PROCESS": "0"}
    with pytest.raises(UserError, match=f"NEUROLM_WAIT={wait}: want seconds, 1 or more"):
        processes.join(variables | {"NEUROLM_WAIT": wait})


def test_no_launcher_no_job():
    processes.join({})
    processes.join({"NEUROLM_COORDINATOR": "localhost:1", "NEUROLM_PROCESSES": "1", "NEUROLM_PROCESS": "0"})
    assert jax.process_count() == 1


def test_the_launcher_names_the_process_that_fails_and_stops_the_others():
    program = "import os, sys, time; sys.exit(3) if os.environ['NEUROLM_PROCESS'] == '1' else time.sleep(600)"
    begin = time.monotonic()
    done = launch(3, sys.executable, "-c", program)
    assert done.returncode == 3 and time.monotonic() - begin < 60
    assert "error: process 1 of 3 ended with code 3; the others are stopped" in done.stderr
    assert launch(0, "true").returncode == launch(2).returncode == 2
    assert launch(2, "true").returncode == 0
    later = "import os, sys, time; n = int(os.environ['NEUROLM_PROCESS']); time.sleep(n); print(n); sys.exit(75)"
    done = launch(2, sys.executable, "-c", later)  # those that were asked to end are waited for
    assert done.returncode == 75 and sorted(done.stdout.split()) == ["0", "1"] and not done.stderr


def test_a_command_ends_with_one_line_when_a_process_is_missing(tmp_path):
    """Process 0 dies at start-up, as the launcher sees it, or is never started."""
    code = "from neurolm_jax.command import run; from neurolm_jax.training import processes; run(processes.join)"
    environment = os.environ | {"NEUROLM_COORDINATOR": f"localhost:{free_port()}", "NEUROLM_PROCESSES": "2"}
    environment["NEUROLM_WAIT"] = "1"
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, env=environment | {"NEUROLM_PROCESS": "1"}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "process 0 is not at" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("others", ["time.sleep(600)", "multihost_utils.process_allgather(np.ones(3))"])
def test_a_process_that_dies_ends_the_others_within_a_minute(others):
    """Also those that wait for its part of a sum."""
    code = "import os, time, jax\nimport numpy as np\nfrom jax.experimental import multihost_utils\n"
    code += "from neurolm_jax.training import processes\nwith processes.joined():\n  assert jax.process_count() == 2\n"
    code += f"  os.kill(os.getpid(), 9) if jax.process_index() else {others}; time.sleep(600)"
    environment = os.environ | {"NEUROLM_COORDINATOR": f"localhost:{free_port()}", "NEUROLM_PROCESSES": "2"}
    environment |= {"JAX_PLATFORMS": "cpu"}
    begin = time.monotonic()
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment | {"NEUROLM_PROCESS": str(number)},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    said = pair[0].communicate(timeout=120)[1]
    pair[1].wait(timeout=10)
    assert pair[0].returncode == 1 and time.monotonic() - begin < 60
    assert "error: process 1 of 2 is lost, so this one ends too" in said
