"""Stage 1: the text-aligned neural tokenizer (paper, section 2.2)."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from neurolm_jax.data.eeg_rows import float_patches
from neurolm_jax.data.shards import Shards
from neurolm_jax.data.streams import Rows
from neurolm_jax.models import quantizer
from neurolm_jax.models.config import HIGHEST, PATCH_SAMPLES, SPECTRUM_BINS, TokenizerConfig
from neurolm_jax.models.losses import masked_mean
from neurolm_jax.models.placement import lookup
from neurolm_jax.models.tokenizer import (
    Tokenizer,
    TokenizerState,
    create_tokenizer_state,
    log_power,
    reconstruction_targets,
    reverse_gradient,
    standard_log_power,
    with_axes,
)
from neurolm_jax.stages import corpora
from neurolm_jax.stages.base import Stage, Terms, Tree, Weights
from neurolm_jax.training.gradients import in_parts

STATISTICS_DECAY = 0.99
# Fields of the config with the weights of the loss's terms; the quantizer's is 1.
WEIGHTS = {
    "frequency_loss": "frequency_loss_weight",
    "raw_loss": "raw_loss_weight",
    "feature_spectrum_loss": "feature_spectrum_loss_weight",
    "domain_eeg_loss": "domain_loss_weight",
    "domain_text_loss": "domain_loss_weight",
}


class TokenizerStage(Stage):
    """extra: {"state": TokenizerState, "text": token embedding [V, W] of the language model}."""

    def __init__(self, config):
        super().__init__(config)
        self.model_config = corpora.tokenizer_config(config)

    def create(self, rng: jax.Array) -> Weights:
        rows = jnp.zeros((1, 1), jnp.int32)
        rng_params, rng_codebook = jax.random.split(rng)
        patches = jnp.zeros((1, 1, PATCH_SAMPLES))
        params = Tokenizer(self.model_config).init(rng_params, patches, rows, rows, rows)["params"]
        zeros = jnp.zeros((self.config.text_vocabulary, self.model_config.encoder.width))
        table = nn.LogicallyPartitioned(zeros, ("vocabulary", "embed"))
        state = with_axes(create_tokenizer_state(self.model_config, rng_codebook))
        return Weights(params, {"state": state, "text": table})

    def inherit(self, weights: Weights, restore: Callable[[str], Weights]) -> Weights:
        language = restore(self.config.initial.language)
        return weights._replace(extra=weights.extra | {"text": language.params["token_embedding"]["table"]})

    def prepare(self, weights: Weights, batch: Tree, rng: jax.Array) -> Weights:
        """The codebook by k-means, and the statistics of features and spectra, from the first batch.

        The batch goes through in as many parts as in a step.
        """
        c, parts, state = self.model_config, self.config.accumulation, weights.extra["state"]

        def read(eeg):
            patches, valid = float_patches(eeg), eeg["segment"] > 0
            ids = eeg["channel"], eeg["second"], eeg["segment"]
            encoding = Tokenizer(c).apply({"params": weights.params}, patches, *ids, method="encode")
            power = log_power(patches) if c.reads_log_power else None
            return quantizer.normalise(encoding.z), valid, statistics_moments(state, encoding.features, power, valid)

        z, valid, moments = in_parts(read, batch["eeg"], parts)
        codebook = quantizer.kmeans(z.reshape(-1, c.code_width), valid.reshape(-1), rng, c.codes, parts)
        state = update_statistics(state._replace(codebook=codebook), moments, valid.sum(), decay=0.0)
        return weights._replace(extra=weights.extra | {"state": state})

    def terms(self, weights: Weights, batch: Tree, rng: jax.Array, progress: jax.Array, train: bool) -> Terms:
        strength = 2 / (1 + jnp.exp(-10 * progress)) - 1
        tokens = batch["text"][:, :-1]
        text = lookup(weights.extra["text"], tokens, "vocabulary")
        there = None if train else tokens >= 0  # a validation's last batch may have rows without text
        state = weights.extra["state"]
        return tokenizer_terms(self.model_config, weights.params, state, batch["eeg"], text, strength, there)

    def loss_weight(self, name: str) -> float:
        return self.config[WEIGHTS[name]] if name in WEIGHTS else 1.0

    def learn(self, extra: Tree, observed: Tree, rng: jax.Array) -> tuple[Tree, dict[str, jax.Array]]:
        state, revived = learn(self.model_config, extra["state"], observed, rng)
        return extra | {"state": state}, {"revived_codes": revived}

    def eeg_shards(self, train: bool) -> Sequence[Shards]:
        return corpora.training(self.config, False) if train else corpora.validation(self.config)

    def empty_rows(self) -> Mapping[str, tuple[Tree, int]]:
        return corpora.empty_eeg_and_text(self.config)

    def sources(self, train: bool) -> Mapping[str, tuple[Rows, int]]:
        return corpora.eeg_and_text(self.config, train)


class Moments(NamedTuple):
    """Summed differences from a mean so far, and their summed squares, of each row's valid patches: [b, F] each."""

    first: jax.Array
    second: jax.Array


