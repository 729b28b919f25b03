"""How many steps a run takes and for how many it warms up, where its config tells epochs and a fraction."""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from neurolm_jax import configuration

WITHOUT_DATA = 100_000  # steps of a program that is compiled or timed where there are no data


def resolved(config: ConfigDict, rows: int | None = None, size: int = 1) -> ConfigDict:
    """Return a copy of a config whose ``steps`` and ``warmup_steps`` are numbers of steps.

    Args:
      rows: in one epoch of the source that EEG or, in the language stage, text comes from; None where there are no
        data, for programs, in which the number of steps is but a constant.
      size: rows of that source in a global batch.

    Raises:
      UserError: a warm-up that is longer than the run; neither steps nor epochs.
    """
    configuration.check_length(config)
    changed = ConfigDict(config.to_dict())
    if config.steps < 0:
        steps = WITHOUT_DATA if rows is None else max(1, math.ceil(config.epochs * rows / size))
        changed.steps = steps
    if config.warmup_steps < 0:
        changed.warmup_steps = round(config.warmup * changed.steps)
    configuration.check_length(changed)
    return changed


def resolved_by(config: ConfigDict, sources: Mapping[str, tuple[Any, int]]) -> ConfigDict:
    """Return ``resolved`` by the first of a stage's sources, name -> (rows, global batch size)."""
    rows, size = next(iter(sources.values()))
    return resolved(config, len(rows), size)


def warmup_fraction(config: ConfigDict) -> float | None:
    """Return the part of all steps that is warm-up; None where a number of steps is told without that of all."""
    if config.warmup_steps < 0:
        return config.warmup
    return config.warmup_steps / config.steps if config.steps > 0 else None
