"""All stages on open sets of EEG, as ``launch/open_data.sh`` runs them one after the other.

  python -m neurolm_jax.train --config configs/open.py:tokenizer --workdir runs/open/tokenizer
  python -m neurolm_jax.train --config configs/open.py:tokenizer,b --workdir runs/open_b/tokenizer

The argument is the stage (language, tokenizer, pretrain or instruct), and the size: small for two cores, which is meant
where none is said, or b for one GPU. By default tokenizer and pretrain learn from the
training people of eegmmidb, mdd and guinea_bissau, so that nobody in workload (EEGMAT) was ever seen before instruct.
"""

from ml_collections import ConfigDict

from configs.quickstart import small
from neurolm_jax.errors import UserError

ROOT = "runs/open"
CORPUS = ("eegmmidb", "mdd", "guinea_bissau")
TASKS = ("workload", "eegmmidb", "mdd", "guinea_bissau")
SIZES = {"small": "quickstart", "b": "b"}


def get_config(argument: str) -> ConfigDict:
    stage, _, size = argument.partition(",")
    size = size or "small"
    if size not in SIZES:
        raise UserError(f"open.py:{argument}: the sizes are {', '.join(SIZES)}")
    c = small("open", stage, ROOT, CORPUS, SIZES[size])
    if stage in ("tokenizer", "pretrain"):
        c.data.weights = tuple(1.0 for _ in CORPUS)
        c.row_length = 512
    c.update(_STAGES[stage])
    if size == "b":
        c.update(_ON_A_GPU[stage])
    return c


_SPECTRUM = {"spectrum_target": "log_power", "spectrum_head": True}
_STAGES = {
    "language": {
        "steps": 200,
        "warmup_steps": 20,
        "text_batch_size": 4,
        "learning_rate": 3e-3,
        "final_learning_rate": 3e-4,
        "checkpoint_every": 100,
        "evaluate_every": 100,
    },
    "tokenizer": {
        "steps": 1000,
        "warmup_steps": 100,
        "batch_size": 4,
        "text_batch_size": 2,
        "learning_rate": 1e-3,
        "final_learning_rate": 1e-4,
        "domain_loss_weight": 0.1,
        "checkpoint_every": 250,
        "evaluate_every": 250,
        "tokenizer": {"decay": 0.95, **_SPECTRUM},
    },
    "pretrain": {
        "steps": 200,
        "warmup_steps": 20,
        "batch_size": 4,
        "text_batch_size": 1,
        "learning_rate": 1e-3,
        "final_learning_rate": 1e-4,
        "checkpoint_every": 100,
        "evaluate_every": 100,
        "tokenizer": _SPECTRUM,
    },
    "instruct": {
        "steps": 750,
        "warmup_steps": 100,
        "batch_size": 16,
        "text_batch_size": 1,
        "text_length": 64,
        "text_loss_weight": 0.1,
        "row_length": 384,
        "eeg_length": 256,
        "answer_length": 12,
        "learning_rate": 3e-3,
        "final_learning_rate": 1e-4,
        "beta2": 0.99,
        "checkpoint_every": 150,
        "evaluate_every": 150,
        "data": {"tasks": TASKS},
        "tokenizer": _SPECTRUM,
        "summary": {"reads": ("spectrum", "rhythms", "connectivity", "waveform")},
        "feature_noise": 1.0,
        "augmentation": {"scale": 0.1},
    },
}
# Not measured yet: rows as many as a GPU's memory holds with room to spare, rates lower as the model is wider.
_ON_A_GPU = {
    "language": {"text_batch_size": 16, "text_length": 512, "learning_rate": 6e-4, "final_learning_rate": 6e-5},
    "tokenizer": {"steps": 4000, "batch_size": 32, "text_batch_size": 8, "learning_rate": 3e-4},
    "pretrain": {"steps": 2000, "batch_size": 32, "text_batch_size": 4, "learning_rate": 3e-4},
    "instruct": {"steps": 1500, "batch_size": 16, "learning_rate": 3e-4, "final_learning_rate": 1e-5},
}