class StatisticsMoments(NamedTuple):
    """Of the features [b, W], and of the log power in each bin [b, 100]; None where nothing reads that."""

    features: Moments
    spectrum: Moments | None


class Observed(NamedTuple):
    """What the codebook and the statistics of features and spectra learn from: [b, ...] a row."""

    z: jax.Array  # [b, T, D] unit vectors
    codes: jax.Array  # [b, T]
    valid: jax.Array  # [b, T] bool
    moments: StatisticsMoments


def tokenizer_terms(
    config: TokenizerConfig,
    params: Tree,
    state: TokenizerState,
    eeg: dict,  # patches [b, T, 200], channel, second, segment [b, T]
    text: jax.Array,  # [b', T', W] token embeddings
    strength: jax.Array,  # of the gradient reversal
    text_there: jax.Array | None = None,  # [b', T'] bool: which tokens count; None for all
) -> Terms:
    """Reconstruction, commitment and domain losses over valid patches."""
    model, variables = Tokenizer(config), {"params": params}
    ids = eeg["channel"], eeg["second"], eeg["segment"]
    valid = eeg["segment"] > 0  # [b, T]

    patches = float_patches(eeg)  # [b, T, 200]
    encoding = model.apply(variables, patches, *ids, method="encode")
    z = quantizer.normalise(encoding.z)  # [b, T, D]
    codes, quantized, error = quantizer.quantize(state.codebook.vectors, z.reshape(-1, config.code_width))
    codes, error = codes.reshape(valid.shape), error.reshape(valid.shape)
    frequency, raw = model.apply(variables, quantized.reshape(z.shape), *ids, method="decode")
    frequency_target, raw_target = reconstruction_targets(config, state, patches, eeg["segment"])

    bins = HIGHEST if config.spectrum_target == "log_power" else SPECTRUM_BINS  # others are zero in the target
    features = reverse_gradient(encoding.features, strength)
    eeg_logits = model.apply(variables, features, method="domain_logits")
    text_logits = model.apply(variables, jax.lax.stop_gradient(text), method="domain_logits")
    text_losses = -jax.nn.log_softmax(text_logits)[..., 1]
    losses = {
        "frequency_loss": masked_mean(jnp.square(frequency - frequency_target).sum(-1) / bins, valid),
        "raw_loss": masked_mean(jnp.square(raw - raw_target).mean(-1), valid),
        "quantizer_loss": masked_mean(error, valid),
        "domain_eeg_loss": masked_mean(-jax.nn.log_softmax(eeg_logits)[..., 0], valid),
        "domain_text_loss": masked_mean(
            text_losses, jnp.ones(text_losses.shape, bool) if text_there is None else text_there
        ),
    }
    if config.spectrum_head:
        spectrum = model.apply(variables, encoding.features, method="feature_spectrum")
        spectrum_error = jnp.square(spectrum - standard_log_power(state, patches)).sum(-1) / HIGHEST
        losses["feature_spectrum_loss"] = masked_mean(spectrum_error, valid)
    counts = quantizer.count_codes(codes.reshape(-1), valid.reshape(-1), config.codes)
    moments = statistics_moments(
        state, encoding.features, log_power(patches) if config.reads_log_power else None, valid
    )
    observed = jax.lax.stop_gradient(Observed(z, codes, valid, moments))
    products = quantizer.second_moments(jax.lax.stop_gradient(z).reshape(-1, config.code_width), valid.reshape(-1))
    return Terms(losses, {"code_counts": counts, "code_vector_moments": products}, observed)


