"""The runs of a sweep are started in order, ended, and gone on with; the runs themselves are tested elsewhere."""

import csv
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from small_sweeps import ROOT, tokenizer, write_run

from neurolm_jax.errors import JobError, UserError
from neurolm_jax.studies import execution
from neurolm_jax.studies.grids import chain
from neurolm_jax.studies.sweep import Point, Sweep, in_order, load
from neurolm_jax.training.preemption import Notice


def test_commands_that_can_start_now(study, tmp_path):
    lines, waiting = execution.ready(study, tmp_path)
    assert (len(lines), waiting) == (4, 24)
    languages = [run for run in in_order(study).values() if run.stage == "language"]
    for run, line in zip(languages, lines):
        words = shlex.split(line)
        assert words[:3] == [sys.executable, "-m", "neurolm_jax.train"]
        assert words[words.index("--workdir") + 1] == str(tmp_path / run.name)
    write_run(tmp_path / languages[0].name, 2, [])
    write_run(tmp_path / languages[1].name, 1, [])  # on its way: one of two steps
    lines, waiting = execution.ready(study, tmp_path)
    assert (len(lines), waiting) == (3 + 6, 18)
    started = shlex.split(lines[1])
    assert f"--config.initial.language={tmp_path / languages[0].name}" in started
    assert "--config.data.train=('blink/recordings/train', 'scp1/recordings/train', 'eyes/recordings/train')" in started
    assert any(str(tmp_path / languages[1].name) in shlex.split(line) for line in lines)  # which goes on
    for run in languages:
        write_run(tmp_path / f"{run.name}x", 2, [])  # others' folders do not count
    assert execution.ready(study, tmp_path) == (lines, waiting)


def test_answers_are_evaluated_with_the_task_files_of_their_own_run(tmp_path):
    """What the sweep names is trusted, and nothing is where no file is named."""
    for tasks, trusted in ((("blink", "mine.py"), True), (("blink", "eyes"), False)):
        run = chain("quickstart", {"instruct": {"data.tasks": tasks}}, 0)["instruct"]
        point = Point("baseline", 0, {"instruct": run})
        metrics = {"instruct": ("validation_answer_loss",)}
        sweep = Sweep("t", "ablation", [point], metrics, baseline="baseline", evaluate=True)
        runs = tmp_path / str(trusted)
        for one in in_order(sweep).values():
            write_run(runs / one.name, load(one).steps, [])
        [line], _ = execution.ready(sweep, runs)
        words = shlex.split(line)
        assert words[1:3] == ["-m", "neurolm_jax.evaluate"] and words[words.index("--split") + 1] == "validation"
        assert words[words.index("--checkpoint") + 1] == str(runs / run.name)
        assert ("--trust_code" in words) == trusted


def commands(monkeypatch, *programs):
    steps = [(f"run-{i}", [sys.executable, "-c", program]) for i, program in enumerate(programs)]
    monkeypatch.setattr(execution, "_open_steps", lambda sweep, runs: steps)


def test_runs_that_fail_end_the_sweep_with_their_reason(monkeypatch, tmp_path, capsys):
    armed = Notice()
    armed.armed = True
    mark = f"import pathlib; pathlib.Path({str(tmp_path)!r}, 'ran').touch()"
    commands(monkeypatch, "print('error: config.x: is bad'); raise SystemExit(2)", mark)
    with pytest.raises(UserError, match="run-0.log: config.x: is bad"):
        execution.run_all(None, tmp_path, armed)
    commands(monkeypatch, "raise SystemExit(7)", mark)
    with pytest.raises(JobError, match="run-0.log: it ended with code 7"):
        execution.run_all(None, tmp_path, armed)
    assert not (tmp_path / "ran").exists()
    commands(monkeypatch, "print(1)", mark)
    assert execution.run_all(None, tmp_path, armed) and (tmp_path / "ran").exists()
    assert "2 of 2: run-1" in capsys.readouterr().out


