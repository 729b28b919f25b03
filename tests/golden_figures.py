"""Golden figures of the official code: weights made from tensor names, configs, arrays."""

import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from named_tensors import tensor

from neurolm_jax.eeg.electrodes import VOCABULARY
from neurolm_jax.models.attention import staircase
from neurolm_jax.models.config import EncoderConfig, LanguageModelConfig, NeuroLMConfig, TokenizerConfig
from neurolm_jax.models.neurolm import NeuroLM
from neurolm_jax.models.quantizer import Codebook
from neurolm_jax.models.tokenizer import Tokenizer, create_tokenizer_state
from neurolm_jax.weights import official
from neurolm_jax.weights.mapping import Entry, read_tree

FOLDER = pathlib.Path(os.environ.get("NEUROLM_GOLDEN", pathlib.Path(__file__).parent / "golden"))


def names(kind: str) -> list[str]:
    return sorted(path.stem for path in FOLDER.glob(f"{kind}_*.json"))


class Golden:
    """One pair of files, with the model it describes."""

    def __init__(self, name: str):
        description = json.loads((FOLDER / f"{name}.json").read_text())
        self.config = c = description["config"]
        with np.load(FOLDER / f"{name}.npz") as arrays:
            self.arrays = dict(arrays)
        self.padded = not self["valid"].all()
        manifest = description.get("manifest") or description["manifest_vq"]
        self.tensors = {key: tensor(key, shape, c["seed"]) for key, shape in manifest.items()}
        encoder = EncoderConfig(
            layers=c["enc_layers"],
            heads=c["heads"],
            width=c["width"],
            channels=self.tensors["VQ.encoder.pos_embed.weight"].shape[0],
            seconds=self.tensors["VQ.encoder.time_embed.weight"].shape[0],
            patch_norm="row",
            causal=False,
        )
        self.tokenizer = TokenizerConfig(
            encoder=encoder,
            decoder_layers=c["dec_layers"],
            codes=c["codes"],
            code_width=c["code_dim"],
            domain_width=self.tensors["domain_classifier.0.weight"].shape[0],
            dead_below=0.0,
        )
        rows = jnp.zeros((1, 1), jnp.int32)
        like = shapes(Tokenizer(self.tokenizer), jnp.zeros((1, 1, 200)), rows, rows, rows)
        self.tokenizer_entries = official.tokenizer_entries()
        self.tokenizer_params = jnp_tree(read_tree(self.tokenizer_entries, self.tensors, like, name, (".*",)))
        codebook = Codebook(
            jnp.array(self.tensors["VQ.quantize.embedding.weight"]),
            jnp.array(self.tensors["VQ.quantize.cluster_size"]),
            jnp.ones((), bool),
        )
        self.state = create_tokenizer_state(self.tokenizer, jax.random.key(0))._replace(codebook=codebook)
        if "manifest_neurolm" in description:
            self._language(description["manifest_neurolm"], name)

    def _language(self, manifest, name):
        c = self.config
        tensors = {key: tensor(key, shape, c["seed"]) for key, shape in manifest.items() if "tokenizer." not in key}
        language = LanguageModelConfig(
            layers=c["layers"],
            heads=c["heads_lm"],
            width=c["width_lm"],
            vocabulary=tensors["GPT2.transformer.wte.weight"].shape[0],
            codes=c["codes"],
            positions=c["block_size"],
        )
        channels = tensors["pos_embed.weight"].shape[0]
        self.neurolm = NeuroLMConfig(language, c["width"], channels=channels, feature_norm=False)
        rows = jnp.zeros((1, 1), jnp.int32)
        like = shapes(NeuroLM(self.neurolm), jnp.zeros((1, 1, c["width"])), rows, rows, rows)
        self.neurolm_entries = official.neurolm_entries(projected=c["width"] != c["width_lm"])
        self.neurolm_params = jnp_tree(read_tree(self.neurolm_entries, tensors, like, name))

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def eeg(self) -> dict[str, np.ndarray]:
        """The rows that our models read, made from the raw samples."""
        c = self.config
        shape = len(c["seconds"]), c["rows"]
        patches = np.zeros((*shape, 200), np.float32)
        ids = {key: np.zeros(shape, np.int32) for key in ("channel", "second", "segment")}
        ids["channel"][:] = VOCABULARY.index("pad")
        for i, (channels, seconds) in enumerate(zip(c["chan_lists"], c["seconds"])):
            count = len(channels) * seconds
            samples = self[f"raw_uv_{i}"].reshape(len(channels), seconds, 200)
            patches[i, :count] = samples.swapaxes(0, 1).reshape(count, 200) / 100
            ids["channel"][i, :count] = [VOCABULARY.index(channel) for channel in channels] * seconds
            ids["second"][i, :count] = np.repeat(np.arange(seconds), len(channels))
            ids["segment"][i, :count] = 1
        return {"patches": patches} | ids


def close(got, want, tolerance=1e-4):
    np.testing.assert_allclose(np.asarray(got), want, rtol=tolerance, atol=tolerance)


def mixed_row(eeg: dict, sample: int, count: int, seconds: int, text) -> dict[str, jax.Array]:
    """One row [1, count + len(text)]: a sample's valid EEG and its text, as ``mixed_hidden`` takes them."""
    text = np.asarray(text, np.int32)
    place = np.arange(count + len(text))
    row = {
        "eeg_index": np.where(place < count, place, -1),
        "tokens": np.concatenate([np.zeros(count, np.int32), text]),
        "position": np.concatenate([np.asarray(eeg["second"])[sample, :count], seconds + np.arange(len(text))]),
    }
    row = {key: jnp.array(value, jnp.int32)[None] for key, value in row.items()}
    seen = staircase(jnp.ones_like(row["position"]), row["position"], row["eeg_index"] < 0)
    ids = {key: eeg[key][sample : sample + 1] for key in ("channel", "second")}
    return {"eeg": ids, "mixed": row, "intervals": seen}


def gradient_of(tree: dict, entries: list[Entry]) -> dict[str, np.ndarray]:
    """Gradients under the official names."""
    from neurolm_jax.weights.mapping import write_tensors

    return write_tensors(entries, tree)


def shapes(module, *inputs) -> dict:
    import flax.linen as nn

    return nn.unbox(jax.eval_shape(module.init, jax.random.key(0), *inputs))["params"]


def jnp_tree(tree):
    return jax.tree.map(jnp.array, tree)


def released_files(golden: Golden) -> dict[str, tuple[dict, dict]]:
    """A tokenizer and a NeuroLM checkpoint as the official code saves them, small: {"VQ": (tensors, arguments) ...}."""
    c = golden.config
    encoder = {"n_layer": c["enc_layers"], "n_head": c["heads"], "n_embd": c["width"], "bias": False}
    vq = {"encoder_args": encoder, "decoder_args": encoder | {"n_layer": c["dec_layers"]}}
    gpt = {"n_layer": c["layers"], "n_head": c["heads_lm"], "n_embd": c["width_lm"], "block_size": c["block_size"]}
    description = json.loads((pathlib.Path(__file__).parent / "golden" / f"{names('lm')[0]}.json").read_text())
    manifest = description["manifest_neurolm"]
    # The official code's encoder is one and the same in both files.
    neurolm = {
        key: golden.tensors[key.replace("tokenizer.", "VQ.encoder.")]
        if key.startswith("tokenizer.")
        else tensor(key, shape, c["seed"])
        for key, shape in manifest.items()
    }
    return {"VQ": (golden.tensors, vq), "NeuroLM": (neurolm, {"model_args": gpt, "encoder_args": encoder})}
