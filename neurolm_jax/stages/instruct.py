"""Stage 3: multi-task instruction tuning (paper, section 2.4)."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from neurolm_jax.data import vocabulary
from neurolm_jax.data.dialogues import Augmentation, DialogueRows, RowSize, fill_dialogues
from neurolm_jax.data.eeg_rows import float_patches
from neurolm_jax.data.shards import Shards
from neurolm_jax.data.streams import Rows
from neurolm_jax.data.text import empty_text
from neurolm_jax.errors import UserError
from neurolm_jax.models import lora
from neurolm_jax.models.attention import staircase
from neurolm_jax.models.losses import Mean, chunked_cross_entropy
from neurolm_jax.models.neurolm import FEATURE_DEVIATION, NeuroLM
from neurolm_jax.models.readings import window_noise
from neurolm_jax.models.transformer import Cache
from neurolm_jax.stages import corpora
from neurolm_jax.stages.base import Terms, Tree, Weights
from neurolm_jax.stages.neurolm import NeuroLMStage

PROMPTS = ("official", "shuffled", "varied")


class InstructStage(NeuroLMStage):
    """Learn the answers' tokens, and plain text.

    With ``language.lora_rank`` the parameters that are trained are low-rank terms and the window's summary alone, and
    ``extra["frozen"]`` has the others.
    """

    def create(self, rng: jax.Array) -> Weights:
        weights = super().create(rng)
        if not self.model_config.language.lora_rank:
            return weights
        terms, rest = lora.split(weights.params)
        return Weights(terms, weights.extra | {"frozen": rest})

    def inherit(self, weights: Weights, restore: Callable[[str], Weights]) -> Weights:
        pretrained = restore(self.config.initial.pretrain)  # of an instruct stage too, low-rank terms folded in
        summary = {name: part for name, part in self.params(weights).items() if name == "summary"}
        params = summary | pretrained.params
        if "frozen" not in weights.extra:
            return pretrained._replace(params=params)
        rest = {name: part for name, part in params.items() if name != "summary"}
        trained = {name: params[name] for name in summary}
        return Weights(weights.params | trained, pretrained.extra | {"frozen": rest})

    def params(self, weights: Weights) -> dict:
        """All parameters of the model."""
        return lora.join(weights.params, weights.extra["frozen"]) if "frozen" in weights.extra else weights.params

    def plain(self, weights: Weights) -> Weights:
        """Weights of the same model without low-rank terms."""
        if "frozen" not in weights.extra:
            return weights
        params = lora.fold(self.params(weights), self.model_config.language.lora_scale)
        return Weights(params, {name: part for name, part in weights.extra.items() if name != "frozen"})

    def terms(self, weights: Weights, batch: Tree, rng: jax.Array, progress: jax.Array, train: bool) -> Terms:
        rng_answer, rng_text = jax.random.split(rng)
        answer_loss, answer_accuracy = self.answer_loss(weights, batch["dialogues"], rng_answer, train)
        text_loss, text_accuracy = self.text_loss(self.params(weights), batch["text"], rng_text, train)
        return Terms(
            {"answer_loss": answer_loss, "text_loss": text_loss},
            {"answer_accuracy": answer_accuracy, "text_accuracy": text_accuracy},
        )

    def loss_weight(self, name: str) -> float:
        return self.config.text_loss_weight if name == "text_loss" else 1.0

    def answer_loss(self, weights: Weights, dialogues: dict, rng: jax.Array, train: bool) -> tuple[Mean, Mean]:
        """Loss and accuracy of the answers' tokens over all classes."""
        hidden = self.answer_hidden(weights, dialogues, rng, train)
        classes = self.classes(weights)
        return chunked_cross_entropy(hidden, classes, dialogues["mixed"]["answer_target"])

    def answer_hidden(self, weights: Weights, dialogues: dict, rng: jax.Array, train: bool) -> jax.Array:
        """Hidden states [B, A, W] at ``answer_index``, the positions before the answers' tokens."""
        rng_noise, rng_dropout = jax.random.split(rng)
        features, eeg, mixed, intervals = self._mixed(weights, dialogues)
        rng_feature, rng_summary = jax.random.split(rng_noise)
        if train and self.config.feature_noise:
            noise = window_noise(rng_feature, features, eeg["segment"], eeg["second"])
            features += self.config.feature_noise * FEATURE_DEVIATION * noise
        rngs = {"dropout": rng_dropout, "noise": rng_summary}
        hidden = self._apply(weights, features, eeg, mixed, intervals, not train, rngs=rngs, method="mixed_hidden")
        return jnp.take_along_axis(hidden, dialogues["mixed"]["answer_index"][..., None], axis=1)

    def prefill(self, weights: Weights, dialogues: dict, new_tokens: int) -> Cache:
        """Keys and values of rows, and room for as many tokens more."""
        return self._apply(weights, *self._mixed(weights, dialogues), new_tokens, method="mixed_prefill")

    def decode(
        self,
        weights: Weights,
        tokens: jax.Array,
        position: jax.Array,
        seen: jax.Array,
        cache: Cache,
        place: jax.Array | int,
    ) -> tuple[jax.Array, Cache]:
        """Hidden states [B, Q, W] of tokens that follow what was read; see ``LanguageModel.decode``."""
        return self._apply(weights, tokens, position, seen, cache, place, method="decode")

    def classes(self, weights: Weights) -> jax.Array:
        """The output layer [V, W]."""
        return self.params(weights)["language"]["output"]

    def _apply(self, weights, *arguments, **options):
        return NeuroLM(self.model_config).apply({"params": self.params(weights)}, *arguments, **options)

    def _mixed(self, weights, dialogues):
        mixed, eeg = dialogues["mixed"], dialogues["eeg"]
        features, _ = self.encode(weights.extra, eeg)
        is_text = mixed["eeg_index"] < 0
        separator = is_text & (mixed["tokens"] == vocabulary.SEPARATOR)
        if self.model_config.summary.reads:
            eeg = eeg | {"patches": float_patches(eeg)}
        return features, eeg, mixed | {"separator": separator}, staircase(mixed["segment"], mixed["second"], is_text)

    @property
    def alone(self) -> bool:
        """Whether a sample must have a row to itself, since the encoder's norm runs over the row."""
        return self.tokenizer_config.encoder.patch_norm == "row"

    @property
    def row_size(self) -> RowSize:
        """Of rows to train on."""
        c = self.config
        samples = 1 if self.alone else RowSize.samples
        return RowSize(c.eeg_length, c.row_length, c.answer_length, samples, self.literal_names)

    def empty_rows(self) -> Mapping[str, tuple[Tree, int]]:
        c = self.config
        row = fill_dialogues([], self.row_size)
        return {"dialogues": (row, c.batch_size), "text": (empty_text(c.text_length), c.text_batch_size)}

    def eeg_shards(self, train: bool) -> Sequence[Shards]:
        c = self.config
        tasks = corpora.learnt_tasks(c, False) if train else corpora.tasks(c, "validation", guarded=False)
        return [shards for _, shards in tasks]

    def sources(self, train: bool) -> Mapping[str, tuple[Rows, int]]:
        c = self.config
        augmentation = Augmentation(**c.augmentation) if train else Augmentation()
        if "test" in c.data.splits or not c.data.splits:
            raise UserError("config.data.splits: the test part is not learnt from; want train, or train and validation")
        tasks = corpora.learnt_tasks(c) if train else corpora.tasks(c, "validation")
        if c.data.prompts not in PROMPTS:
            raise UserError(f"config.data.prompts: want one of {', '.join(PROMPTS)}, not {c.data.prompts!r}")
        asked = {way: c.data.prompts == way for way in ("varied", "shuffled")}
        seed, shuffle_labels = c.seed if train else None, train and c.shuffle_labels
        rows = DialogueRows(tasks, self.row_size, seed, augmentation, shuffle_labels, **asked)
        return {"dialogues": (rows, c.batch_size), "text": (corpora.text(c, train), c.text_batch_size)}
