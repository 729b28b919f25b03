"""Stage 3: multi-task instruction tuning (paper, section 2.4)."""

import jax
import jax.numpy as jnp

from neurolm_jax.data.dialogues import Augmentation, DialogueRows, RowSize
from neurolm_jax.models.attention import staircase
from neurolm_jax.models.losses import chunked_cross_entropy
from neurolm_jax.models.neurolm import NeuroLM
from neurolm_jax.stages import corpora
from neurolm_jax.stages.base import Terms
from neurolm_jax.stages.neurolm import NeuroLMStage


class InstructStage(NeuroLMStage):
    """Learn the answers' tokens, and plain text."""

    def inherit(self, weights, restore):
        return restore(self.config.initial.pretrain)

    def terms(self, weights, batch, rng, progress, train):
        rng_answer, rng_text = jax.random.split(rng)
        answer_loss, answer_accuracy = self.answer_loss(weights, batch["dialogues"], rng_answer, train)
        text_loss, text_accuracy = self.text_loss(weights.params, batch["text"], rng_text, train)
        return Terms(
            {"answer_loss": answer_loss, "text_loss": text_loss},
            {"answer_accuracy": answer_accuracy, "text_accuracy": text_accuracy},
        )

    def loss_weight(self, name):
        return self.config.text_loss_weight if name == "text_loss" else 1.0

    def answer_loss(self, weights, dialogues, rng, train):
        """Loss and accuracy of the answers' tokens over all classes."""
        hidden = self.answer_hidden(weights, dialogues, rng, train)
        classes = weights.params["language"]["output"]
        targets = dialogues["mixed"]["answer_target"].reshape(-1)
        return chunked_cross_entropy(hidden.reshape(-1, hidden.shape[-1]), classes, targets)

    def answer_hidden(self, weights, dialogues, rng, train) -> jax.Array:
        """Hidden states [B, A, W] at ``answer_index``, the positions before the answers' tokens."""
        mixed, eeg = dialogues["mixed"], dialogues["eeg"]
        features, _ = self.encode(weights.extra, eeg)
        hidden = NeuroLM(self.model_config).apply(
            {"params": weights.params},
            features,
            eeg["channel"],
            eeg["second"],
            mixed["eeg_index"],
            mixed["tokens"],
            mixed["position"],
            staircase(mixed["segment"], mixed["second"], mixed["eeg_index"] < 0),
            not train,
            rngs={"dropout": rng},
            method="mixed_hidden",
        )
        return jnp.take_along_axis(hidden, mixed["answer_index"][..., None], axis=1)

    def sources(self, train):
        c = self.config
        size = RowSize(c.eeg_length, c.row_length, c.answer_length)
        augmentation = Augmentation(**c.augmentation) if train else Augmentation()
        tasks = corpora.tasks(c, *(c.data.splits if train else ("validation",)))
        rows = DialogueRows(tasks, size, c.seed if train else None, augmentation, train and c.shuffle_labels)
        return {"dialogues": (rows, c.batch_size), "text": (corpora.text(c, train), c.text_batch_size)}
