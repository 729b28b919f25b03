"""What a run costs and learns from, computed from its config, and what it reached, read from its folder."""

import csv
import functools
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict, FrozenConfigDict

from neurolm_jax.ahead import arithmetic
from neurolm_jax.inference import findings
from neurolm_jax.outputs import appearing_file
from neurolm_jax.stages import build
from neurolm_jax.studies.sweep import EVALUATED, Run, Sweep, load
from neurolm_jax.training import metrics
from neurolm_jax.training.mesh import make_mesh
from neurolm_jax.training.state import abstract_state


class Size(NamedTuple):
    """parameters: trained, without tables of embeddings and classes; operations: of a step, over all devices."""

    parameters: int
    operations: float


class Row(NamedTuple):
    """A point at one stage. codes: what figures of codes are over, alike where they compare; parameters: as in
    ``Size``; tokens: of EEG, seen in all steps, and distinct ones among what there is; operations: of all steps;
    finished: trained to its last step; metrics: those that the sweep names, as far as they were measured; loss: their
    sum for a law, None where one is missing."""

    name: str
    budget: str
    share: float
    seed: int
    stage: str
    codes: str
    parameters: int
    tokens_seen: float
    tokens_distinct: int
    steps: int
    operations: float
    seconds: float | None
    finished: bool
    loss: float | None
    metrics: dict[str, float]
    folder: str


def size_of(config: ConfigDict) -> Size:
    """The size of a config's model, and of a step with its batch, without making it."""
    alike = config.copy_and_resolve_references()
    alike.update(seed=0, steps=1)  # what does not matter, and in which points of a grid differ
    if "share" in alike.data:
        alike.data.share = 1.0
    return _size(FrozenConfigDict(alike))


@functools.lru_cache(maxsize=256)
def _size(config):
    stage = build(config)
    weights = abstract_state(stage, make_mesh()).weights
    flat = flatten_dict(weights.params)
    inner = {path: leaf for path, leaf in flat.items() if path[-1] not in ("table", "output")}
    return Size(arithmetic.parameter_count(inner), arithmetic.work(stage, weights).total)


def operations(config: ConfigDict) -> float:
    """How many operations a step of a config needs, over all devices."""
    return size_of(config).operations


def rows_of(sweep: Sweep, runs: pathlib.Path) -> list[Row]:
    """All points at all stages that are measured, finished or not, from the folder of the sweep's runs."""
    measured = functools.cache(lambda name: _measured(known[name]))
    known = {run.name: run for point in sweep.points for run in point.runs.values()}
    rows = []
    for point in sweep.points:
        for stage, run in point.runs.items():
            config, size, seen, distinct = measured(run.name)
            folder = runs / run.name
            lines = metrics.read(folder)
            names = sweep.metrics[stage]
            finished = bool(lines) and lines[-1]["step"] >= config.steps
            found = _reached(lines, names, sweep.value) if finished else {}
            whole = sweep.kind == "law" and finished and set(names) <= found.keys()
            loss = math.fsum(found[name] for name in names) if whole else None
            if sweep.evaluate and stage == "instruct":
                found |= _evaluated(findings.evaluation_file(folder, EVALUATED))
            rows.append(
                Row(
                    name=point.name,
                    budget=point.budget,
                    share=point.share,
                    seed=point.seed,
                    stage=stage,
                    codes=_codes(run, config),
                    parameters=size.parameters,
                    tokens_seen=seen,
                    tokens_distinct=distinct,
                    steps=config.steps,
                    operations=size.operations * config.steps,
                    seconds=max((line.get("seconds", 0) for line in lines), default=None),
                    finished=finished,
                    loss=loss,
                    metrics=found,
                    folder=run.name,
                )
            )
    return rows


def write_csv(rows: Sequence[Row], file: pathlib.Path) -> None:
    """Write a line for each row, metrics in columns of their own."""
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    fields = [field for field in Row._fields if field != "metrics"]
    with appearing_file(file) as unfinished, unfinished.open("w", newline="") as text:
        writer = csv.writer(text)
        writer.writerow([*fields, *names])
        for row in rows:
            writer.writerow([*(getattr(row, field) for field in fields), *(row.metrics.get(name) for name in names)])


def _measured(run: Run):
    """Config, size, EEG tokens seen and distinct."""
    config = load(run)
    rows, batch = next(iter(build(config).sources(train=True).values()))
    amount = rows.amount
    return config, size_of(config), config.steps * batch * amount.each, amount.distinct


def _codes(run, config):
    """What a run's figures of codes are over: the tokenizer of its pretrain stage, or so many codes of its own."""
    if run.stage == "pretrain":
        return run.initial["tokenizer"].name if "tokenizer" in run.initial else config.initial.tokenizer
    return str(config.tokenizer.codes) if run.stage == "tokenizer" else ""


def _reached(lines, names, value):
    """Values of some metrics at the last step, or where their sum is lowest. What is missing was not measured there, or
    was not finite: an earlier value is no stand-in for a run that has diverged since."""
    found = [{name: line[name] for name in names if name in line} for line in lines]
    whole = [one for one in found if len(one) == len(names)]
    return min(whole, key=lambda one: math.fsum(one.values())) if value == "lowest" and whole else found[-1]


def _evaluated(file):
    tasks = findings.read(file)["tasks"] if file.is_file() else {}
    return {f"{name}: balanced accuracy": task["balanced_accuracy"] for name, task in tasks.items() if task["scored"]}
