import json
import math
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from configs import instruct, sizes, tokenizer
from neurolm_jax import stages
from neurolm_jax.configuration import STAGES
from neurolm_jax.eeg.electrodes import VOCABULARY
from neurolm_jax.weights import official
from neurolm_jax.weights.mapping import get

RELEASED = json.loads((pathlib.Path(__file__).parent / "golden" / "official_checkpoints.json").read_text())
LEVEL = 2 * 768  # rows of the patch embedding that read a patch's level, which the released models lack


def weights(config):
    stage = stages.build(config)
    return nn.unbox(jax.eval_shape(lambda: stage.create(jax.random.key(0))))


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(("size", "millions"), [("b", 255.1), ("l", 501.3), ("xl", 1738.4)])
def test_parameters_of_neurolm(size, millions):
    ours = weights(instruct.get_config(size))
    total = count(ours.params) + count(ours.extra["tokenizer"]["encoder"])
    assert round(total / 1e6, 1) == millions
    released = weights(instruct.get_config(f"official_{size}"))
    assert count(released.params) + count(released.extra["tokenizer"]["encoder"]) == total - LEVEL


def test_official_b_has_the_released_tensors():
    ours = weights(instruct.get_config("official_b"))
    shapes = RELEASED["NeuroLM-B.pt"]
    total = count(ours.params) + count(ours.extra["tokenizer"]["encoder"])
    assert total == sum(math.prod(shape) for shape in shapes.values()) == 255_107_712
    entries = official.neurolm_entries(projected=False)
    assert names(entries, ours.params) | names(
        official.encoder_entries("tokenizer."), ours.extra["tokenizer"]["encoder"]
    ) == set(shapes)


def test_official_tokenizer_has_the_released_tensors():
    ours = weights(tokenizer.get_config("official_b"))
    shapes = RELEASED["VQ.pt"]
    kept = {name for name in shapes if not name.startswith(("VQ.quantize.", "wte."))}
    assert names(official.tokenizer_entries(), ours.params) == kept
    codebook = ours.extra["state"].codebook._asdict()
    tree = {"params": ours.params, "codebook": codebook, "kmeans": codebook, "text": ours.extra["text"]}
    assert names(official.vq_entries(), tree) == set(shapes)
    assert count(ours.params) == sum(math.prod(shapes[name]) for name in kept)
    assert ours.extra["state"].codebook.vectors.shape == tuple(shapes["VQ.quantize.embedding.weight"])


def names(entries, tree):
    found = set()
    for entry in entries:
        layers = get(tree, entry.path).shape[0] if "{}" in entry.name else 1
        found |= {entry.name.format(i) for i in range(layers)}
    return found


@pytest.mark.parametrize("size", sizes.NAMES)
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_every_size(stage, size):
    import importlib

    config = importlib.import_module(f"configs.{stage}").get_config(size)
    assert count(weights(config).params) > 0
    assert {"steps", "checkpoint_every", "batch_size", "seed", "learning_rate"} <= set(config)


def test_residual_outputs_start_smaller_with_depth():
    config = tokenizer.get_config("debug")
    params = nn.unbox(jax.jit(stages.build(config).create)(jax.random.key(0))).params
    blocks = params["encoder"]["stack"]["blocks"]
    deviation = blocks["mlp_output"]["kernel"].std(axis=(1, 2)) * jnp.sqrt(2 * jnp.arange(1, 3))
    assert jnp.allclose(deviation, 0.02, rtol=0.1)
    assert jnp.allclose(blocks["mlp_input"]["kernel"].std(axis=(1, 2)), 0.02, rtol=0.1)


def test_electrodes():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 139
