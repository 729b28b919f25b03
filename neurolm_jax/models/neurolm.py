"""GPT-2 over text tokens and EEG features: multi-channel autoregression (paper, sections 2.3 and 2.4)."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from neurolm_jax.models.attention import Intervals, own_second
from neurolm_jax.models.config import PATCH_SAMPLES, LanguageModelConfig, NeuroLMConfig
from neurolm_jax.models.losses import NO_TARGET
from neurolm_jax.models.summary import WindowSummary
from neurolm_jax.models.transformer import Cache, Embedding, LayerNorm, Linear, Stack, StackConfig, named

# Of standardised features. Far above the embeddings of channel and second that are added to them, those would be lost.
FEATURE_DEVIATION = 0.3


class LanguageModel(nn.Module):
    """GPT-2. With EEG codes its output layer is a table of its own, widened by them; without, the token embedding."""

    config: LanguageModelConfig

    def setup(self) -> None:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        self.token_embedding = Embedding(c.vocabulary, c.width, ("vocabulary", "embed"), dtype)
        self.position_embedding = Embedding(c.positions, c.width, dtype=dtype)
        stack = StackConfig(
            layers=c.layers,
            heads=c.heads,
            width=c.width,
            use_bias=True,
            scale_by_depth=False,
            approximate_gelu=c.approximate_gelu,
            dropout=c.dropout,
            dtype=c.dtype,
            remat=c.remat,
            lora_rank=c.lora_rank,
            lora_scale=c.lora_scale,
        )
        self.stack = Stack(stack)
        self.final_norm = LayerNorm()
        self.dropout = nn.Dropout(c.dropout)
        if c.codes:
            shape = (c.vocabulary + c.codes, c.width)
            initializer = named(nn.initializers.normal(0.02), "vocabulary", "embed")
            self.output = self.param("output", initializer, shape, jnp.float32)

    def embed(self, tokens: jax.Array, position: jax.Array) -> jax.Array:
        """Token ids and positions [B, T] -> [B, T, W]."""
        return self.token_embedding(tokens) + self.position_embedding(position)

    def hidden(self, x: jax.Array, intervals: Intervals, deterministic: bool = True) -> jax.Array:
        """Embedded inputs [B, T, W] -> what the output classes are compared with [B, T, W]."""
        x = self.dropout(x, deterministic=deterministic)
        return self.final_norm(self.stack(x, intervals, deterministic)[0])

    def prefill(self, x: jax.Array, intervals: Intervals, new_tokens: int) -> Cache:
        """Embedded inputs [B, T, W] -> their keys and values, with room for as many tokens more."""
        c = self.config
        shape = (c.layers, x.shape[0], x.shape[1] + new_tokens, c.heads, c.width // c.heads)
        empty = jnp.zeros(shape, jnp.dtype(c.dtype))
        return self.stack(x, intervals, cache=Cache(empty, empty))[1]  # type: ignore[return-value]  # one was given

    def decode(
        self,
        tokens: jax.Array,
        position: jax.Array,
        seen: jax.Array,
        cache: Cache,
        place: jax.Array | int,
    ) -> tuple[jax.Array, Cache]:
        """Further tokens and their positions [B, Q], put at ``place`` of the cache -> hidden states [B, Q, W].

        seen: bool [B, Q, M], which places of the cache each of them sees.
        """
        x, after = self.stack(self.embed(tokens, position), seen, cache=cache, place=place)
        return self.final_norm(x), after  # type: ignore[return-value]  # one was given

    def classes(self) -> jax.Array:
        """The output layer [V, W]: text tokens, then EEG codes."""
        return self.output if self.config.codes else self.token_embedding.table

    def __call__(self, tokens: jax.Array, intervals: Intervals, deterministic: bool = True) -> jax.Array:
        """Plain causal text: tokens [B, T] -> hidden states [B, T, W]."""
        position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        return self.hidden(self.embed(tokens, position), intervals, deterministic)


class NeuroLM(nn.Module):
    """The language model with EEG inputs: encoder features, a channel embedding, the position table at the second."""

    config: NeuroLMConfig

    def setup(self) -> None:
        c = self.config
        width = c.language.width
        dtype = jnp.dtype(c.language.dtype)
        self.language = LanguageModel(c.language)
        self.channel_embedding = Embedding(c.channels, width, dtype=dtype)
        if c.encoder_width != width:
            self.projection = Linear(width, (None, "embed"), dtype=dtype)
        if c.summary.reads:
            self.summary = WindowSummary(c.summary, width, c.channels, dtype)

    def embed_eeg(self, features: jax.Array, channel: jax.Array, second: jax.Array) -> jax.Array:
        """Features [B, E, W_encoder] (standardised if the config says so), ids [B, E] -> [B, E, W]."""
        if self.config.encoder_width != self.config.language.width:
            features = jax.nn.gelu(self.projection(features), approximate=False)
        place = self.channel_embedding(channel) + self.language.position_embedding(second)
        return features.astype(place.dtype) + place

    def eeg_hidden(
        self,
        features: jax.Array,
        channel: jax.Array,
        second: jax.Array,
        intervals: Intervals,
        deterministic: bool = True,
    ) -> jax.Array:
        """Rows of EEG alone -> hidden states [B, E, W]."""
        return self.language.hidden(self.embed_eeg(features, channel, second), intervals, deterministic)

    def text_hidden(self, tokens: jax.Array, intervals: Intervals, deterministic: bool = True) -> jax.Array:
        """Rows of text alone -> hidden states [B, T, W]."""
        return self.language(tokens, intervals, deterministic)

    def mixed_hidden(
        self,
        features: jax.Array,  # [B, E, W_encoder]
        eeg: Mapping[str, jax.Array],
        mixed: Mapping[str, jax.Array],
        intervals: Intervals,
        deterministic: bool = True,
    ) -> jax.Array:  # [B, T, W]
        """Rows in which each sample's EEG is followed by its text -> hidden states [B, T, W].

        Args:
          eeg: channel, second, segment [B, E]; patches [B, E, 200] in 100 microvolts, for a summary.
          mixed: eeg_index [B, T], place among the row's EEG tokens, -1 for text; tokens [B, T], anything for EEG;
            position [B, T] of the text tokens; segment [B, T]; separator [B, T] bool, the token between a sample's EEG
            and its text.
        """
        x = self._mixed(features, eeg, mixed, deterministic)
        return self.language.hidden(x, intervals, deterministic)

    def mixed_prefill(
        self,
        features: jax.Array,
        eeg: Mapping[str, jax.Array],
        mixed: Mapping[str, jax.Array],
        intervals: Intervals,
        new_tokens: int,
    ) -> Cache:
        """Rows as of ``mixed_hidden`` -> their keys and values, for ``decode``."""
        x = self._mixed(features, eeg, mixed)
        return self.language.prefill(x, intervals, new_tokens)

    def decode(
        self,
        tokens: jax.Array,
        position: jax.Array,
        seen: jax.Array,
        cache: Cache,
        place: jax.Array | int,
    ) -> tuple[jax.Array, Cache]:
        """See ``LanguageModel.decode``."""
        return self.language.decode(tokens, position, seen, cache, place)

    def _mixed(self, features, eeg, mixed, deterministic=True):
        index = mixed["eeg_index"][..., None]
        patches = self.embed_eeg(features, eeg["channel"], eeg["second"])
        patches = jnp.take_along_axis(patches, jnp.maximum(index, 0), axis=1)
        text = self.language.embed(mixed["tokens"], mixed["position"])
        if self.config.summary.reads:
            summary = self.summary(features, eeg, deterministic)
            summary = jnp.take_along_axis(summary, mixed["segment"][..., None], axis=1)
            text += jnp.where(mixed["separator"][..., None], summary, 0)
        return jnp.where(index >= 0, patches, text)

    def classes(self) -> jax.Array:
        return self.language.classes()

    def __call__(self, features, channel, second, tokens):
        """All parts once, for initialisation."""
        segment = jnp.ones_like(channel)
        intervals = own_second(segment, second)
        eeg = self.eeg_hidden(features, channel, second, intervals)
        if self.config.summary.reads:
            patches = jnp.zeros((*channel.shape, PATCH_SAMPLES))
            self.summary(features, {"patches": patches, "channel": channel, "second": second, "segment": segment})
        return eeg, self.language.embed(tokens, tokens), self.classes()


def standardise_features(config: NeuroLMConfig, features: jax.Array, mean: jax.Array, variance: jax.Array) -> jax.Array:
    """Features [..., W] as the language model reads them; mean and variance [W] come from the tokenizer's training."""
    if not config.feature_norm:
        return features
    return FEATURE_DEVIATION * (features - mean) * jax.lax.rsqrt(variance + 1e-6)


def next_second_targets(codes: jax.Array, segment: jax.Array, second: jax.Array) -> jax.Array:
    """The code of the same channel one second later, -1 where the segment has none (paper, section 2.3).

    codes, segment, second [B, T], tokens time-major with the same channels in every second of a segment -> [B, T].
    """
    own = own_second(segment, second)
    after = jnp.arange(codes.shape[1]) + (own.stop - own.start)  # [B, T]
    exists = after < codes.shape[1]
    after = jnp.minimum(after, codes.shape[1] - 1)
    same = jnp.take_along_axis(segment, after, axis=1) == segment
    return jnp.where(exists & same & (segment > 0), jnp.take_along_axis(codes, after, axis=1), NO_TARGET)