def encode_rows(config: TokenizerConfig, params: Tree, state: TokenizerState, eeg: dict) -> tuple[jax.Array, jax.Array]:
    """Return the frozen encoder's features [B, T, W] of rows of EEG, and their codes [B, T].

    Args:
      params: of the encoder and the code projection; others may lie beside them.
    """
    ids = eeg["channel"], eeg["second"], eeg["segment"]
    encoding = Tokenizer(config).apply({"params": params}, float_patches(eeg), *ids, method="encode")
    encoding = jax.lax.stop_gradient(encoding)
    z = quantizer.normalise(encoding.z)
    codes = quantizer.nearest(state.codebook.vectors, z.reshape(-1, z.shape[-1])).reshape(z.shape[:2])
    return encoding.features, codes


def learn(
    config: TokenizerConfig, state: TokenizerState, observed: Observed, rng: jax.Array
) -> tuple[TokenizerState, jax.Array]:
    """The state after a step, and the number of codes revived. Codes were looked up before the codebook moves."""
    rules = {"decay": config.decay, "dead_below": config.dead_below}
    flat = observed.z.reshape(-1, config.code_width), observed.codes.reshape(-1), observed.valid.reshape(-1)
    codebook, revived = quantizer.update(state.codebook, *flat, rng, **rules)
    count = observed.valid.sum()
    state = update_statistics(state, observed.moments, count, decay=STATISTICS_DECAY)
    return state._replace(codebook=codebook), revived


def statistics_moments(
    state: TokenizerState,
    features: jax.Array,  # [b, T, W]
    power: jax.Array | None,  # [b, T, 100] log power
    valid: jax.Array,  # [b, T] bool
) -> StatisticsMoments:
    """Moments of features and log power at valid patches, about the state's means."""

    def moments(x, mean):
        difference = jnp.where(valid[..., None], x.astype(jnp.float32) - mean, 0)
        return Moments(difference.sum(1), jnp.square(difference).sum(1))

    spectrum = None if power is None else moments(power, state.spectrum_mean)
    return StatisticsMoments(moments(features, state.feature_mean), spectrum)


def update_statistics(
    state: TokenizerState, moments: StatisticsMoments, count: jax.Array, *, decay: float
) -> TokenizerState:
    """Move mean and variance of each feature and of each bin towards those of ``count`` valid patches."""
    count = jnp.maximum(count, 1)

    def moved(mean, variance, part):
        shift = part.first.sum(0) / count
        new = jnp.maximum(part.second.sum(0) / count - jnp.square(shift), 0)  # rounding may leave less than none
        return mean + (1 - decay) * shift, decay * variance + (1 - decay) * new

    mean, variance = moved(state.feature_mean, state.feature_variance, moments.features)
    state = state._replace(feature_mean=mean, feature_variance=variance)
    if moments.spectrum is None:
        return state
    mean, variance = moved(state.spectrum_mean, state.spectrum_variance, moments.spectrum)
    return state._replace(spectrum_mean=mean, spectrum_variance=variance)
