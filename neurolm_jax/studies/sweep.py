"""What a sweep consists of: points to compare, each with its runs, and the runs that these start from.

A run's folder is named by a hash of all that it is: runs that several points, or several sweeps of one workdir, share
are trained once.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from neurolm_jax import configuration
from neurolm_jax.command_line import located
from neurolm_jax.errors import UserError
from neurolm_jax.outputs import write_json
from neurolm_jax.training.provenance import HARMLESS

# Fields with which a run may go on, but not without changing what it learns from, computes or is measured by.
MATTER = (
    "steps",
    "evaluate_every",
    "validation_rows",
    "validation_text_rows",
    "initial",
    "faults",
    "data.root",
    "data.validation",
    "matmul_precision",
    "language.dtype",
    "tokenizer.encoder.dtype",
)
EVALUATED = "validation"  # the part on which answers are compared
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

    @functools.cached_property
    def name(self) -> str:
        """The name of its folder, by what the config holds of all that matters, and by the runs that it starts from.

        Raises:
          UserError: as ``load``.
        """
        earlier = {f"initial.{stage}": run.name for stage, run in self.initial.items()}
        told = {name: value for name, value in configuration.flat(load(self)) if _matters(name)} | earlier
        digest = hashlib.sha256(json.dumps([told, self.compute], sort_keys=True).encode()).hexdigest()
        return f"{self.stage}-{digest[:10]}"

    def but(self, **fields: Any) -> "Run":
        """The same run with some of its fields exchanged."""
        return dataclasses.replace(self, **fields)


@dataclasses.dataclass(frozen=True)
class Point:
    """A place of a grid, or a variant of an ablation, with one seed: a run for each stage that is measured.

    budget: names the points that cost the same; share: of the recordings that they learn from, which tells points of
    one budget apart.
    """

    name: str
    seed: int
    runs: Mapping[str, Run]
    budget: str = ""
    share: float = 1.0


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A study.

    Args:
      title: of its page.
      kind: ``law``, fitted to each stage's loss, or ``ablation``, a table of every metric.
      points: what is compared.
      metrics: stage -> names in ``metrics.jsonl``. A law's loss is their sum.
      value: of a metric: the ``last`` one, or the ``lowest`` of all validations (a law's alone).
      baseline: the name of the points that the others of an ablation differ from.
      evaluate: instruct runs are evaluated too, on the validation part.
    """

    title: str
    kind: str
    points: Sequence[Point]
    metrics: Mapping[str, Sequence[str]]
    value: str = "last"
    baseline: str = ""
    evaluate: bool = False

    def __post_init__(self):
        choices = {"kind": ("law", "ablation"), "value": ("last", "lowest")}
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise UserError(f"sweep: {field} must be one of {', '.join(known)}, not {getattr(self, field)!r}")
        if self.kind == "ablation" and self.value == "lowest":
            raise UserError("sweep: value='lowest' is a law's alone; an ablation's metrics are those of the last step")
        names = [(point.name, point.seed, point.budget, point.share) for point in self.points]
        if len(set(names)) < len(names) or not names:
            raise UserError("sweep: points must differ in name, budget, share or seed, and there must be one")
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
      UserError: a field that no config has, a value of another type, a config that no stage can run with, or one that
        never validates although the sweep measures that.
    """
    # By identity: of two runs that are one so far, the first may leave open what the second sets itself.
    known: dict[int, Run] = {}
    used: set[str] = set()

    def settle(run):
        if (before := id(run)) not in known:
            initial = {stage: settle(earlier) for stage, earlier in run.initial.items()}
            base = dict(configuration.flat(load(run)))
            here = {name: value for name, value in fields.items() if name in base and name not in run.overrides}
            used.update(here)
            run = run.but(initial=initial, overrides={**run.overrides, **here})
            config = load(run)
            if run.compute:
                steps = {} if "steps" in run.overrides else steps_for(config, run.compute)
                run = run.but(overrides=_with_length(run.overrides, steps), compute=0.0)
            elif config.steps < 0:
                run = run.but(overrides=_with_length(run.overrides, _steps_of_epochs(config)))
            configuration.check(load(run, {stage: stage for stage in initial}))
            known[before] = run
        return known[before]

    points = [dataclasses.replace(p, runs={stage: settle(run) for stage, run in p.runs.items()}) for p in sweep.points]
    if unknown := sorted(fields.keys() - used):
        raise UserError(f"--set {unknown[0]}: no config of this sweep has such a field, or the sweep sets it itself")
    _check_validation(points, sweep.metrics)
    return dataclasses.replace(sweep, points=points)


def _check_validation(points, metrics):
    """Refuse to measure validations of a run that makes none, before anything is trained."""
    for stage, run in (pair for point in points for pair in point.runs.items()):
        config, wanted = load(run), [name for name in metrics[stage] if "validation_" in name]
        if wanted and not (config.evaluate_every and config.steps):
            field = "steps" if config.evaluate_every else "evaluate_every"
            raise UserError(
                f"sweep: {run.config} has {field}=0, so the {stage} stage has no {wanted[0]}; override it in the sweep,"
                f" or give --set {field}=N"
            )


def steps_for(config: ConfigDict, compute: float) -> dict[str, int]:
    """The number of steps that cost the given operations, with warm-up in the config's proportion."""
    from neurolm_jax.studies.measures import operations
    from neurolm_jax.training import schedule

    steps, fraction = max(1, round(compute / operations(config))), schedule.warmup_fraction(config)
    warmup = min(config.warmup_steps, steps) if fraction is None else round(fraction * steps)
    return {"steps": steps, "warmup_steps": max(1, warmup)}


def _with_length(overrides, length):
    """Overrides with a length in steps, where it is known, in place of epochs and fractions."""
    if not length:
        return dict(overrides)
    return {name: value for name, value in overrides.items() if name not in configuration.LENGTHS.values()} | length


def _steps_of_epochs(config):
    """The number of steps that a config's epochs take, and its warm-up in steps."""
    from neurolm_jax.stages import build
    from neurolm_jax.training import schedule

    config = schedule.resolved_by(config, build(config).sources(train=True))
    return {"steps": config.steps, "warmup_steps": config.warmup_steps}


def load(run: Run, initial: Mapping[str, str] | None = None) -> ConfigDict:
    """The config that ``train`` would read from a run's command line.

    Raises:
      UserError: as ``train``; it is of another stage.
    """
    config = _read("config", run.config, arguments(run.but(config=located(run.config)), initial or {}))
    configuration.follow(config, run.overrides)
    if config.get("stage") != run.stage:
        raise UserError(f"sweep: {run.config} is of stage {config.get('stage')!r}, not {run.stage}")
    return config


def read_sweep(name: str) -> Sweep:
    """What the ``get_config`` of a file gives, with its argument after a colon.

    Raises:
      UserError: there is no such file, or it gives no sweep.
    """
    found = _read("sweep", name, [f"--sweep={located(name, '--sweep', 'configs/sweeps')}"])
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


def _matters(name):
    """Whether a field, by its dotted name, makes a run another one: all but where and how often something is written,
    and how work is shared out."""

    def among(fields):
        return any(name == field or name.startswith(f"{field}.") for field in fields)

    return among(MATTER) or not among(HARMLESS)


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
            {"name": p.name, "budget": p.budget, "share": p.share, "seed": p.seed}
            | {stage: run.name for stage, run in p.runs.items()}
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
    write_json(file, told)
