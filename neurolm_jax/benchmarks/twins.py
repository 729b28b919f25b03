"""Plain PyTorch models of the same widths and shapes, trained in the way of the released code: rows padded to a fixed
length, a dense mask for each, logits of every place over every class, the tokenizer's encoder run once for codes and
once for features. A yardstick for speed; they learn nothing useful.
"""

import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

from neurolm_jax.benchmarks import peak_memory, steps

PADDED_ROW, PADDED_EEG, PADDED_TEXT = 1024, 276, 80  # tokens
TOKENS, CHANNEL_TABLE, SECOND_TABLE, POSITIONS = 50304, 256, 64, 1024


class Block(nn.Module):
    def __init__(self, width, heads, bias):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)
        self.up, self.down = nn.Linear(width, 4 * width, bias=bias), nn.Linear(4 * width, width, bias=bias)

    def forward(self, x, mask):  # [B, T, W], bool [B, 1, T, T]
        b, t, w = x.shape
        q, k, v = self.qkv(self.norms[0](x)).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(seen.transpose(1, 2).reshape(b, t, w))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class Neural(nn.Module):
    """The encoder, or a decoder, over [B, T, inputs]."""

    def __init__(self, inputs, layers, width, heads):
        super().__init__()
        if inputs == 200:
            self.convs = nn.ModuleList(
                [nn.Conv2d(1, 16, (1, 15), (1, 8), (0, 7)), *(nn.Conv2d(16, 16, (1, 3), 1, (0, 1)) for _ in range(2))]
            )
            self.groups = nn.ModuleList(nn.GroupNorm(4, 16) for _ in range(3))
            self.embed = nn.Linear(400, width)
        else:
            self.convs, self.embed = None, nn.Linear(inputs, width)
        self.channel, self.second = nn.Embedding(CHANNEL_TABLE, width), nn.Embedding(SECOND_TABLE, width)
        self.blocks = nn.ModuleList(Block(width, heads, False) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x, channel, second, mask):
        if self.convs is not None:
            x = x.unsqueeze(1)
            for conv, group in zip(self.convs, self.groups):
                x = F.gelu(group(conv(x)))
            x = x.permute(0, 2, 3, 1).flatten(2)
        x = self.embed(x) + self.channel(channel) + self.second(second)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


class Tokenizer(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, heads = c.encoder.width, c.encoder.heads
        self.encoder = Neural(200, c.encoder.layers, width, heads)
        self.to_code = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, c.code_width))
        self.register_buffer("codebook", F.normalize(torch.randn(c.codes, c.code_width), dim=-1))
        self.decoders = nn.ModuleList(Neural(c.code_width, c.decoder_layers, width, heads) for _ in range(2))
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, outputs)) for outputs in (100, 200)
        )
        self.domain = nn.Sequential(nn.Linear(width, c.domain_width), nn.GELU(), nn.Linear(c.domain_width, 2))

    def codes(self, features):
        z = F.normalize(self.to_code(features), dim=-1)
        flat = z.reshape(-1, z.shape[-1])
        distance = flat.square().sum(1, keepdim=True) + self.codebook.square().sum(1) - 2 * flat @ self.codebook.T
        return z, distance.argmin(1)

    def loss(self, eeg, text):
        places = eeg["channel"], eeg["second"], eeg["mask"]
        features = self.encoder(eeg["patches"], *places)
        z, codes = self.codes(features)
        code = self.codebook[codes].view_as(z)
        targets = torch.fft.fft(eeg["patches"], dim=-1).abs()[..., :100], eeg["patches"]
        loss = (z - code).square().mean()
        for decoder, head, target in zip(self.decoders, self.heads, targets):
            out = head(decoder(z + (code - z).detach(), *places))
            loss = loss + (out - (target - target.mean()) / target.std()).square().mean()
        for x, kind in ((features, 0), (text, 1)):
            logits = self.domain(x).flatten(0, 1)
            loss = loss + F.cross_entropy(logits, torch.full((len(logits),), kind))
        with torch.no_grad():
            chosen = F.one_hot(codes, len(self.codebook)).to(z.dtype)
            mean = F.normalize(chosen.T @ z.reshape(-1, z.shape[-1]), dim=-1)
            used = chosen.sum(0, keepdim=True).T > 0
            moved = F.normalize(0.99 * self.codebook + 0.01 * mean, dim=-1)
            self.codebook.copy_(torch.where(used, moved, self.codebook))
        return loss


