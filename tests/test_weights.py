import numpy as np
import pytest
from safetensors.numpy import save_file
from small_data import config

from neurolm_jax import train
from neurolm_jax.errors import UserError
from neurolm_jax.training import checkpoint
from neurolm_jax.weights import gpt2


@pytest.fixture(scope="module")
def language(runs):
    return runs / "language"


def published(language) -> dict[str, np.ndarray]:
    """The tensors as Hugging Face publishes them: GPT-2's own rows of the embedding only."""
    params: dict = {}
    for name, array in checkpoint.read_arrays(language).items():
        *parents, last = name.removeprefix("params/").split("/")
        place = params
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = array
    tensors = gpt2.published(params)
    assert tensors["h.0.attn.c_attn.weight"].shape == (32, 96)  # [in, out]
    return tensors


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_a_language_stage_takes_gpt2_weights(language, small_data, tmp_path, prefix):
    file = tmp_path / "model.safetensors"
    save_file({prefix + name: tensor for name, tensor in published(language).items()}, file)
    c = config("language", small_data, tmp_path, steps=0)
    c.initial.gpt2 = str(tmp_path)
    train.train(c, tmp_path / "w")
    before, after = checkpoint.read_arrays(language), checkpoint.read_arrays(tmp_path / "w")
    assert before.keys() == after.keys()
    for name in before:
        rows = slice(gpt2.TOKENS) if "token_embedding" in name else slice(None)
        np.testing.assert_array_equal(after[name][rows], before[name][rows])


def test_faults_of_a_gpt2_file_are_all_named(language, small_data, tmp_path):
    tensors = published(language)
    del tensors["h.1.ln_2.bias"]
    tensors["h.0.mlp.c_fc.weight"] = tensors["h.0.mlp.c_fc.weight"].T.copy()
    tensors["wpe.weight"] = tensors["wpe.weight"][:, 0].copy()
    file = tmp_path / "model.safetensors"
    save_file(tensors, file)
    c = config("language", small_data, tmp_path)
    c.initial.gpt2 = str(file)
    with pytest.raises(UserError) as error:
        train.train(c, tmp_path / "w")
    for part in (str(file), "h.1.ln_2.bias is missing", "h.0.mlp.c_fc.weight has shape", "wpe.weight has shape"):
        assert part in str(error.value)
    file.write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="not a safetensors file"):
        train.train(c, tmp_path / "w")
    c.initial.gpt2 = str(tmp_path / "none")
    with pytest.raises(UserError, match="no such file of weights"):
        train.train(c, tmp_path / "w")
