"""What the two stages of NeuroLM share: the frozen encoder, and the weights taken over from earlier stages."""

import jax
import jax.numpy as jnp

from neurolm_jax.models.config import PATCH_SAMPLES
from neurolm_jax.models.losses import Mean
from neurolm_jax.models.neurolm import NeuroLM, standardise_features
from neurolm_jax.models.tokenizer import Tokenizer, create_tokenizer_state, with_axes
from neurolm_jax.stages import corpora
from neurolm_jax.stages.base import Stage, Tree, Weights
from neurolm_jax.stages.language import text_loss
from neurolm_jax.stages.tokenizer import encode_rows


class NeuroLMStage(Stage):
    """extra: {"tokenizer": frozen encoder and code projection, "state": TokenizerState}."""

    def __init__(self, config):
        super().__init__(config)
        self.tokenizer_config = corpora.tokenizer_config(config)
        self.model_config = corpora.neurolm_config(config)

    @property
    def literal_names(self) -> bool:
        """Whether rows keep the names T3, T4, T5 and T6 apart from T7, T8, P7 and P8."""
        return self.tokenizer_config.encoder.literal_names

    def create(self, rng: jax.Array) -> Weights:
        rng_model, rng_tokenizer, rng_codebook = jax.random.split(rng, 3)
        rows = jnp.zeros((1, 1), jnp.int32)
        features = jnp.zeros((1, 1, self.tokenizer_config.encoder.width))
        params = NeuroLM(self.model_config).init(rng_model, features, rows, rows, rows)["params"]
        patches = jnp.zeros((1, 1, PATCH_SAMPLES))
        init = Tokenizer(self.tokenizer_config).init
        encoder = init(rng_tokenizer, patches, rows, rows, rows, method="encode")["params"]
        state = with_axes(create_tokenizer_state(self.tokenizer_config, rng_codebook))
        return Weights(params, {"tokenizer": encoder, "state": state})

    def encode(self, extra: Tree, eeg: dict) -> tuple[jax.Array, jax.Array]:
        """One pass of the frozen encoder: features as the language model reads them [B, E, W], and codes [B, E]."""
        state = extra["state"]
        features, codes = encode_rows(self.tokenizer_config, extra["tokenizer"], state, eeg)
        features = standardise_features(self.model_config, features, state.feature_mean, state.feature_variance)
        return features, codes

    def text_loss(self, params: dict, text: jax.Array, rng: jax.Array, train: bool) -> tuple[Mean, Mean]:
        """Loss of plain text rows [B, T + 1], over text tokens and EEG codes alike."""
        model = NeuroLM(self.model_config)
        return text_loss(model, {"params": params}, params["language"]["output"], text, rng, train, "text_hidden")

    def take_tokenizer(self, weights: Weights, tokenizer: Weights) -> Weights:
        """The encoder and codebook of a tokenizer's run, to stay as they are."""
        parts = {name: tokenizer.params[name] for name in ("encoder", "code_projection")}
        return weights._replace(extra={"tokenizer": parts, "state": tokenizer.extra["state"]})

    def take_language(self, weights: Weights, language: Weights) -> Weights:
        """GPT-2's weights; its token embedding becomes the text part of the output layer, no longer tied."""
        ours = weights.params["language"]
        table = language.params["token_embedding"]["table"]
        output = jnp.concatenate([table, ours["output"][len(table) :]])
        return weights._replace(params=weights.params | {"language": {**language.params, "output": output}})