class NeuroLM(nn.Module):
    def __init__(self, tokenizer, language):
        super().__init__()
        width = language.width
        self.tokenizer = Tokenizer(tokenizer).requires_grad_(False)
        self.codes = tokenizer.codes
        self.token, self.position = nn.Embedding(TOKENS, width), nn.Embedding(POSITIONS, width)
        self.channel = nn.Embedding(CHANNEL_TABLE, width)
        self.enter = nn.Linear(tokenizer.encoder.width, width) if tokenizer.encoder.width != width else None
        self.blocks = nn.ModuleList(Block(width, language.heads, True) for _ in range(language.layers))
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, TOKENS + tokenizer.codes, bias=False)

    def hidden(self, x, mask):
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def eeg(self, eeg):
        with torch.no_grad():
            x = self.tokenizer.encoder(eeg["patches"], eeg["channel"], eeg["second"], eeg["mask"])
        x = F.gelu(self.enter(x)) if self.enter is not None else x
        return x + self.channel(eeg["channel"]) + self.position(eeg["second"])

    def words(self, tokens, first=0):
        return self.token(tokens) + self.position(torch.arange(tokens.shape[1]) + first)

    def read(self, x, mask, targets):
        logits = self.output(self.hidden(x, mask))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)

    def text_loss(self, text):
        inputs, targets = text[:, :-1], text[:, 1:]
        causal = torch.ones(inputs.shape[1], inputs.shape[1], dtype=torch.bool).tril()
        return self.read(self.words(inputs), causal, targets)

    def pretrain_loss(self, eeg, text):
        with torch.no_grad():
            x = self.tokenizer.encoder(eeg["patches"], eeg["channel"], eeg["second"], eeg["mask"])
            codes = self.tokenizer.codes(x)[1].view(eeg["channel"].shape) + TOKENS
        targets = torch.full_like(codes, -1)
        count = steps.CHANNELS * steps.SECONDS
        targets[:, : count - steps.CHANNELS] = codes[:, steps.CHANNELS : count]
        return self.read(self.eeg(eeg), eeg["staircase"], targets) + self.text_loss(text)

    def instruct_loss(self, eeg, prompt, text):
        x = torch.cat([self.eeg(eeg), self.words(prompt, steps.SAMPLE_SECONDS)], dim=1)
        length, begin = x.shape[1], eeg["channel"].shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).tril().repeat(len(x), 1, 1, 1)
        mask[:, :, :begin, :begin] = eeg["staircase"]
        mask[:, :, begin:, :begin] = eeg["valid"][:, None, None, :]
        targets = torch.full((len(x), length), -1)
        targets[:, -steps.ANSWER - 1 : -1] = prompt[:, -steps.ANSWER :]
        return self.read(x, mask, targets) + self.text_loss(text)


def measure(name: str, size: str) -> dict[str, float]:
    """Valid EEG tokens a second of full steps, and peak memory, on as many threads as there are cores."""
    torch.manual_seed(0)
    c = steps.build_stage(name, size).config
    text = torch.randint(0, 50000, (1, steps.TEXT + 1))
    if name == "instruct":
        eeg = _eeg(steps.SAMPLES, steps.SAMPLE_SECONDS, PADDED_EEG)
        prompt = torch.randint(0, 50000, (steps.SAMPLES, PADDED_TEXT))
        model = NeuroLM(c.tokenizer, c.language)
        loss = lambda: model.instruct_loss(eeg, prompt, text)  # noqa: E731
    elif name == "pretrain":
        eeg, model = _eeg(2, steps.SECONDS, PADDED_ROW), NeuroLM(c.tokenizer, c.language)
        loss = lambda: model.pretrain_loss(eeg, text)  # noqa: E731
    else:
        eeg, model = _eeg(2, steps.SECONDS, PADDED_ROW), Tokenizer(c.tokenizer)
        table = nn.Embedding(TOKENS, c.tokenizer.encoder.width).requires_grad_(False)
        loss = lambda: model.loss(eeg, table(text[:, :-1]))  # noqa: E731
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, times = torch.optim.AdamW(trained, lr=1e-4, fused=True), []
    for _ in range(steps.STEPS + 1):
        begin = time.perf_counter()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - begin)
    seconds = statistics.median(times[1:])
    return {
        "valid EEG tokens/second": float(eeg["valid"].sum()) / seconds,
        "seconds a step": seconds,
        "peak memory, GB": peak_memory(),
    }


def _eeg(rows, seconds, length):
    """Random rows of EEG, padded, with their masks."""
    count = steps.CHANNELS * seconds
    second = torch.zeros(rows, length, dtype=torch.long)
    channel = torch.full((rows, length), CHANNEL_TABLE - 1)
    second[:, :count] = torch.arange(seconds).repeat_interleave(steps.CHANNELS)
    channel[:, :count] = torch.arange(steps.CHANNELS).repeat(seconds)
    valid = (torch.arange(length) < count).repeat(rows, 1)
    patches = torch.randn(rows, length, 200) * valid[..., None]
    mask = valid[:, None, None, :].expand(rows, 1, length, length)
    staircase = mask & (second[:, None, :, None] >= second[:, None, None, :])
    return {
        "patches": patches,
        "channel": channel,
        "second": second,
        "valid": valid,
        "mask": mask,
        "staircase": staircase,
    }
