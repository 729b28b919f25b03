"""Stage 1, the text-aligned neural tokenizer (paper, section 2.2 and table 6).

  python -m neurolm_jax.train --config configs/tokenizer.py:b --workdir runs/b/tokenizer \\
    --config.data.root=corpus --config.initial.language=runs/b/language

The encoder's width is GPT-2 small's for every size, so the language stage whose embedding it is aligned with is size b.
"""

from ml_collections import ConfigDict

from configs import sizes
from neurolm_jax.configuration import base


def get_config(size: str = "b") -> ConfigDict:
    c = base("tokenizer")
    c.tokenizer = sizes.tokenizer(size)
    c.row_length = 1024  # EEG tokens in a row
    c.text_vocabulary = 50304  # tokens of the language model whose embedding EEG is aligned with
    c.frequency_loss_weight = 1.0  # of rebuilding the spectrum; 0 learns from the patches in time alone
    # Of reading the log power from the features by a linear layer, before the codes; used with tokenizer.spectrum_head.
    c.feature_spectrum_loss_weight = 1.0
    c.raw_loss_weight = 1.0  # of rebuilding the patches; 0 learns from their spectra alone
    c.domain_loss_weight = 1.0  # of telling EEG from text, against which the encoder learns; 0 aligns nothing
    c.data.train = ("eeg",)  # folders under data.root
    c.data.weights = ()  # their shares of the rows; () takes each as often as it has hours
    c.data.random_start = False  # windows start anywhere in a recording, instead of one after the other
    c.data.share = 1.0  # of the recordings to learn from, in each folder; a smaller share is part of a larger one
    c.data.validation = ("validation",)  # folders under data.root, of recordings that are not in data.train
    c.initial.language = "runs/b/language"  # workdir of the language stage whose token embedding it is

    c.steps, c.epochs = -1, 50.0
    c.batch_size = 512
    c.text_batch_size = 128
    c.learning_rate = 5e-5
    c.final_learning_rate = 1e-5
    c.weight_decay = 1e-4
    c.beta2 = 0.999
    c.clip_norm = 0.0
    return c
