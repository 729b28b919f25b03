"""GPT-2 weights as Hugging Face publishes them (``model.safetensors``)."""

import pathlib

import numpy as np

from neurolm_jax.errors import UserError
from neurolm_jax.models.config import LanguageModelConfig
from neurolm_jax.weights.mapping import SAME, Entry, Layout, read_tree

TOKENS = 50257  # before [SEP] and the padding of our vocabulary


def block_entries(prefix: str, path: str, kernel: Layout, use_bias: bool = True) -> list[Entry]:
    """The tensors of a GPT-2 block. ``kernel``: layout of the dense layers (Hugging Face keeps [in, out])."""
    parts = {
        "ln_1": ("attention_norm", "scale", SAME),
        "attn.c_attn": ("qkv", "kernel", kernel),
        "attn.c_proj": ("attention_output", "kernel", kernel),
        "ln_2": ("mlp_norm", "scale", SAME),
        "mlp.c_fc": ("mlp_input", "kernel", kernel),
        "mlp.c_proj": ("mlp_output", "kernel", kernel),
    }
    entries = [Entry(f"{prefix}{n}.weight", f"{path}{ours}/{leaf}", lay) for n, (ours, leaf, lay) in parts.items()]
    if use_bias:
        entries += [Entry(f"{prefix}{n}.bias", f"{path}{ours}/bias") for n, (ours, _, _) in parts.items()]
    return entries


ENTRIES = [
    Entry("wte.weight", "token_embedding/table"),
    Entry("wpe.weight", "position_embedding/table"),
    *block_entries("h.{}.", "stack/blocks/", SAME),
    Entry("ln_f.weight", "final_norm/scale"),
    Entry("ln_f.bias", "final_norm/bias"),
]


def load(path: str | pathlib.Path, config: LanguageModelConfig, like: dict) -> dict:
    """Parameters of ``LanguageModel`` (tied embeddings) from a GPT-2 ``.safetensors`` file or its folder.

    The embedding's rows past GPT-2's vocabulary, which published files lack, are set to the mean of the others.

    Args:
      like: tree of the wanted shapes.

    Raises:
      UserError: no such file, or tensors missing or of other shapes (all are named).
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = pathlib.Path(path)
    path = path / "model.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path}: no such GPT-2 file; give a .safetensors file or the folder of model.safetensors")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from error
    tensors = {name.removeprefix("transformer."): np.float32(tensor) for name, tensor in tensors.items()}
    table = tensors.get("wte.weight")
    if table is not None and len(table) == TOKENS:
        rows = np.broadcast_to(table.mean(0), (config.vocabulary - TOKENS, table.shape[1]))
        tensors["wte.weight"] = np.concatenate([table, rows])
    return read_tree(ENTRIES, tensors, like, str(path))
