"""All stages on real EEG, on a laptop's CPU; ``launch/quickstart.sh`` runs them one after the other.

  python -m neurolm_jax.train --config configs/quickstart.py:tokenizer --workdir runs/mine/tokenizer

The argument is the stage: language, tokenizer, pretrain or instruct. By default each reads the data and the earlier
stages that the quickstart left under runs/quickstart.
"""

import importlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from neurolm_jax.configuration import STAGES
from neurolm_jax.errors import UserError

ROOT = "runs/quickstart"


def get_config(stage: str) -> ConfigDict:
    c = small("quickstart", stage, ROOT, ("blink", "scp1", "eyes"))
    if stage in ("tokenizer", "pretrain"):
        c.row_length = 256
    c.update(_STAGES[stage])
    return c


def small(name: str, stage: str, root: str, corpus: Sequence[str], size: str = "quickstart") -> ConfigDict:
    """A stage whose data and earlier stages lie under one folder.

    Args:
      name: of the config file, for errors.
      corpus: tasks whose recordings tokenizer and pretrain learn from.
      size: of the model, see ``configs/sizes.py``.

    Raises:
      UserError: no such stage.
    """
    if stage not in STAGES:
        raise UserError(f"{name}.py:{stage}: the stages are {', '.join(STAGES)}")
    c = importlib.import_module(f"configs.{stage}").get_config(size)
    c.data.root = f"{root}/data"
    c.compilation_cache = f"{root}/compilation_cache"
    c.text_length = 128
    c.update(validation_rows=40, validation_text_rows=20)
    c.epochs = 0.0
    for earlier in c.initial:
        if earlier in STAGES:
            c.initial[earlier] = f"{root}/{earlier}"
    if stage in ("tokenizer", "pretrain"):
        c.data.train = tuple(f"{task}/recordings/train" for task in corpus)
        c.data.validation = tuple(f"{task}/recordings/validation" for task in corpus)
    return c


_STAGES = {
    "language": {
        "steps": 200,
        "warmup": 0.1,
        "text_batch_size": 4,
        "learning_rate": 3e-3,
        "final_learning_rate": 3e-4,
        "checkpoint_every": 100,
        "evaluate_every": 100,
    },
    "tokenizer": {
        "steps": 500,
        "warmup": 0.1,
        "batch_size": 4,
        "text_batch_size": 2,
        "learning_rate": 1e-3,
        "final_learning_rate": 1e-4,
        # With a weight of 1 the alignment takes the codes: 40% of them occur in validation instead of 85%.
        "domain_loss_weight": 0.1,
        "checkpoint_every": 100,
        "evaluate_every": 100,
        "tokenizer": {"decay": 0.95},
    },
    "pretrain": {
        "steps": 150,
        "warmup": 0.1,
        "batch_size": 4,
        "text_batch_size": 1,
        "learning_rate": 1e-3,
        "final_learning_rate": 1e-4,
        "checkpoint_every": 50,
        "evaluate_every": 50,
    },
    "instruct": {
        "steps": 600,
        "warmup": 0.05,
        "batch_size": 16,
        "text_batch_size": 1,
        "text_length": 64,
        "text_loss_weight": 0.1,
        "row_length": 128,
        "eeg_length": 48,
        "answer_length": 12,
        "learning_rate": 4e-3,
        "final_learning_rate": 1e-4,
        "beta2": 0.99,
        "checkpoint_every": 100,
        # The settings were chosen on the validation parts; the last fit takes them in, so nothing is left to validate.
        "data": {"tasks": ("blink", "scp1", "eyes"), "splits": ("train", "validation")},
        "evaluate_every": 0,
        "augmentation": {"scale": 0.1, "offset": 5.0},
        "summary": {"reads": ("spectrum", "rhythms", "waveform"), "dropout": 0.5},
        "feature_noise": 1.0,
    },
}
