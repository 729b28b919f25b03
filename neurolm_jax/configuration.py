"""Fields that every stage's config has, and their check.

The comment behind a field, or above it, is its documentation: ``train --print`` shows it (``reporting/fields.py``).
Config files under ``configs/`` start from ``base(stage)`` and fill in the rest. Command-line overrides
(``--config.steps=40``) are checked by ml_collections against the types that stand here.
"""

import math
from collections.abc import Collection, Iterator
from typing import Any

from ml_collections import ConfigDict

from neurolm_jax.errors import UserError
from neurolm_jax.models.config import PATCH_NORMS, REMAT, SPECTRUM_TARGETS
from neurolm_jax.suggestions import did_you_mean

STAGES = ("language", "tokenizer", "pretrain", "instruct")


def base(stage: str) -> ConfigDict:
    """A config with the fields that all stages share."""
    c = ConfigDict()
    c.stage = stage  # language, tokenizer, pretrain or instruct
    c.seed = 0  # of initial weights, order of data, dropout, revival
    c.steps = 100_000  # optimizer steps in all; 0 keeps the initial weights, -1 takes as many as epochs need
    c.epochs = 0.0  # passes over the rows to learn from, where steps is -1
    c.batch_size = 64  # rows of EEG or dialogues, over all devices
    c.text_batch_size = 16  # rows of plain text beside them
    c.text_length = 1024  # tokens in a row of text
    # Of float32 matrix products: "default" is one pass in bfloat16 on TPUs and TF32 on NVIDIA GPUs, "high" three passes
    # on TPUs, "highest" float32 everywhere. What decides codes is always "highest".
    c.matmul_precision = "default"
    c.accumulation = 1  # parts of a batch that go through the model one after another, to save memory

    c.learning_rate = 5e-5  # at the end of warm-up
    c.final_learning_rate = 1e-5  # at the last step
    # Steps in which the learning rate grows from 0; after them it falls along a cosine. -1 for a fraction of all.
    c.warmup_steps = -1
    c.warmup = 0.1  # fraction of all steps that is warm-up, where warmup_steps is -1
    c.weight_decay = 0.1  # AdamW's, of matrices and tables alone
    c.beta1 = 0.9  # decay of AdamW's first moment
    c.beta2 = 0.95  # decay of its second moment
    c.clip_norm = 1.0  # global gradient norm; 0 leaves it

    c.checkpoint_every = 1000  # steps between checkpoints, and at the end
    c.keep_checkpoints = 2  # the newest so many
    c.evaluate_every = 1000  # steps between validations, and at the end; 0 never validates
    c.validation_rows = 6400  # of EEG or dialogues at most in one validation, in equal shares of the tasks
    c.validation_text_rows = 400  # of plain text at most
    c.log_every = 10  # steps between lines of metrics.jsonl
    c.wandb = ""  # project of Weights & Biases that gets the same numbers; "" for none

    c.faults = ConfigDict()
    c.faults.in_a_row = 10  # steps skipped one after another (loss or gradient not finite) before the run rolls back
    c.faults.rollbacks = 3  # times it does so, leaving out the data since the checkpoint, before it stops
    c.faults.collapse = "warn"  # or stop, or ignore, where codes go out of use or errors rise far above what they were
    c.faults.spike = 0.0  # standard deviations above the loss's moving mean from which on a step is skipped; 0 for none

    # Seconds that a process may take before it ends itself, to be started again; 0 for any.
    c.patience = ConfigDict()
    c.patience.restore = 7200.0  # to make the state, or to read it from a checkpoint
    c.patience.data = 1800.0  # to wait for a batch
    c.patience.compile = 7200.0  # for the first step
    c.patience.step = 1800.0  # for a later one, with a validation
    c.patience.save = 3600.0  # to hand a checkpoint over, and to finish the last

    # Devices along each axis; one may be -1 for what the others leave.
    c.mesh = ConfigDict()
    c.mesh.data = -1  # splits rows
    c.mesh.fsdp = 1  # splits rows and parameters, with the optimizer's moments
    c.mesh.tensor = 1  # splits heads, hidden units and vocabulary
    c.mesh.sequence = 1  # splits the length of long rows
    c.compilation_cache = ""  # folder that keeps compiled programs; "" keeps none

    c.data = ConfigDict()
    c.data.root = "data"  # folder under which prepare wrote
    c.data.text = "text"  # folder of plain text under data.root
    c.data.threads = 4  # that read ahead, in each process
    c.data.damaged = 100  # unreadable records that a process leaves out; one more stops it
    c.data.workers = 0  # processes that put batches together; 0 does so in this one
    c.initial = ConfigDict()  # workdirs of earlier stages
    return c


