"""Stage 1: the text-aligned neural tokenizer (paper, section 2.2)."""

import jax
import jax.numpy as jnp

from neurolm_jax.data.eeg_rows import EEGRows
from neurolm_jax.models import quantizer
from neurolm_jax.models.config import TokenizerConfig
from neurolm_jax.models.tokenizer import (
    Tokenizer,
    TokenizerState,
    create_state,
    reconstruction_targets,
    reverse_gradient,
)
from neurolm_jax.stages import corpora
from neurolm_jax.stages.base import Stage, Weights

STATISTICS_DECAY = 0.99


class TokenizerStage(Stage):
    """extra: {"state": TokenizerState, "text": token embedding [V, W] of the language model}."""

    def __init__(self, config):
        super().__init__(config)
        self.model_config = corpora.tokenizer_config(config)

    def create(self, rng):
        rows = jnp.zeros((1, 1), jnp.int32)
        rng_params, rng_codebook = jax.random.split(rng)
        patches = jnp.zeros((1, 1, 200))
        params = Tokenizer(self.model_config).init(rng_params, patches, rows, rows, rows)["params"]
        table = jnp.zeros((self.config.text_vocabulary, self.model_config.encoder.width))
        return Weights(params, {"state": create_state(self.model_config, rng_codebook), "text": table})

    def inherit(self, weights, restore):
        language = restore(self.config.initial.language)
        return weights._replace(extra=weights.extra | {"text": language.params["token_embedding"]["table"]})

    def loss(self, weights, batch, rng, progress, train):
        strength = 2 / (1 + jnp.exp(-10 * progress)) - 1
        text = weights.extra["text"][batch["text"][:, :-1]]
        loss, (state, metrics) = tokenizer_loss(
            self.model_config, weights.params, weights.extra["state"], batch["eeg"], text, strength, rng, train
        )
        return loss, (weights.extra | {"state": state}, metrics)

    def sources(self, train):
        c = self.config
        seed = c.seed if train else None
        parts = corpora.training(c) if train else corpora.validation(c)
        rows = EEGRows(parts, c.row_length, self.model_config.encoder.seconds, seed)
        return {"eeg": (rows, c.batch_size), "text": (corpora.text(c, train), c.text_batch_size)}


def tokenizer_loss(
    config: TokenizerConfig,
    params,
    state: TokenizerState,
    eeg: dict,  # patches [B, T, 200], channel, second, segment [B, T]
    text: jax.Array,  # [B', T', W] token embeddings
    strength: jax.Array,  # of the gradient reversal
    rng: jax.Array,
    train: bool,
):
    """Reconstruction, commitment and domain losses, each with weight 1, over valid patches.

    Returns:
      loss, (new TokenizerState, metrics). In training the codes are looked up before the codebook moves.
    """
    model, variables = Tokenizer(config), {"params": params}
    ids = eeg["channel"], eeg["second"], eeg["segment"]
    valid = eeg["segment"] > 0  # [B, T]
    flat_valid = valid.reshape(-1)
    rng_kmeans, rng_revival = jax.random.split(rng)

    encoding = model.apply(variables, eeg["patches"], *ids, method="encode")
    z = quantizer.normalise(encoding.z).reshape(-1, config.code_width)  # [B T, D]
    fixed_z = jax.lax.stop_gradient(z)
    codebook = state.codebook
    if train:
        codebook = quantizer.initialise(codebook, fixed_z, flat_valid, rng_kmeans)
    codes, quantized, commitment = quantizer.quantize(codebook.vectors, z, flat_valid)
    frequency, raw = model.apply(variables, quantized.reshape(encoding.z.shape), *ids, method="decode")
    frequency_target, raw_target = reconstruction_targets(eeg["patches"], eeg["segment"])

    features = reverse_gradient(encoding.features, strength)
    eeg_logits = model.apply(variables, features, method="domain_logits")
    text_logits = model.apply(variables, jax.lax.stop_gradient(text), method="domain_logits")
    parts = {
        "frequency_loss": _masked_mean(jnp.square(frequency - frequency_target).mean(-1), valid),
        "raw_loss": _masked_mean(jnp.square(raw - raw_target).mean(-1), valid),
        "quantizer_loss": commitment,
        "domain_eeg_loss": _masked_mean(-jax.nn.log_softmax(eeg_logits)[..., 0], valid),
        "domain_text_loss": -jax.nn.log_softmax(text_logits)[..., 1].mean(),
    }
    counts = quantizer.count_codes(codes, flat_valid, config.codes)
    metrics = parts | {"code_counts": counts}
    if train:
        rules = {"decay": config.decay, "dead_below": config.dead_below}
        codebook, revived = quantizer.update(codebook, fixed_z, codes, flat_valid, rng_revival, **rules)
        state = _update_statistics(state, encoding.features, valid)._replace(codebook=codebook)
        metrics["revived_codes"] = revived
    return sum(parts.values()), (state, metrics)


def _update_statistics(state, features, valid):
    """Moving mean and variance of each feature over valid patches; the first batch sets them."""
    features = jax.lax.stop_gradient(features).astype(jnp.float32).reshape(-1, features.shape[-1])
    weight = valid.reshape(-1, 1) / jnp.maximum(valid.sum(), 1)
    mean = (features * weight).sum(0)
    variance = (jnp.square(features - mean) * weight).sum(0)
    decay = jnp.where(state.codebook.initialised, STATISTICS_DECAY, 0.0)
    return state._replace(
        feature_mean=decay * state.feature_mean + (1 - decay) * mean,
        feature_variance=decay * state.feature_variance + (1 - decay) * variance,
    )


def _masked_mean(x, valid):
    return jnp.where(valid, x, 0).sum() / jnp.maximum(valid.sum(), 1)
