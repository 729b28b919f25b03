"""Stage 2: multi-channel autoregression beside text (paper, section 2.3)."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from neurolm_jax.data.shards import Shards
from neurolm_jax.data.streams import Rows
from neurolm_jax.models import quantizer
from neurolm_jax.models.attention import staircase
from neurolm_jax.models.losses import NO_TARGET, Mean, chunked_cross_entropy
from neurolm_jax.models.neurolm import NeuroLM, next_second_targets
from neurolm_jax.stages import corpora
from neurolm_jax.stages.base import Terms, Tree, Weights
from neurolm_jax.stages.neurolm import NeuroLMStage


class PretrainStage(NeuroLMStage):
    """Predict the code of each channel's next second, and text."""

    def inherit(self, weights: Weights, restore: Callable[[str], Weights]) -> Weights:
        weights = self.take_tokenizer(weights, restore(self.config.initial.tokenizer))
        return self.take_language(weights, restore(self.config.initial.language))

    def terms(self, weights: Weights, batch: Tree, rng: jax.Array, progress: jax.Array, train: bool) -> Terms:
        rng_eeg, rng_text = jax.random.split(rng)
        eeg_loss, eeg_accuracy, codes = self.eeg_loss(weights, batch["eeg"], rng_eeg, train)
        text_loss, text_accuracy = self.text_loss(weights.params, batch["text"], rng_text, train)
        valid = batch["eeg"]["segment"].reshape(-1) > 0
        counts = quantizer.count_codes(codes.reshape(-1), valid, self.tokenizer_config.codes)
        return Terms(
            {"eeg_loss": eeg_loss, "text_loss": text_loss},
            {"eeg_accuracy": eeg_accuracy, "text_accuracy": text_accuracy, "code_counts": counts},
        )

    def eeg_loss(self, weights: Weights, eeg: dict, rng: jax.Array, train: bool) -> tuple[Mean, Mean, jax.Array]:
        """Loss and accuracy over all classes at patches with a next second, and the codes [B, T]."""
        features, codes = self.encode(weights.extra, eeg)
        targets = next_second_targets(codes, eeg["segment"], eeg["second"])
        targets = jnp.where(targets >= 0, targets + self.model_config.language.vocabulary, NO_TARGET)
        hidden = NeuroLM(self.model_config).apply(
            {"params": weights.params},
            features,
            eeg["channel"],
            eeg["second"],
            staircase(eeg["segment"], eeg["second"]),
            not train,
            rngs={"dropout": rng},
            method="eeg_hidden",
        )
        classes = weights.params["language"]["output"]
        loss, accuracy = chunked_cross_entropy(hidden, classes, targets)
        return loss, accuracy, codes

    def eeg_shards(self, train: bool) -> Sequence[Shards]:
        return corpora.training(self.config, False) if train else corpora.validation(self.config)

    def empty_rows(self) -> Mapping[str, tuple[Tree, int]]:
        return corpora.empty_eeg_and_text(self.config)

    def sources(self, train: bool) -> Mapping[str, tuple[Rows, int]]:
        return corpora.eeg_and_text(self.config, train)
