"""Points of the usual studies: sizes by amounts of data, and a chain of all stages with one thing changed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from neurolm_jax.configuration import STAGES
from neurolm_jax.errors import UserError
from neurolm_jax.studies.sweep import Point, Run, Sweep

Changes = Mapping[str, Mapping[str, Any]]  # stage -> fields

# Where the language model's own stage is told apart: from what pre-training starts, not the tokenizer's alignment.
PRETRAIN_LANGUAGE = "pretrain.language"
METRICS = {
    "tokenizer": (
        "validation_frequency_loss",
        "validation_raw_loss",
        "validation_codes_used",
        "validation_codes_perplexity",
    ),
    "pretrain": ("validation_eeg_loss", "validation_eeg_accuracy"),
    "instruct": ("validation_answer_loss", "validation_answer_accuracy"),
}


class Amount(NamedTuple):
    """share: of the recordings, ``config.data.share``; compute: operations of a run at it."""

    share: float
    compute: float


def grid(sizes: Mapping[str, Run], amounts: Sequence[Amount], seeds: Sequence[int]) -> list[Point]:
    """Every size at every amount with every seed; those of one amount cost the same.

    Amounts of equal compute and different shares tell what more recordings do from what longer training does.
    """
    points = []
    for name, run in sizes.items():
        for amount in amounts:
            for seed in seeds:
                fields = {"data.share": amount.share, "seed": seed}
                one = run.but(overrides={**run.overrides, **fields}, compute=amount.compute)
                points.append(Point(name, seed, {run.stage: one}, f"{amount.compute:.3g}", amount.share))
    return points


def ablation(
    title: str,
    base: str,
    variants: Mapping[str, Changes],
    measured: Sequence[str] = ("tokenizer", "instruct"),
    seeds: Sequence[int] = (0, 1, 2),
) -> Sweep:
    """A baseline and its variants through all stages, their answers evaluated on the validation part.

    A change of the tokenizer's model goes into every stage's config that describes it (``everywhere``).

    Args:
      base: ``quickstart``, or ``b,GPT2``: size b, and a file or folder of GPT-2's weights.
      variants: name -> what is changed in which stage; ``PRETRAIN_LANGUAGE`` is the language model that pre-training
        starts from alone.
      measured: stages in the table; pretrain only where the tokenizer stays, since its losses are over codes.
    """
    size, _, gpt2 = base.partition(",")
    if base != "quickstart" and (size != "b" or not gpt2):
        raise UserError(f"sweep: its argument must be quickstart, or b,FOLDER with GPT-2's weights, not {base!r}")
    everything = {"baseline": {}, **variants}
    points = [
        Point(name, seed, {stage: run for stage, run in chain(base, changes, seed).items() if stage in measured})
        for name, changes in everything.items()
        for seed in seeds
    ]
    metrics = {stage: METRICS[stage] for stage in measured}
    return Sweep(title, "ablation", points, metrics, baseline="baseline", evaluate="instruct" in measured)


def chain(base: str, changes: Changes, seed: int) -> dict[str, Run]:
    """All stages, each from those before. The language stage does not change with the seed."""

    size, _, gpt2 = base.partition(",")
    quickstart = size == "quickstart"
    own = {stage: {} if stage == "language" else {"seed": seed} for stage in STAGES}
    if quickstart:  # whose last stage learns from the validation part, which is what is compared here
        own["instruct"] |= {"data.splits": ("train",), "evaluate_every": 100}
    else:
        own["language"] |= {"initial.gpt2": gpt2, "steps": 0}

    def run(stage, initial, key=None):
        config = f"configs/quickstart.py:{stage}" if quickstart else f"configs/{stage}.py:{size}"
        return Run(stage, config, own[stage] | dict(changes.get(key or stage, {})), initial)

    language = run("language", {})
    started = run("language", {}, PRETRAIN_LANGUAGE) if PRETRAIN_LANGUAGE in changes else language
    tokenizer = run("tokenizer", {"language": language})
    pretrain = run("pretrain", {"language": started, "tokenizer": tokenizer})
    instruct = run("instruct", {"pretrain": pretrain})
    return {"language": language, "tokenizer": tokenizer, "pretrain": pretrain, "instruct": instruct}


def everywhere(fields: Mapping[str, Any]) -> Changes:
    """A change of the tokenizer's model, which the configs of all later stages describe too."""
    return {stage: fields for stage in ("tokenizer", "pretrain", "instruct")}
