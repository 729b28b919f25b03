"""Figures of the official code at its full size B, for tests/test_full_size.py.

  python tests/golden/make_full_size.py CHECKOUT    (of github.com/935963004/NeuroLM at a9e8afe; PyTorch, transformers)

Weights are made from the tensors' names, as for the small pairs beside; the arrays are thinned out to stay small.
"""

import json
import pathlib
import sys
import types

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [sys.argv[1], str(HERE.parent), str(HERE.parents[1])]
from model import model_vq  # noqa: E402
from model.model import GPTConfig  # noqa: E402
from model.model_neural_transformer import NTConfig  # noqa: E402
from model.model_neurolm import NeuroLM  # noqa: E402
from named_tensors import tensor  # noqa: E402

from neurolm_jax.eeg.electrodes import VOCABULARY  # noqa: E402

SEED, ALPHA = 3, 0.5
CHANNELS, SECONDS = [["FP1", "C3", "O2", "M1"], ["FZ", "CZ", "PZ", "T3", "T6"]], [5, 4]
TEXT, PROMPT, NEW = 24, 9, 4
PLAIN = {"block_size": 1024, "bias": False, "dropout": 0.0, "num_classes": 0}
ENCODER = {"n_layer": 12, "n_head": 12, "n_embd": 768, **PLAIN, "in_chans": 1, "out_chans": 16}
DECODER = {"n_layer": 4, "n_head": 12, "n_embd": 768, **PLAIN, "in_chans": 128}
MODEL = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "bias": True, "vocab_size": 50257}


def fill(model, rename=lambda name: name):
    state = model.state_dict()
    made = {name: torch.from_numpy(tensor(rename(name), list(value.shape), SEED)) for name, value in state.items()}
    model.load_state_dict(made)
    return {name: list(value.shape) for name, value in state.items()}


def gradient_norms(model):
    return {f"gradnorm/{name}": p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}


rng = np.random.default_rng(SEED)
raw = [np.float32(np.round(30 * rng.standard_normal((len(c), s * 200)), 1)) for c, s in zip(CHANNELS, SECONDS)]
rows = [x.reshape(len(x), -1, 200).swapaxes(0, 1).reshape(-1, 200) / 100 for x in raw]
x = torch.from_numpy(np.stack(rows))  # [2, 20, 200]
channel = torch.tensor([[VOCABULARY.index(name) for name in c] * s for c, s in zip(CHANNELS, SECONDS)])
second = torch.tensor([np.repeat(np.arange(s), len(c)).tolist() for c, s in zip(CHANNELS, SECONDS)])
valid = torch.ones(channel.shape, dtype=bool)
text = torch.from_numpy(rng.integers(0, 50257, (2, TEXT + 1)))


def standardised(value):
    flat = value.flatten(1)
    return (value - flat.mean(1)[:, None, None]) / flat.std(1)[:, None, None]


figures = {f"raw_uv_{i}": value for i, value in enumerate(raw)} | {"text_ids": text.numpy()}

model_vq.GPT2LMHeadModel = types.SimpleNamespace(
    from_pretrained=lambda name: types.SimpleNamespace(
        state_dict=lambda: {"transformer.wte.weight": torch.zeros(50257, 768)}
    )
)
vq = model_vq.VQ_Align(NTConfig(**ENCODER), NTConfig(**DECODER))
manifest = {"VQ": fill(vq)}
y_freq, y_raw = standardised(torch.fft.fft(x, dim=-1).abs())[..., :100], standardised(x)
vq.train()
before = vq.VQ.quantize.embedding.weight.clone()
mask = valid.unsqueeze(1).repeat(1, x.size(1), 1).unsqueeze(1)
with torch.no_grad():
    vq.eval()
    usage = vq.VQ.quantize.cluster_size.clone()
    quantized, codes, _, features = vq.VQ.encode(x, channel, second, mask)
    pre_quant = vq.VQ.encode_task_layer(features)
    rec_freq, rec_raw = vq.VQ.decode(quantized, channel, second, mask)
    vq.VQ.quantize.cluster_size.copy_(usage)
    vq.train()
