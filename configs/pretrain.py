"""Stage 2, multi-channel autoregression beside text (paper, section 2.3 and table 7).

  python -m neurolm_jax.train --config configs/pretrain.py:b --workdir runs/b/pretrain \\
    --config.data.root=corpus --config.initial.language=runs/b/language --config.initial.tokenizer=runs/b/tokenizer
"""

from ml_collections import ConfigDict

from configs import sizes
from neurolm_jax.configuration import base


def get_config(size: str = "b") -> ConfigDict:
    c = base("pretrain")
    c.tokenizer = sizes.tokenizer(size)
    c.language = sizes.language(size)
    c.feature_norm = sizes.feature_norm(size)  # standardise the features that the language model reads
    c.row_length = 1024  # EEG tokens in a row
    c.data.train = ("eeg",)  # folders under data.root
    c.data.weights = ()  # their shares of the rows; () takes each as often as it has hours
    c.data.random_start = False  # windows start anywhere in a recording, instead of one after the other
    c.data.share = 1.0  # of the recordings to learn from, in each folder; a smaller share is part of a larger one
    c.data.validation = ("validation",)  # folders under data.root, of recordings that are not in data.train
    c.initial.language = f"runs/{size}/language"  # workdir of the language stage to go on from
    c.initial.tokenizer = f"runs/{size}/tokenizer"  # workdir of the tokenizer, which stays as it is

    c.steps, c.epochs = -1, 20.0
    c.batch_size = 480
    c.text_batch_size = 32
    c.learning_rate = 6e-4
    c.final_learning_rate = 6e-5
    return c
