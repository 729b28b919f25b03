"""Published files as the config and weights of a stage, and a stage's weights as such a file.

What a stage's weights look like is known above this folder: callers hand in ``zeros``, which makes weights of zeros (a
named tuple of params and extra) in the shapes that a config wants.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from neurolm_jax.configuration import base
from neurolm_jax.eeg.tasks import NAMES
from neurolm_jax.errors import UserError
from neurolm_jax.weights import files, gpt2, official, sections
from neurolm_jax.weights.mapping import read_tree, write_tensors

Zeros = Callable[[ConfigDict], Any]
ROWS = ("eeg_length", "row_length", "answer_length")  # of an instruct stage, whose questions must fit them


class Released(NamedTuple):
    """What a file holds. kmeans: what a tokenizer's file keeps of its first codebook, of no use but for export."""

    config: ConfigDict
    weights: Any
    kmeans: dict[str, np.ndarray] | None = None


def read_official(
    path: pathlib.Path, zeros: Zeros, tokenizer: pathlib.Path | None = None, stage: str = "pretrain"
) -> Released:
    """A released checkpoint, of either kind.

    Args:
      tokenizer: the ``VQ.pt`` that a NeuroLM checkpoint was trained with, which has the codebook.
      stage: that a NeuroLM checkpoint becomes, pretrain or instruct.

    Raises:
      UserError: a file of another kind, or one that does not belong to the other; tensors missing, surplus or of other
        shapes (all are named).
    """
    tensors, arguments = files.read(path)
    kinds = [any(name.startswith(prefix) for name in tensors) for prefix in ("VQ.", "GPT2.")]
    if kinds == [True, False]:
        if tokenizer:
            raise UserError(f"{path}: a tokenizer; --tokenizer goes with a NeuroLM checkpoint")
        return _read_tokenizer(path, tensors, arguments, zeros)
    if kinds == [False, True]:
        return _read_neurolm(path, tensors, arguments, zeros, tokenizer, stage)
    raise UserError(f"{path}: neither a VQ.pt (tensors VQ.*) nor a NeuroLM checkpoint (tensors GPT2.*)")


def read_gpt2(path: pathlib.Path, zeros: Zeros) -> Released:
    """GPT-2 of any size, a file or its folder, as a language stage.

    Raises:
      UserError: as ``gpt2.read`` and ``gpt2.place``; a width that is none of GPT-2's where nothing tells the heads.
    """
    from configs import sizes

    tensors, heads = gpt2.read(path)
    fields = gpt2.sizes(tensors) | sections.PRECISION
    fields |= {"vocabulary": sizes.language("official_b").vocabulary, "approximate_gelu": True, "dropout": 0.0}
    if heads is None and fields["width"] % gpt2.HEAD_WIDTH:
        raise UserError(f"{path}: width {fields['width']} is none of GPT-2's, and no config.json tells the heads")
    config = _config(path, "language", {"language": fields | ({"heads": heads} if heads else {})})
    weights = zeros(config)
    params = gpt2.place(tensors, weights.params, str(path))
    tensors.clear()  # a model's size of memory, which writing wants for itself
    return Released(config, weights._replace(params=params))


def write(path: pathlib.Path, released: Released) -> None:
    """The tensors under the names of VQ.pt, NeuroLM-*.pt or GPT-2, as the stage is.

    Raises:
      UserError: no format of weights by its suffix, or the official code has no model that computes the same.
    """
    config, weights, kmeans = released
    if config.stage == "language":
        # Beside PyTorch's tensors the number of heads has no place: a file of theirs holds bare tensors.
        heads = {"n_head": config.language.heads} if path.suffix in files.SAFETENSORS else {}
        files.write(path, gpt2.published(weights.params), heads)
        return
    arguments = sections.arguments(config)
    if config.stage == "tokenizer":
        codebook = weights.extra["state"].codebook._asdict()
        tree = {"params": weights.params, "codebook": codebook, "text": weights.extra["text"]}
        files.write(path, write_tensors(official.vq_entries(), tree | {"kmeans": kmeans or codebook}), arguments)
        return
    tree = {"params": weights.params, "encoder": weights.extra["tokenizer"]["encoder"]}
    files.write(path, write_tensors(official.checkpoint_entries("projection" in weights.params), tree), arguments)


def _read_tokenizer(path, tensors, arguments, zeros):
    config = _config(path, "tokenizer", sections.tokenizer_sections(tensors, arguments))
    weights = zeros(config)
    state = weights.extra["state"]
    codebook = state.codebook._asdict()
    like = {"params": weights.params, "codebook": codebook, "text": weights.extra["text"], "kmeans": codebook}
    found = read_tree(official.vq_entries(), tensors, like, str(path))
    # Without statistics of its own the features stay as they are where they are standardised.
    variance = np.ones_like(state.feature_variance)
    state = state._replace(codebook=state.codebook._replace(**found["codebook"]), feature_variance=variance)
    weights = weights._replace(params=found["params"], extra={"state": state, "text": found["text"]})
    return Released(config, weights, found["kmeans"])


def _read_neurolm(path, tensors, arguments, zeros, tokenizer, stage):
    fields = sections.neurolm_sections(tensors, arguments)
    vq = None
    if tokenizer:
        vq_config, vq, _ = _read_tokenizer(tokenizer, *files.read(tokenizer), zeros)
        fields["tokenizer"] = vq_config.tokenizer.to_dict()
    config = _config(path, stage, fields)
    weights = zeros(config)
    projected = config.language.width != config.tokenizer.encoder.width
    like = {"params": weights.params, "encoder": weights.extra["tokenizer"]["encoder"]}
    found = read_tree(official.checkpoint_entries(projected), tensors, like, str(path))
    tensors.clear()  # a model's size of memory, which writing wants for itself
    extra = {**weights.extra, "tokenizer": {**weights.extra["tokenizer"], "encoder": found["encoder"]}}
    if vq:
        if not all(jax.tree.leaves(jax.tree.map(np.array_equal, found["encoder"], vq.params["encoder"]))):
            raise UserError(f"{tokenizer}: its encoder is not the one in {path}")
        extra["tokenizer"]["code_projection"] = vq.params["code_projection"]
        extra["state"] = vq.extra["state"]
    return Released(config, weights._replace(params=found["params"], extra=extra))


def _config(path, stage, fields):
    """A stage's config with the given sections, and for an instruct stage what evaluation wants to know beside them."""
    for name, section in (
        ("language", fields.get("language")),
        ("tokenizer.encoder", fields.get("tokenizer", {}).get("encoder")),
    ):
        if section:
            gpt2.check_heads(f"{path}: {name}", section["heads"], section["width"])
    config = base(stage)
    config.update(fields)
    if stage == "instruct":
        from configs import instruct

        usual = instruct.get_config("official_b")
        config.update({name: usual[name] for name in ROWS})
        config.data.update({"tasks": NAMES, "splits": usual.data.splits, "prompts": usual.data.prompts})
    return config
