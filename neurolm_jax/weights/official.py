"""Tensor names of the released NeuroLM checkpoints (``VQ.pt``, ``NeuroLM-{B,L,XL}.pt``)."""

from neurolm_jax.weights.gpt2 import block_entries
from neurolm_jax.weights.mapping import FLAG, TRANSPOSED, Entry, convolution, under


def vq_entries() -> list[Entry]:
    """``VQ.pt`` as a tree: params, codebook, the text embedding it was aligned with, and what k-means left behind,
    which no computation reads."""
    return [
        *under("params", tokenizer_entries()),
        Entry("VQ.quantize.embedding.weight", "codebook/vectors"),
        Entry("VQ.quantize.cluster_size", "codebook/usage"),
        Entry("VQ.quantize.embedding.initted", "codebook/initialised", FLAG),
        Entry("wte.weight", "text"),
        Entry("VQ.quantize.embedding.cluster_size", "kmeans/usage"),
        Entry("VQ.quantize.embedding.embed_avg", "kmeans/vectors"),
    ]


def checkpoint_entries(projected: bool) -> list[Entry]:
    """``NeuroLM-{B,L,XL}.pt`` as a tree: params, and the frozen encoder."""
    return [*under("params", neurolm_entries(projected)), *under("encoder", encoder_entries("tokenizer."))]


def tokenizer_entries() -> list[Entry]:
    """Every trained tensor of ``VQ.pt``, the domain classifier's included; the codebook is none of them."""
    return [
        *encoder_entries("VQ.encoder.", "encoder/"),
        *_decoder_entries("VQ.decoder_freq.", "decoder_frequency/"),
        *_decoder_entries("VQ.decoder_raw.", "decoder_raw/"),
        *_head_entries("VQ.encode_task_layer.", "code_projection/"),
        *_head_entries("VQ.decode_task_layer_freq.", "head_frequency/"),
        *_head_entries("VQ.decode_task_layer_raw.", "head_raw/"),
        *_linear("domain_classifier.0", "domain_hidden"),
        *_linear("domain_classifier.2", "domain_output"),
    ]


def encoder_entries(prefix: str, path: str = "") -> list[Entry]:
    """The encoder; ``prefix`` is ``tokenizer.`` in the NeuroLM checkpoints."""
    patch, ours = f"{prefix}patch_embed.", f"{path}patch_embedding/"
    entries = []
    for i, inputs in enumerate((1, 16, 16), start=1):
        entries += [
            Entry(f"{patch}conv{i}.weight", f"{ours}conv{i}/kernel", convolution(inputs)),
            Entry(f"{patch}conv{i}.bias", f"{ours}conv{i}/bias"),
            Entry(f"{patch}norm{i}.weight", f"{ours}norm{i}/scale"),
            Entry(f"{patch}norm{i}.bias", f"{ours}norm{i}/bias"),
        ]
    return entries + _linear(f"{patch}l.0", f"{ours}project") + _body_entries(prefix, path)


def neurolm_entries(projected: bool) -> list[Entry]:
    """NeuroLM's own tensors, the encoder left out; ``projected`` where its width differs from the encoder's."""
    gpt = "GPT2.transformer."
    entries = [
        Entry(f"{gpt}wte.weight", "language/token_embedding/table"),
        Entry(f"{gpt}wpe.weight", "language/position_embedding/table"),
        *block_entries(f"{gpt}h.{{}}.", "language/stack/blocks/", TRANSPOSED),
        Entry(f"{gpt}ln_f.weight", "language/final_norm/scale"),
        Entry(f"{gpt}ln_f.bias", "language/final_norm/bias"),
        Entry("GPT2.lm_head.weight", "language/output"),
        Entry("pos_embed.weight", "channel_embedding/table"),
    ]
    return entries + (_linear("encode_transform_layer.0", "projection") if projected else [])


def _decoder_entries(prefix, path):
    return _linear(f"{prefix}patch_embed", f"{path}code_embedding") + _body_entries(prefix, path)


def _body_entries(prefix, path):
    return [
        Entry(f"{prefix}pos_embed.weight", f"{path}channel_embedding/table"),
        Entry(f"{prefix}time_embed.weight", f"{path}time_embedding/table"),
        *block_entries(f"{prefix}blocks.{{}}.", f"{path}stack/blocks/", TRANSPOSED, use_bias=False),
        Entry(f"{prefix}fc_norm.weight", f"{path}final_norm/scale"),
        Entry(f"{prefix}fc_norm.bias", f"{path}final_norm/bias"),
    ]


def _linear(name, path):
    return [Entry(f"{name}.weight", f"{path}/kernel", TRANSPOSED), Entry(f"{name}.bias", f"{path}/bias")]


def _head_entries(prefix, path):
    return _linear(f"{prefix}0", f"{path}hidden") + _linear(f"{prefix}2", f"{path}output")
