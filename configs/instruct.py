"""Stage 3, multi-task instruction tuning (paper, section 2.4 and table 8).

  python -m neurolm_jax.train --config configs/instruct.py:b --workdir runs/b/instruct \\
    --config.data.root=tasks --config.initial.pretrain=runs/b/pretrain
"""

from ml_collections import ConfigDict

from configs import sizes
from neurolm_jax.configuration import base

_LEARNING_RATE = {"b": 5e-4, "l": 5e-5, "xl": 2e-5}


def get_config(size: str = "b") -> ConfigDict:
    c = base("instruct")
    c.tokenizer = sizes.tokenizer(size)
    c.language = sizes.language(size)
    c.language.lora_rank = 0
    c.language.lora_alpha = 16.0
    c.feature_norm = sizes.feature_norm(size)  # standardise the features that the language model reads
    c.eeg_length = 768  # EEG tokens in a row
    c.row_length = 1024  # all tokens in a row
    c.answer_length = 64  # answer tokens in a row
    c.shuffle_labels = False  # deal each task's training labels at random: a control
    c.text_loss_weight = 1.0  # of plain text beside the answers
    c.summary = sizes.summary()
    # Deviation of noise on the features, and on what a summary reads, in units of their own; that on features is the
    # same in all seconds of an electrode. It keeps the model from learning people by heart.
    c.feature_noise = 0.0
    c.augmentation = ConfigDict()
    c.augmentation.scale = 0.0  # deviation of the log of a gain common to all channels, drawn anew for every sample
    c.augmentation.offset = 0.0  # deviation of a constant added to each channel, microvolts
    c.data.splits = ("train",)  # parts to learn from; ("train", "validation") for a last fit, all settings chosen
    c.data.folds = 0  # into which each task's people are dealt anew, in place of the published parts; 0 keeps those
    c.data.fold = 0  # that is tested on, from 0; the next is its validation part, the others are learnt from
    c.data.share = 1.0  # of the recordings to learn from, in each folder; a smaller share is part of a larger one
    c.data.tasks = ("tuab", "tuev", "tusl", "seed", "seed_iv", "hmc", "workload")  # or FILE.py of your own
    # "shuffled" offers lettered options in any order, "varied" asks in other words too.
    c.data.prompts = "official"
    c.initial.pretrain = f"runs/{size}/pretrain"  # workdir of the pretrain stage to go on from

    c.steps, c.epochs = -1, 3.0 if size.endswith("xl") else 5.0
    c.batch_size = 128
    c.text_batch_size = 32
    c.learning_rate = _LEARNING_RATE.get(size.removeprefix("official_"), 5e-4)
    c.final_learning_rate = c.learning_rate / 10
    return c
