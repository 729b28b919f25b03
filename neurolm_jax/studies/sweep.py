"""What a sweep consists of: points to compare, each with its runs, and the runs that these start from.

A run's folder is named by a hash of all that it is: runs that several points, or several sweeps of one workdir, share
are trained once.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from neurolm_jax import configuration
from neurolm_jax.errors import UserError
from neurolm_jax.outputs import appearing_file

# In which a file of configs can be wrong.
FAULTS = flags.Error, AttributeError, KeyError, NameError, SyntaxError, TypeError, ValueError, OSError, ImportError


@dataclasses.dataclass(frozen=True)
class Run:
    """One stage as ``train`` takes it.

    stage: that it trains; config: file and argument, as after ``--config``; overrides: of its fields, by their dotted
    names; initial: the runs that it starts from; compute: operations of all its steps, from which their number follows;
    0 leaves the config's.
    """

    stage: str
    config: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    initial: Mapping[str, "Run"] = dataclasses.field(default_factory=dict)
    compute: float = 0.0

    @property
    def name(self) -> str:
        """Of its folder."""
        told = [self.config, sorted(self.overrides.items()), sorted((k, r.name) for k, r in self.initial.items())]
        digest = hashlib.sha256(json.dumps([*told, self.compute]).encode()).hexdigest()
        return f"{self.stage}-{digest[:10]}"

    def but(self, **fields: Any) -> "Run":
        """With some of its fields exchanged."""
        return dataclasses.replace(self, **fields)


@dataclasses.dataclass(frozen=True)
class Point:
    """A place of a grid, or a variant of an ablation, with one seed: a run for each stage that is measured.

    budget: names the points that cost the same.
    """

    name: str
    seed: int
    runs: Mapping[str, Run]
    budget: str = ""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A study.

    Args:
      title: of its page.
      kind: ``law``, fitted to each stage's loss, or ``ablation``, a table of every metric.
      points: what is compared.
      metrics: stage -> names in ``metrics.jsonl``. A law's loss is their sum.
      value: of a metric: the ``last`` one, or the ``lowest`` of all validations (a law's alone).
      tokens: that a law's D counts: ``seen``, each as often as it was, or ``distinct``.
      baseline: the name of the points that the others of an ablation differ from.
      evaluate: the part, ``validation`` or ``test``, on which instruct runs are evaluated too; "" for none.
    """

    title: str
    kind: str
    points: Sequence[Point]
    metrics: Mapping[str, Sequence[str]]
    value: str = "last"
    tokens: str = "seen"
    baseline: str = ""
    evaluate: str = ""

    def __post_init__(self):
        choices = {
            "kind": ("law", "ablation"),
            "value": ("last", "lowest"),
            "tokens": ("seen", "distinct"),
            "evaluate": ("", "validation", "test"),
        }
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise UserError(f"sweep: {field} must be one of {', '.join(known)}, not {getattr(self, field)!r}")
        names = [(point.name, point.seed, point.budget) for point in self.points]
        if len(set(names)) < len(names) or not names:
            raise UserError("sweep: points must differ in name, budget or seed, and there must be one")
        if self.kind == "ablation" and self.baseline not in {point.name for point in self.points}:
            raise UserError(f"sweep: no point is named as its baseline, {self.baseline!r}")
        if any("language" in point.runs for point in self.points):
            raise UserError("sweep: the language stage reads no EEG; measure what starts from it")
        if missing := {stage for point in self.points for stage in point.runs} - set(self.metrics):
            raise UserError(f"sweep: no metrics of {', '.join(sorted(missing))}")