def check_fields(c: ConfigDict) -> None:
    """Refuse a config whose fields, or their types, are not those of its stage: in a file either may be a slip of the
    hand.

    Raises:
      UserError: naming the field, and the nearest.
    """
    import importlib

    if c.get("stage") not in STAGES:
        raise UserError(f"config.stage: {c.get('stage')!r} is not one of {', '.join(STAGES)}")
    known = dict(flat(importlib.import_module(f"configs.{c.stage}").get_config()))
    found = dict(flat(c))
    for name, value in found.items():
        if name not in known:
            hint = did_you_mean(name, known, "config.")
            raise UserError(f"config.{name}: no such field of the stage {c.stage}{hint}")
        if not _alike(value, known[name]):
            raise UserError(f"config.{name}: want {_KINDS[type(known[name])]}, such as {known[name]!r}, not {value!r}")
    for name in known:
        if name not in found:
            raise UserError(f"config.{name}: missing; configs/{c.stage}.py has it")


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "a tuple"}


def _alike(value, usual):
    """Whether a value is of the type of a field's usual one; elements of a tuple too."""
    if isinstance(usual, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(usual, tuple):
        return isinstance(value, (tuple, list)) and all(_alike(one, usual[0]) for one in value if usual)
    return type(value) is type(usual)


def use_compilation_cache(c: ConfigDict) -> None:
    """Keep compiled programs in the config's folder, if it names one, for the next start."""
    import pathlib

    import jax

    if c.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(c.compilation_cache).absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


_LARGEST = 2**31 - 1
# A model of other sizes is a slip of the hand; more rows, steps or bytes are not.
_SIZES = """language.layers language.heads language.width language.vocabulary language.positions
    tokenizer.decoder_layers tokenizer.codes tokenizer.code_width tokenizer.domain_width tokenizer.encoder.layers
    tokenizer.encoder.heads tokenizer.encoder.width tokenizer.encoder.channels tokenizer.encoder.seconds
    text_vocabulary row_length eeg_length answer_length text_length summary.width summary.virtual_electrodes"""
_COUNTS = """batch_size text_batch_size accumulation checkpoint_every keep_checkpoints validation_rows
    validation_text_rows log_every data.threads faults.in_a_row"""
_NOT_NEGATIVE = """epochs seed evaluate_every weight_decay clip_norm final_learning_rate language.lora_rank
    language.lora_alpha data.folds data.fold data.damaged faults.rollbacks faults.spike text_loss_weight feature_noise
    frequency_loss_weight feature_spectrum_loss_weight raw_loss_weight domain_loss_weight augmentation.scale
    augmentation.offset patience.restore patience.data patience.compile patience.step patience.save"""
_BOUNDS = [
    (_SIZES.split(), (1, 2**20)),
    (_COUNTS.split(), (1, _LARGEST)),
    (_NOT_NEGATIVE.split(), (0, _LARGEST)),
    (["steps", "warmup_steps"], (-1, _LARGEST)),
    (["warmup"], (0, 1)),
    (["tokenizer.decay", "tokenizer.dead_below"], (0, 1)),
    (["language.dropout", "summary.dropout"], (0, 0.99)),
    (["data.share"], (1e-6, 1)),
    (["data.workers"], (0, 1024)),
    (["mesh.data", "mesh.fsdp", "mesh.tensor", "mesh.sequence"], (-1, _LARGEST)),
]
_CHOICES = {
    "dtype": ("float32", "bfloat16"),
    "matmul_precision": ("default", "high", "highest"),
    "remat": REMAT,
    "patch_norm": PATCH_NORMS,
    "spectrum_target": SPECTRUM_TARGETS,
    "collapse": ("warn", "stop", "ignore"),
}


def check(c: ConfigDict) -> None:
    """Refuse values that no stage can run with.

    Raises:
      UserError: naming the field.
    """
    for name, value in flat(c):
        if isinstance(value, bool):
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config.{name}: must be a finite number, not {value}")
        least, most = next((bounds for names, bounds in _BOUNDS if name in names), (-_LARGEST, _LARGEST))
        if isinstance(value, (int, float)) and not least <= value <= most:
            raise UserError(f"config.{name}: must lie between {least:g} and {most:g}, not {value}")
        choices = _CHOICES.get(name.rpartition(".")[2])
        if choices and value not in choices:
            raise UserError(f"config.{name}: must be one of {', '.join(choices)}, not {value!r}")
    for name in ("learning_rate", "beta1", "beta2"):
        if not 0 < c[name] < 1:
            raise UserError(f"config.{name}: must lie between 0 and 1, not {c[name]}")
    check_length(c)
    _check_lengths(c)
    weights = c.data.get("weights", ())
    numbers = all(isinstance(weight, (int, float)) and math.isfinite(weight) for weight in weights)
    if weights and (not numbers or len(weights) != len(c.data.train) or min(weights) < 0 or sum(weights) == 0):
        raise UserError(f"config.data.weights: want a weight for each of {', '.join(c.data.train)}, not {weights}")
    for name, value in c.initial.items():
        if not value and name != "gpt2":
            raise UserError(f"config.initial.{name}: must name the workdir of the {name} stage")


def check_length(c: ConfigDict) -> None:
    """Refuse a run of no known length, or with a warm-up that is longer than it is.

    Raises:
      UserError: naming the field.
    """
    if c.steps < 0 and not c.get("epochs", 0):
        raise UserError("config.steps: -1 follows config.epochs, which is 0; give a number of steps or of epochs")
    if 0 < c.steps < c.warmup_steps:
        raise UserError(
            f"config.warmup_steps: {c.warmup_steps:,} steps of warm-up in a run of {c.steps:,} (config.steps); give"
            " fewer, or config.warmup, a fraction"
        )


# Of a run's length and of its warm-up, the field that decides and the one that is looked at where that is -1.
LENGTHS = {"steps": "epochs", "warmup_steps": "warmup"}


def follow(c: ConfigDict, given: Collection[str]) -> None:
    """Let the fields decide that a user gave, in a config whose file may say a length by the other field.

    Args:
      given: names of fields that were set beside the config's file.

    Raises:
      UserError: both a number of steps and what it would follow from were given.
    """
    for steps, other in LENGTHS.items():
        if {steps, other} <= set(given) and c[steps] >= 0:
            raise UserError(f"config.{other}: config.{steps} is given too; give one of them")
        if other in given:
            c[steps] = -1
        elif steps in given and c[steps] >= 0:
            c[other] = 0.0


def _check_lengths(c):
    """Positions are looked up in tables that must be long enough."""
    if "language" not in c:
        return
    read = {"text_length": c.text_length}
    if c.stage == "instruct":
        read["row_length"] = c.row_length
    if "tokenizer" in c:
        read["tokenizer.encoder.seconds"] = c.tokenizer.encoder.seconds
    for name, length in read.items():
        if length > c.language.positions:
            raise UserError(f"config.{name}: {length}, but config.language.positions has {c.language.positions}")


def flat(c: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of all fields, and their values."""
    for name, value in c.items():
        if isinstance(value, ConfigDict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
