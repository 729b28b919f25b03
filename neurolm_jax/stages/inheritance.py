"""What a stage takes over from earlier ones: whether it fits a config, and what those were trained on."""

import logging
import pathlib

from ml_collections import ConfigDict

from neurolm_jax.data.trained_on import contamination, describe, line
from neurolm_jax.errors import UserError
from neurolm_jax.stages.base import Stage

# What must be the same for weights to fit, or frozen ones to mean the same.
ENCODER = tuple(
    f"tokenizer.encoder.{name}" for name in ("layers", "heads", "width", "channels", "seconds", "patch_norm", "causal")
)
TOKENIZER = (*ENCODER, "tokenizer.codes", "tokenizer.code_width")
LANGUAGE = tuple(f"language.{name}" for name in ("layers", "heads", "width", "vocabulary", "positions"))
INHERITED = {
    ("tokenizer", "language"): {"text_vocabulary": "language.vocabulary", "tokenizer.encoder.width": "language.width"},
    ("pretrain", "tokenizer"): {name: name for name in TOKENIZER},
    ("pretrain", "language"): {name: name for name in LANGUAGE},
    ("instruct", "pretrain"): {name: name for name in (*TOKENIZER, *LANGUAGE, "feature_norm")},
}
STAGES_OF = {"pretrain": ("pretrain", "instruct")}  # one instruct stage may build on another


def check_inherited(config: ConfigDict) -> None:
    """Compare a stage's config with those of the workdirs that it starts from.

    Raises:
      UserError: naming the field.
    """
    from neurolm_jax.training.checkpoint import read_meta

    for earlier, workdir in config.initial.items():
        if (config.stage, earlier) not in INHERITED:
            continue
        try:
            meta = read_meta(workdir)
        except UserError as error:
            raise UserError(f"config.initial.{earlier}: {error}") from error
        before, step = ConfigDict(meta["config"]), meta["step"]
        if before.stage not in STAGES_OF.get(earlier, (earlier,)):
            raise UserError(
                f"config.initial.{earlier}: {workdir} was trained by the stage {before.stage}; name the workdir of a"
                f" {earlier} stage"
            )
        if 0 < step < before.steps:
            logging.getLogger(__name__).warning(
                f"config.initial.{earlier}: {workdir} is at step {step} of {before.steps}; what starts from it now"
                " keeps these weights, also when it has gone on"
            )
        fields = dict(INHERITED[config.stage, earlier])
        if "summary" in before and before.summary["reads"]:  # of an instruct stage, on which this one builds
            fields |= {name: name for name in ("summary.reads", "summary.width", "summary.virtual_electrodes")}
        for ours, theirs in fields.items():
            want, found = _field(before, theirs), _field(config, ours)
            if want != found:
                raise UserError(f"config.{ours}: {found!r}, but {workdir} was trained with {theirs} {want!r}")


def trained_on(stage: Stage, workdir: str | pathlib.Path, step: int | None) -> dict:
    """Return what a stage and those that it starts from are trained on; a warning tells which recordings of its
    validation part are among that.

    Args:
      step: of the checkpoint that the run goes on from, which knows it already; None for a new run.
    """
    from neurolm_jax.training.checkpoint import read_trained_on

    if step is not None and (known := read_trained_on(workdir, step)):
        return known
    config = stage.config
    initial = {name: path for name, path in config.initial.items() if path and name != "gpt2"}
    corpora = stage.eeg_shards(train=True)
    found = describe(config.stage, corpora, {name: read_trained_on(path) for name, path in initial.items()})
    if "validation" not in config.data.get("splits", ()):
        checked = contamination(found, [shards.manifest for shards in stage.eeg_shards(train=False)])
        if checked["contaminated"]:
            logging.getLogger(__name__).warning(f"{workdir}: {line([checked], 'validation')}")
    return found


def _field(config, name):
    for part in name.split("."):
        if part not in config:
            raise UserError(f"config has no {name}: a checkpoint of stage {config.get('stage')} does not fit here")
        config = config[part]
    return tuple(config) if isinstance(config, list) else config  # as JSON has tuples