def settled(sweep: Sweep, fields: Mapping[str, str]) -> Sweep:
    """The sweep with further fields, as typed after ``--set``, in every config that has them where the sweep does not
    set them itself, and with the number of steps of every run that has a compute.

    Raises:
      UserError: a field that no config has, a value of another type, a config that no stage can run with.
    """
    known: dict[str, Run] = {}
    used: set[str] = set()

    def settle(run):
        if (before := run.name) not in known:
            initial = {stage: settle(earlier) for stage, earlier in run.initial.items()}
            base = dict(configuration.flat(load(run)))
            here = {name: value for name, value in fields.items() if name in base and name not in run.overrides}
            used.update(here)
            run = run.but(initial=initial, overrides={**run.overrides, **here})
            config = load(run)
            if run.compute:
                steps = {} if "steps" in run.overrides else steps_for(config, run.compute)
                run = run.but(overrides={**run.overrides, **steps}, compute=0.0)
            configuration.check(load(run, {stage: stage for stage in initial}))
            known[before] = run
        return known[before]

    points = [dataclasses.replace(p, runs={stage: settle(run) for stage, run in p.runs.items()}) for p in sweep.points]
    if unknown := sorted(fields.keys() - used):
        raise UserError(f"--set {unknown[0]}: no config of this sweep has such a field, or the sweep sets it itself")
    return dataclasses.replace(sweep, points=points)


def steps_for(config: ConfigDict, compute: float) -> dict[str, int]:
    """The number of steps that cost the given operations, with warm-up in the config's proportion and a validation at
    the end."""
    from neurolm_jax.studies.measures import operations

    steps = max(1, round(compute / operations(config)))
    warmup = round(config.warmup_steps * steps / config.steps) if config.steps else config.warmup_steps
    return {"steps": steps, "warmup_steps": max(1, warmup)}


def load(run: Run, initial: Mapping[str, str] | None = None) -> ConfigDict:
    """The config that ``train`` would read from a run's command line.

    Raises:
      UserError: as ``train``; it is of another stage.
    """
    config = _read("config", run.config, arguments(run, initial or {}))
    if config.get("stage") != run.stage:
        raise UserError(f"sweep: {run.config} is of stage {config.get('stage')!r}, not {run.stage}")
    return config


def read_sweep(name: str) -> Sweep:
    """What the ``get_config`` of a file gives, with its argument after a colon.

    Raises:
      UserError: there is no such file, or it gives no sweep.
    """
    found = _read("sweep", name, [f"--sweep={name}"])
    if not isinstance(found, Sweep):
        raise UserError(f"--sweep {name}: its get_config gives no Sweep; see docs/scaling.md")
    return found


def _read(flag, name, line):
    """The value of one config file flag on a command line of its own."""
    line, values = ["scaling", *line], flags.FlagValues()
    config_flags.DEFINE_config_file(flag, flag_values=values, sys_argv=line)
    try:
        values(line)
        found = values[flag].value
        getattr(found, "stage", None)  # a file that could not be read says so only here
    except FAULTS as error:
        raise UserError(f"{name}: {error}") from error
    return found


def arguments(run: Run, initial: Mapping[str, str]) -> list[str]:
    """A run's part of a command line; ``initial``: workdirs of the stages that it starts from."""
    fields = dict(run.overrides) | {f"initial.{stage}": workdir for stage, workdir in initial.items()}
    return ["--config", run.config, *(f"--config.{name}={value}" for name, value in fields.items())]


def in_order(sweep: Sweep) -> dict[str, Run]:
    """All runs by name, each behind those that it starts from."""
    found: dict[str, Run] = {}

    def add(run):
        for earlier in run.initial.values():
            add(earlier)
        found.setdefault(run.name, run)

    for point in sweep.points:
        for run in point.runs.values():
            add(run)
    return found


def write(sweep: Sweep, file: pathlib.Path) -> None:
    """What every run is, for people: folders by point, and fields by folder."""
    told = {
        "title": sweep.title,
        "points": [
            {"name": p.name, "budget": p.budget, "seed": p.seed} | {stage: run.name for stage, run in p.runs.items()}
            for p in sweep.points
        ],
        "runs": {
            name: {
                "config": run.config,
                "overrides": dict(run.overrides),
                "initial": {stage: earlier.name for stage, earlier in run.initial.items()},
            }
            for name, run in in_order(sweep).items()
        },
    }
    with appearing_file(file) as unfinished:
        unfinished.write_text(json.dumps(told, indent=1))
