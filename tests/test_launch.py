"""The launchers: what they start, how they go on, and whether their files are what their systems read."""

import argparse
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch"), ROOT / ".ci" / "run"])


def run(*command, **options):
    options = {"capture_output": True, "text": True, "timeout": 200} | options
    return subprocess.run([str(part) for part in command], **options)


def executable(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/usr/bin/env bash\n{text}")
    file.chmod(0o755)


@pytest.mark.parametrize(
    ("codes", "restarts", "want", "runs"),
    [([0], 9, 0, 1), ([1, 137, 0], 9, 0, 3), ([1, 2, 0], 9, 2, 2), ([3, 3, 3, 0], 2, 3, 3), ([75, 0], 9, 0, 2)],
)
def test_a_command_is_started_again_unless_its_input_is_bad(tmp_path, codes, restarts, want, runs):
    script = f"echo x >> {tmp_path}/runs; set -- {' '.join(map(str, codes))}; shift $(($(wc -l < {tmp_path}/runs) - 1))"
    environment = os.environ | {"RESTARTS": str(restarts), "PAUSE": "0"}
    done = run("bash", LAUNCH / "restart.sh", "bash", "-c", f"{script}; exit $1", env=environment)
    assert (done.returncode, (tmp_path / "runs").read_text().count("x")) == (want, runs)
    assert f"code {codes[0]}" in done.stderr or codes[0] in (0, 2)


def test_nor_is_one_when_its_pause_is_ended(tmp_path):
    job = subprocess.Popen(
        ["bash", str(LAUNCH / "restart.sh"), "bash", "-c", f"echo x >> {tmp_path}/runs; exit 3"],
        env=os.environ | {"PAUSE": "60"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "started again in 60 s" in job.stderr.readline()
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=30) == 143 and (tmp_path / "runs").read_text() == "x\n"


def test_a_command_that_is_told_to_end_is_not_started_again(tmp_path):
    program = (
        "import pathlib, signal, sys, time\n"
        f"file = pathlib.Path({str(tmp_path / 'log')!r})\n"
        "def save(*_):\n    file.write_text(file.read_text() + 'saved'); sys.exit(7)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "file.write_text('started ')\ntime.sleep(60)\n"
    )
    job = subprocess.Popen(["bash", str(LAUNCH / "restart.sh"), sys.executable, "-c", program])
    while not (tmp_path / "log").exists():
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=30) == 7 and (tmp_path / "log").read_text() == "started saved"


OPTIONS = {
    "job-name": r"[\w-]+",
    "nodes": r"\d+",
    "ntasks": r"\d+",
    "ntasks-per-node": r"\d+",
    "cpus-per-task": r"\d+",
    "gpus-per-node": r"(\w+:)?\d+",
    "mem": r"\d+[KMGT]?",
    "mem-per-cpu": r"\d+[KMGT]?",
    "time": r"(\d+-)?\d+:\d\d:\d\d",
    "open-mode": "append|truncate",
    "signal": r"([RB]+:)?[A-Z]+(@\d+)?",
}


@pytest.mark.parametrize("file", sorted(LAUNCH.glob("*.sbatch")), ids=lambda file: file.name)
def test_directives_are_those_of_sbatch(file):
    """Long options as sbatch's manual has them, all before the first command."""
    first, *lines = file.read_text().splitlines()
    assert first == "#!/bin/bash"
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    for name in OPTIONS:
        parser.add_argument(f"--{name}")
    parser.add_argument("--requeue", action="store_true")
    head = [line for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]]
    directives = [line.removeprefix("#SBATCH ") for line in head if line.startswith("#SBATCH ")]
    assert directives and sum(line.startswith("#SBATCH") for line in lines) == len(directives)
    for name, value in vars(parser.parse_args(directives)).items():
        if value not in (None, False, True):
            assert re.fullmatch(OPTIONS[name.replace("_", "-")], value), (name, value)


JOINED = """
import sys
from neurolm_jax.training import processes
processes.join()
import jax
sys.stdout.write(f"{jax.process_index()} {jax.process_count()} {sys.argv[1:]}\\n")
"""


