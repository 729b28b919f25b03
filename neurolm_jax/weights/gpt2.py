"""GPT-2 weights as Hugging Face publishes them."""

import json
import pathlib
from collections.abc import Mapping

import numpy as np

from neurolm_jax.errors import UserError
from neurolm_jax.weights import files
from neurolm_jax.weights.mapping import SAME, Entry, Layout, count_layers, dimension, read_tree, write_tensors

TOKENS = 50257  # before [SEP] and the padding of our vocabulary
HEAD_WIDTH = 64


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


# Hugging Face's files may hold the causal mask, and the embedding a second time as the output layer.
UNREAD = (r"h\.\d+\.attn\.(masked_)?bias", r"lm_head\.weight")


def load(path: str | pathlib.Path, like: dict) -> dict:
    """Parameters of ``LanguageModel`` (tied embeddings) from a GPT-2 file or its folder.

    Args:
      like: tree of the wanted shapes.

    Raises:
      UserError: no such file, or tensors missing, surplus or of other shapes (all are named).
    """
    return place(read(path)[0], like, str(path))


def place(tensors: Mapping[str, np.ndarray], like: dict, source: str) -> dict:
    """The same from the tensors that ``read`` gave."""
    wide = widened(tensors, like["token_embedding"]["table"].shape[0])
    return read_tree(ENTRIES, wide, like, source, UNREAD)


def read(path: str | pathlib.Path) -> tuple[dict[str, np.ndarray], int | None]:
    """The tensors of a GPT-2 file or folder, without the prefix that some files have, and the number of heads if the
    file or a ``config.json`` in the folder tells it.

    Raises:
      UserError: no such file; an output layer of its own; a config.json that is none, or heads that do not divide the
        width.
    """
    tensors, arguments = files.read(path)
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    output, table = tensors.get("lm_head.weight"), tensors.get("wte.weight")
    if output is not None and table is not None and not np.array_equal(output, table):
        raise UserError(f"{path}: lm_head.weight is not wte.weight; GPT-2's output layer is its token embedding")
    beside, source = pathlib.Path(path) / "config.json", str(path)
    if beside.is_file():
        arguments, source = arguments | _read_config(beside), str(beside)
    heads = arguments.get("n_head")
    if heads is not None:
        check_heads(source, heads, sizes(tensors)["width"])
    return tensors, heads


def check_heads(source: str, heads: object, width: int) -> None:
    """Refuse a number of heads, as ``source`` tells it, that a width cannot be parted into.

    Raises:
      UserError: it is no whole number above 0, or does not divide the width.
    """
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1 or width % heads:
        raise UserError(
            f"{source}: {heads!r} heads (n_head) do not divide the width {width}; the file and what is told beside it"
            " must be of one model"
        )


def _read_config(file):
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON ({error}); take the one published with the weights") from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: want an object with n_head; take the one published with the weights")
    return found


def sizes(tensors: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Fields of ``LanguageModelConfig`` that the shapes tell; a head of GPT-2 is 64 wide in every published size."""
    width = dimension(tensors, ("wpe.weight", 1), ("ln_f.weight", 0), ("h.0.ln_1.weight", 0), default=768)
    return {
        "layers": count_layers(tensors, "h."),
        "heads": max(1, width // HEAD_WIDTH),
        "width": width,
        "positions": dimension(tensors, ("wpe.weight", 0), default=1024),
    }


def widened(tensors: Mapping[str, np.ndarray], vocabulary: int) -> dict[str, np.ndarray]:
    """GPT-2's embedding with rows for [SEP] and the padding of our vocabulary, each the mean of the others."""
    table = tensors.get("wte.weight")
    if table is None or len(table) != TOKENS:
        return dict(tensors)
    rows = np.broadcast_to(table.mean(0), (vocabulary - TOKENS, *table.shape[1:]))
    return {**tensors, "wte.weight": np.concatenate([table, rows])}


def published(params: dict) -> dict[str, np.ndarray]:
    """The tensors as Hugging Face publishes them: GPT-2's own rows of the embedding only."""
    tensors = write_tensors(ENTRIES, params)
    return {**tensors, "wte.weight": np.ascontiguousarray(tensors["wte.weight"][:TOKENS])}
