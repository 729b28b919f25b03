"""All stages on open sets of EEG, as ``launch/open_data.sh`` runs them one after the other.

  python -m neurolm_jax.train --config configs/open.py:tokenizer --workdir runs/open/tokenizer

The argument is the stage: language, tokenizer, pretrain or instruct. By default tokenizer and pretrain learn from the
training people of eegmmidb, mdd and guinea_bissau, so that nobody in workload (EEGMAT) was ever seen before instruct.
"""

from ml_collections import ConfigDict

from configs.quickstart import small

ROOT = "runs/open"
CORPUS = ("eegmmidb", "mdd", "guinea_bissau")
TASKS = ("workload", "eegmmidb", "mdd", "guinea_bissau")


def get_config(stage: str) -> ConfigDict:
    c = small("open", stage, ROOT, CORPUS)
    if stage in ("tokenizer", "pretrain"):
        c.data.weights = tuple(1.0 for _ in CORPUS)
        c.row_length = 512
    c.update(_STAGES[stage])
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
        "steps": 600,
        "warmup_steps": 60,
        "batch_size": 8,
        "text_batch_size": 1,
        "text_length": 64,
        "text_loss_weight": 0.1,
        "row_length": 384,
        "eeg_length": 256,
        "answer_length": 24,
        "learning_rate": 1e-3,
        "final_learning_rate": 5e-5,
        "beta2": 0.99,
        "checkpoint_every": 100,
        "evaluate_every": 100,
        "data": {"tasks": TASKS},
        "tokenizer": _SPECTRUM,
        "summary": {"reads": ("spectrum", "rhythms", "waveform"), "dropout": 0.5},
        "feature_noise": 1.0,
        "augmentation": {"scale": 0.1},
    },
}