def test_a_slurm_job_is_one_job_of_its_nodes(tmp_path):
    """The script as it is, on two nodes that srun and scontrol pretend."""
    shutil.copytree(LAUNCH, tmp_path / "launch")
    (tmp_path / "launch" / "environment.sh").write_text('cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit\n')
    executable(tmp_path / "bin" / "scontrol", 'echo "$@" >> scontrol.log\nprintf "localhost\\nother\\n"\n')
    executable(
        tmp_path / "bin" / "srun",
        '[ "$1" = --kill-on-bad-exit=1 ] && shift\n[ "$SRUN_CPUS_PER_TASK" = 32 ] || exit 9\n'
        'for i in 0 1; do SLURM_PROCID=$i "$@" & done\nwait\n',
    )
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_NNODES": "2",
        "SLURM_CPUS_PER_TASK": "32",
    }
    command = sys.executable, "-c", JOINED, "a b", "$c"
    done = run("bash", tmp_path / "launch" / "train.sbatch", *command, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done
    assert sorted(done.stdout.splitlines()) == ["0 2 ['a b', '$c']", "1 2 ['a b', '$c']"], done.stderr
    assert (tmp_path / "scontrol.log").read_text() == "show hostnames node[1-2]\n"
    assert run("bash", LAUNCH / "train.sbatch").returncode == 2

    # Told to end, as five minutes before the time is over: both nodes save, the job asks to be queued again.
    save = "import os, pathlib, signal, sys, time; n = os.environ['NEUROLM_PROCESS']\n"
    save += "def save(*_):\n  time.sleep(int(n))\n  pathlib.Path('saved' + n).touch(); sys.exit(75)\n"
    save += "signal.signal(signal.SIGTERM, save); pathlib.Path('began' + n).touch(); time.sleep(60)"
    line = ["bash", str(tmp_path / "launch" / "train.sbatch"), sys.executable, "-c", save]
    job = subprocess.Popen(line, env=environment | {"RESTARTS": "0"}, cwd=tmp_path)
    while not all((tmp_path / f"began{n}").exists() for n in "01"):
        assert job.poll() is None
        time.sleep(0.05)
    for command in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        words = command.read_bytes().split(b"\0") if command.exists() else []
        ours = words[:2] == [b"bash", b"launch/restart.sh"] or words[:2] == [b"bash", b"-c"] and b"LATER" in words[2]
        if ours and command.parent.joinpath("cwd").resolve() == tmp_path:
            os.kill(int(command.parent.name), signal.SIGTERM)
    assert job.wait(timeout=60) == 75
    assert all((tmp_path / f"saved{n}").exists() for n in "01") and not list(tmp_path.glob(".later*"))
    assert (tmp_path / "scontrol.log").read_text().splitlines()[-1] == f"requeue {environment['SLURM_JOB_ID']}"


def test_a_pod_runs_the_command_on_all_hosts_until_it_ends_well(tmp_path):
    """The script as it is: gcloud runs what it is given here, and the host is lost once."""
    project, host, bin = tmp_path / "project", tmp_path / "host", tmp_path / "bin"
    shutil.copytree(LAUNCH, project / "launch")
    (project / "launch" / "environment.sh").write_text('cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit\n')
    author = "-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "commit.gpgsign=false"
    for arguments in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "x"]):
        assert run("git", *arguments, cwd=project).returncode == 0
    host.mkdir()
    executable(
        bin / "gcloud",
        f"""action=$4; shift 4
echo "$action" "$@" | tr '\\n' ' ' >> {tmp_path}/asked; echo >> {tmp_path}/asked
[ $action = ssh ] || exec cp "${{@:1:2}}" "{host}/${{3#*:}}"
cd {host}
for word; do
  [[ $word == --command=* ]] || continue
  [[ $word == *start && ! -e {tmp_path}/lost ]] || exec bash -c "${{word#--command=}}"
  setsid bash -c "${{word#--command=}}" &
  until [ -e {tmp_path}/lost ]; do sleep 0.1; done
  echo $! > {tmp_path}/first
  exit 255
done
""",
    )
    for tool in ("sudo", "python3.11"):
        executable(bin / tool, "true\n")
    executable(bin / "gcsfuse", f'echo "$@" >> {tmp_path}/mounted\n')
    executable(bin / "mountpoint", "exit 1\n")
    # The first start loses its connection, and goes on at the host beside the second unless that ends it.
    program = f"""# python -m neurolm_jax.train
printf '%s|' "$@" $NEUROLM_COORDINATOR $ACCELERATOR $NEUROLM_WAIT $JAX_COMPILATION_CACHE_DIR >> {tmp_path}/ran
[ $(wc -l < {tmp_path}/asked) -ge 4 ] || {{ touch {tmp_path}/lost; exec sleep 300; }}
echo $$ > {tmp_path}/second"""
    command = "bash", "-c", program, "name", "a b", "$c", "it's"
    user = f"test{os.getpid()}"
    environment = os.environ | {"PATH": f"{bin}:{os.environ['PATH']}", "PAUSE": "0", "USER": user, "NEUROLM_WAIT": "77"}
    done = run("bash", project / "launch" / "tpu_pod.sh", "slice", "us-x1-a", "gs://corpora", *command, env=environment)
    assert done.returncode == 0 and "ended with code 255; started again" in done.stderr, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split()[0] for line in asked] == ["scp", "ssh", "ssh", "ssh"]
    assert all("--zone=us-x1-a" in line and "--worker=all" in line for line in asked)
    assert (tmp_path / "mounted").read_text() == "--implicit-dirs corpora bucket\n"
    cache = f"{host / 'neurolm_jax'}/bucket/compiled"
    assert (tmp_path / "ran").read_text() == f"a b|$c|it's|auto|tpu|77|{cache}|" * 2
    number = pathlib.Path(f"/dev/shm/neurolm_jax.{user}")
    assert number.read_text() == (tmp_path / "second").read_text()
    number.unlink()
    assert not pathlib.Path("/proc", (tmp_path / "first").read_text().strip()).exists()
    assert run("bash", LAUNCH / "tpu_pod.sh", "slice", "zone", "bucket").returncode == 2