loss, domain_eeg, log = vq(x, y_freq, y_raw, channel, second, valid, ALPHA)
domain_text = vq(text[:, :-1])
(loss + domain_eeg + domain_text).backward()
used = codes.unique()
figures |= {
    "features": features[..., ::8].numpy(),
    "pre_quant": pre_quant.numpy(),
    "codes": codes.view(2, -1).numpy(),
    "rec_freq": rec_freq[..., ::4].numpy(),
    "rec_raw": rec_raw[..., ::4].numpy(),
    "quantizer_loss": log["train/quant_loss"].item(),
    "frequency_loss": log["train/rec_freq_loss"].item(),
    "raw_loss": log["train/rec_raw_loss"].item(),
    "domain_eeg_loss": domain_eeg.item(),
    "domain_text_loss": domain_text.item(),
    "used": used.numpy(),
    "codebook_after": vq.VQ.quantize.embedding.weight[used].detach().numpy(),
    "usage_after": vq.VQ.quantize.cluster_size[used].numpy(),
    **gradient_norms(vq),
}
assert not torch.equal(before, vq.VQ.quantize.embedding.weight)
del vq

lm = NeuroLM(GPTConfig(**MODEL, dropout=0.0), init_from="scratch")
manifest["NeuroLM-B"] = fill(lm, lambda name: name.replace("tokenizer.", "VQ.encoder.", 1))
targets = torch.full(codes.view(2, -1).shape, -1)
for i, c in enumerate(CHANNELS):
    targets[i, : -len(c)] = codes.view(2, -1)[i, len(c) :]
# y_eeg is moved by the vocabulary inside; what has no target must stay -1 after that.
shifted = torch.where(targets >= 0, targets, -1 - lm.GPT2.config.vocab_size)
staircase = torch.stack([(s[None, :] <= s[:, None]) for s in second]).unsqueeze(1)
lm.train()
eeg_loss, log, logits = lm(x, shifted, None, None, channel, second, valid, staircase)
figures |= {
    "eeg_loss": eeg_loss.item(),
    "eeg_accuracy": log["train/accuracy"],
    "eeg_logits": logits[:, ::7, ::97].detach().numpy(),
}
text_loss, log, logits = lm(None, None, text[:, :-1], text[:, 1:].contiguous())
figures |= {"text_loss": text_loss.item(), "text_logits": logits[:, -1, ::97].detach().numpy()}

# One sample at a time: the official text positions depend on the longest sample of a batch.
total, generated = 0, []
for i in range(2):
    words = text[i : i + 1, :TEXT]
    answers = torch.where(torch.arange(TEXT) >= PROMPT, text[i, 1 : TEXT + 1], -1)[None]
    e = x.shape[1]
    whole = torch.ones(e + TEXT, e + TEXT).tril().bool()
    whole[:e, :e] = staircase[i, 0]
    one = [value[i : i + 1] for value in (channel, second, valid)]
    nothing = torch.full((1, e), -1 - lm.GPT2.config.vocab_size)
    loss, _, _ = lm(x[i : i + 1], nothing, words, answers, *one, staircase[i : i + 1], whole[None, None])
    total = total + loss / 2
    with torch.no_grad():
        ids = words[:, :PROMPT]
        for _ in range(NEW):
            n = e + ids.shape[1]
            _, _, logits = lm(x[i : i + 1], None, ids, None, *one, staircase[i : i + 1], whole[None, None, :n, :n])
            ids = torch.cat([ids, logits[:, -1, :50257].argmax(-1, keepdim=True)], 1)
    generated.append(ids[0].numpy())
total.backward()
figures |= {"instruct_loss": total.item(), "generated": np.stack(generated)}
figures |= {f"lm/{name}": norm for name, norm in gradient_norms(lm).items()}

config = {"seed": SEED, "alpha": ALPHA, "chan_lists": CHANNELS, "seconds": SECONDS, "prompt_len": PROMPT}
arguments = {"encoder_args": ENCODER, "decoder_args": DECODER, "model_args": MODEL}
description = {"config": config, "arguments": arguments, "manifest": manifest}
(HERE / "full_b.json").write_text(json.dumps(description))
np.savez_compressed(HERE / "full_b.npz", **{key: np.asarray(value) for key, value in figures.items()})
