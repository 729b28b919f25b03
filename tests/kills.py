"""Kills all stages and the writing of shards again and again, and looks whether anything was lost.

  python tests/kills.py FOLDER [--kills 25] [--seed 0] [--steps 40] [--every 5]

A chain of stages runs to its end once undisturbed, and once killed (SIGKILL) at random moments: while it starts, at any
step, while a checkpoint is being written. Prints JSON, and ends with 1 if anything is not as it should be: parameters
bit-identical, every step in metrics.jsonl once, with the same loss, no checkpoint that cannot be read.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
STAGES = ("language", "tokenizer", "pretrain", "instruct")
MOMENTS = ("start", "step", "save")
LONGEST = 300  # seconds that a process may take to get to the moment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=5, help="steps between checkpoints")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here too")
    arguments = parser.parse_args()
    found = soak(arguments.folder, arguments.kills, arguments.seed, arguments.steps, arguments.every)
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found))
    sys.exit(bool(found["faults"]))


def soak(folder: pathlib.Path, kills: int, seed: int, steps: int, every: int) -> dict:
    """Figures: kills by moment, starts, the most steps lost, and a list of what is wrong."""
    from neurolm_jax.training import checkpoint, metrics

    draw, faults = random.Random(seed), []
    found = {"kills": dict.fromkeys((*MOMENTS, "shards"), 0), "starts": 0, "steps_lost": []}
    folder.mkdir(parents=True, exist_ok=True)
    each, count = max(1, kills // (len(STAGES) + 1)), found["kills"]
    data = _shards(folder, each, draw, count, faults)
    for stage in STAGES:
        for name in ("whole", "killed"):
            workdir, killed = folder / name / stage, 0
            command = [sys.executable, str(HERE / "kills.py"), "stage", stage, data, folder / name, steps, every]
            while True:
                moment = MOMENTS[killed % len(MOMENTS)] if name == "killed" and killed < each else None
                process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
                was_killed = moment and _kill(process, moment, workdir, draw)
                said = process.communicate()[1]
                found["starts"] += 1
                if not was_killed:
                    if process.returncode:
                        faults.append(f"{stage}: ended with code {process.returncode}: {said[-500:]}")
                    break
                killed += 1
                count[moment] += 1
                lines, saved = metrics.read(workdir), checkpoint.steps(workdir)
                for step in saved:
                    if fault := _fault(workdir, step):
                        faults.append(f"{stage}: step {step} after a kill at {moment}: {fault}")
                lost = (lines[-1]["step"] if lines else 0) - (saved[-1] if saved else 0)
                found["steps_lost"].append(lost)
        _compare(folder, stage, steps, faults)
    lost = found.pop("steps_lost")
    found |= {"killed": sum(count.values()), "steps_lost_at_most": max(lost, default=0), "interval": every}
    if found["steps_lost_at_most"] > 2 * every:  # a checkpoint is begun only when the one before is whole
        faults.append(f"{found['steps_lost_at_most']} steps lost, of a save every {every}")
    return found | {"faults": faults}


def _fault(workdir, step):
    from neurolm_jax.training import checkpoint, integrity

    return integrity.fault(checkpoint.folder(workdir) / str(step), checkpoint.ALL)


def _compare(folder, stage, steps, faults):
    from neurolm_jax.training import checkpoint, metrics

    whole, killed = (folder / name / stage for name in ("whole", "killed"))
    digests = [checkpoint.digest(checkpoint.read_arrays(workdir)) for workdir in (whole, killed)]
    if digests[0] != digests[1]:
        faults.append(f"{stage}: other parameters than undisturbed")
    lines = [metrics.read(workdir) for workdir in (whole, killed)]
    if [line["step"] for line in lines[1]] != list(range(1, steps + 1)):
        faults.append(f"{stage}: metrics.jsonl has the steps {[line['step'] for line in lines[1]]}")
    if [line["loss"] for line in lines[0]] != [line["loss"] for line in lines[1]]:
        faults.append(f"{stage}: other losses than undisturbed")


def _kill(process, moment, workdir, draw):
    """Whether the process was killed at the moment, before it ended by itself."""
    checkpoints = workdir / "checkpoints"
    if moment == "start":
        end = time.monotonic() + draw.uniform(0, 8)
        _wait(process, lambda: time.monotonic() > end)
    elif moment == "step":
        lines = _lines(workdir)
        _wait(process, lambda: _lines(workdir) > lines)
        time.sleep(draw.uniform(0, 1.5))
    else:
        saves = draw.randrange(3)
        for _ in range(saves + 1):
            before = set(checkpoints.glob("*.orbax-checkpoint-tmp*"))
            _wait(process, lambda before=before: set(checkpoints.glob("*.orbax-checkpoint-tmp*")) - before)
        time.sleep(draw.uniform(0, 0.15))
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    return True


def _lines(workdir):
    file = workdir / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def _wait(process, condition):
    begin = time.monotonic()
    while process.poll() is None and not condition():
        if time.monotonic() - begin > LONGEST:
            raise TimeoutError(f"{process.args}: did not get there in {LONGEST} s")
        time.sleep(0.005)


def _shards(folder, kills, draw, count, faults):
    """Prepared data, whose writing was killed ``kills`` times; compared with what one start writes."""
    from neurolm_jax.data.shards import read_manifest

    roots = folder / "data", folder / "again"
    for root in roots:
        while not (root / "text" / "train" / "manifest.json").exists():
            process = subprocess.Popen([sys.executable, str(HERE / "kills.py"), "data", str(root)])
            if root == roots[1] and count["shards"] < kills:
                _wait(process, lambda root=root: any(root.rglob("*.unfinished")))
                time.sleep(draw.uniform(0, 0.5))
                if process.poll() is None:
                    process.kill()
                    count["shards"] += 1
            if process.wait() and root == roots[0]:
                raise RuntimeError("data could not be prepared")
    for file in sorted(roots[0].rglob("manifest.json")):
        other = roots[1] / file.relative_to(roots[0])
        if read_manifest(file.parent)["content_hash"] != read_manifest(other.parent)["content_hash"]:
            faults.append(f"{other}: other records than undisturbed")
    return roots[0]


def _stage(stage, data, runs, steps, every):
    sys.modules["torch"] = None  # tensorboardX imports it where it is installed, for seconds at each start
    from small_data import config

    from neurolm_jax import train

    data, runs = pathlib.Path(data), pathlib.Path(runs)
    c = config(stage, data, runs, steps=int(steps), checkpoint_every=int(every), evaluate_every=10 * int(every))
    c.data.workers = 1
    train.train(c, runs / stage)


def _data(root):
    from small_data import write

    write(pathlib.Path(root))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    os.environ["PYTHONPATH"] = f"{HERE}:{HERE.parent}"
    if sys.argv[1:2] == ["stage"]:
        _stage(*sys.argv[2:])
    elif sys.argv[1:2] == ["data"]:
        _data(sys.argv[2])
    else:
        main()