def jobset():
    return yaml.safe_load((LAUNCH / "train_jobset.yaml").read_text())


def test_the_jobset_has_the_slices_hosts_and_a_command_that_is_understood():
    [slice] = jobset()["spec"]["replicatedJobs"]
    job = slice["template"]["spec"]
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    chips = math.prod(map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
    each = int(container["resources"]["limits"]["google.com/tpu"])
    assert job["parallelism"] == job["completions"] == chips // each
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    # Every flag is one of train's, every path on the bucket, and the batch splits over the chips.
    code = (
        "import sys; from neurolm_jax import command_line, configuration, train\n"
        "command_line.parse_flags(sys.argv, 'config', 'workdir'); config = command_line.CONFIG.value\n"
        "workdir = command_line.flags.FLAGS.workdir; configuration.check(config)\n"
        "paths = [workdir, config.data.root, *config.initial.values()]\n"
        "assert all(str(path).startswith('/bucket/') for path in paths), paths\n"
        f"assert config.batch_size % {chips} == config.text_batch_size % {chips} == 0\n"
        "print(config.stage, config.language.layers)"
    )
    assert container["command"] == ["python", "-m", "neurolm_jax.train"]
    done = run(sys.executable, "-c", code, *container["args"], cwd=ROOT)
    assert done.stdout == "pretrain 48\n", done.stderr


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_pages_have_no_place_that_was_not_filled_in(page):
    assert not re.search(r"\b(TABLE|WASTE|FSDP)_|TODO|XXX", page.read_text())


def test_the_guide_names_files_and_flags_that_there_are():
    """Every command of docs/pod.md that trains: its config, size and overrides."""
    text = (ROOT / "docs" / "pod.md").read_text()
    for file in re.findall(r"\b(?:launch|configs|docs)/[\w.]+\w", text):
        assert (ROOT / file).is_file(), file
    joined = text.replace("\\\n", " ")
    lines = re.findall(r"python -m neurolm_jax\.(?:train|aot) ([^\n`]*)", joined)
    assert len(lines) >= 4
    for line in lines:
        words = [word for word in line.split() if not word.startswith("[")]
        if "--config" not in words:  # an example's "..."
            continue
        config = words[words.index("--config") + 1]
        overrides = [word for word in words if word.startswith("--config.")]
        code = "import sys; from neurolm_jax import train; train.parse_flags(sys.argv, 'config')"
        done = run(sys.executable, "-c", code, "--config", config, *overrides, cwd=ROOT)
        assert done.returncode == 0, (line, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_shellcheck(file):
    tool = pathlib.Path(sys.executable).with_name("shellcheck")
    done = run(tool, "--external-sources", file, cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_yamllint():
    rules = "{extends: default, rules: {line-length: {max: 160}, document-start: disable}}"
    done = run(sys.executable, "-m", "yamllint", "--strict", "-d", rules, *LAUNCH.glob("*.yaml"))
    assert done.returncode == 0, done.stdout


# What stands in a JobSet beside the jobs themselves (jobset.x-k8s.io/v1alpha2).
RULE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "action": {"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]},
        "onJobFailureReasons": {
            "items": {"enum": ["BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "PodFailurePolicy"]}
        },
        "targetReplicatedJobs": {"items": {"type": "string"}},
    },
    "required": ["action"],
    "additionalProperties": False,
}
JOBSET = {
    "type": "object",
    "properties": {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "properties": {
                "failurePolicy": {
                    "type": "object",
                    "properties": {
                        "maxRestarts": {"type": "integer"},
                        "restartStrategy": {"enum": ["Recreate", "BlockingRecreate"]},
                        "rules": {"type": "array", "items": RULE},
                    },
                    "additionalProperties": False,
                },
                "replicatedJobs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string", "pattern": "^[a-z0-9-]+$"},
                            "replicas": {"type": "integer"},
                            "template": {"type": "object", "required": ["spec"]},
                        },
                        "required": ["name", "template"],
                        "additionalProperties": False,
                    },
                },
            },
            "required": ["replicatedJobs"],
            "additionalProperties": False,
        },
    },
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
}


@pytest.mark.slow
def test_kubernetes_takes_the_jobset():
    import jsonschema
    import kubernetes_validate

    found = jobset()
    jsonschema.validate(found, JOBSET)
    for replicated in found["spec"]["replicatedJobs"]:
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}} | replicated["template"]
        kubernetes_validate.validate(job, "1.33", strict=True)
        job["spec"]["parallelisms"] = 3
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(job, "1.33", strict=True)
