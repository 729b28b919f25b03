"""Stage 0, the language model: GPT-2's weights, or trained on text.

  python -m neurolm_jax.train --config configs/language.py:b --workdir runs/b/language \\
    --config.initial.gpt2=gpt2/model.safetensors --config.steps=0 --config.data.root=corpus

Text must have been prepared in corpus/text, also where only weights are taken over; without any,
``python -m neurolm_jax.convert gpt2 gpt2 --out runs/b/language`` takes them over too.
"""

from ml_collections import ConfigDict

from configs import sizes
from neurolm_jax.configuration import base


def get_config(size: str = "b") -> ConfigDict:
    c = base("language")
    c.language = sizes.language(size)
    c.initial.gpt2 = ""  # a .safetensors file or the folder of one; "" starts from random weights
    c.warmup = 0.01
    c.learning_rate = 6e-4
    c.final_learning_rate = 6e-5
    return c