def test_a_sweep_that_is_asked_to_end_hands_it_on(tmp_path):
    """The command in a process of its own; the run at hand has time to save."""
    child = (
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n    pathlib.Path('saved').touch(); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\npathlib.Path('started').touch()\ntime.sleep(60)\n"
    )
    program = (
        "import pathlib, sys\nfrom neurolm_jax.studies import execution\nfrom neurolm_jax.training import preemption\n"
        f"steps = [(name, [sys.executable, '-c', {child!r}]) for name in 'ab']\n"
        "execution._open_steps = lambda *_: steps\n"
        "with preemption.noticed() as notice:\n    notice.armed = True\n"
        "    print(execution.run_all(None, pathlib.Path('.'), notice))\n"
    )
    line = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
    job = subprocess.Popen(line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "started").exists():
        assert job.poll() is None
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 0 and said.endswith("False\n") and "asked to end" in said
    assert (tmp_path / "saved").exists() and not (tmp_path / "b.log").exists()


def test_a_run_that_is_asked_to_end_by_itself_ends_the_sweep(tmp_path, monkeypatch, capsys):
    """The next one might start from what it left half trained."""
    commands(monkeypatch, "import sys; sys.exit(75)", f"open({str(tmp_path / 'ran')!r}, 'w')")
    armed = Notice()
    armed.armed = True
    assert not execution.run_all(None, tmp_path, armed) and not (tmp_path / "ran").exists()
    assert "asked to end, the same command goes on" in capsys.readouterr().out


def sweep_command(*arguments):
    return [sys.executable, "-m", "neurolm_jax.scaling", *map(str, arguments)]


@pytest.mark.slow
def test_a_sweep_runs_resumes_and_shares(small_data, tmp_path):
    """Two sizes by the command itself, asked to end in the second of four runs; what is finished is not run again."""
    file, runs = tmp_path / "two.py", tmp_path / "w" / "runs"
    sizes = {"s": tokenizer(16, 1), "m": tokenizer(32, 1)}
    file.write_text(
        "from neurolm_jax.studies.grids import Amount, grid\nfrom neurolm_jax.studies.sweep import Run, Sweep\n"
        f"def get_config():\n    points = grid({sizes!r}, [Amount(1.0, 0.0)], (0,))\n"
        "    return Sweep('two', 'law', points, {'tokenizer': ('validation_raw_loss',)})\n"
    )
    line = sweep_command("--sweep", file, "--workdir", tmp_path / "w")
    line += ["--set", f"data.root={small_data}", "--set", "steps=4"]
    job = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    begun = {}
    while "2" not in begun:
        said = job.stdout.readline()
        assert said, f"ended with {job.wait()}"
        if found := re.match(r"(\d) of 4: (\S+)", said):
            begun[found[1]] = found[2]
    job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=300)
    assert job.returncode == 75 and "asked to end, the same command goes on" in said and "3 of 4" not in said
    first, second = begun["1"], begun["2"]
    [saved] = (runs / first / "checkpoints").iterdir()
    before = saved.stat().st_mtime_ns
    assert first.startswith("language-") and saved.name == "2"
    assert not (runs / second / "checkpoints" / "4").exists()

    def go_on(*more):
        return subprocess.run([*line, *more], cwd=ROOT, capture_output=True, text=True, timeout=900)

    left = go_on("--list")
    folders = [
        pathlib.Path(words[words.index("--workdir") + 1]).name for words in map(shlex.split, left.stdout.splitlines())
    ]
    assert "2 can start, 1 wait for them" in left.stderr and len(folders) == 2
    assert second in folders and first not in folders
    rest = go_on()
    assert rest.returncode == 0, rest.stderr
    assert f"1 of 3: {second}" in rest.stdout and "3 of 3: tokenizer-" in rest.stdout and first not in rest.stdout
    assert "no law: 2 different pairs" in rest.stdout and saved.stat().st_mtime_ns == before
    rows = list(csv.DictReader((tmp_path / "w" / "two" / "points.csv").open()))
    assert len(rows) == 2 and all(float(row["loss"]) > 0 and row["steps"] == "4" for row in rows)
    for row in rows:
        steps = [json.loads(one)["step"] for one in (runs / row["folder"] / "metrics.jsonl").read_text().splitlines()]
        assert steps == sorted(set(steps)) and steps[-1] == 4
    again = go_on()
    assert again.returncode == 0 and " of " not in again.stdout.split("no law")[0]
