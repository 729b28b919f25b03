"""Answers in words, token by token."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from neurolm_jax.data import vocabulary
from neurolm_jax.data.dialogues import Dialogue, RowSize, fill_dialogues
from neurolm_jax.data.streams import stack
from neurolm_jax.eeg.tasks import Task
from neurolm_jax.inference.scoring import dialogue_size
from neurolm_jax.stages.instruct import InstructStage


def generate(stage: InstructStage, weights, dialogues: Sequence[Dialogue], tokens: int, batch: int = 64) -> list[str]:
    """Greedy continuation of each dialogue's prompt by ``tokens`` tokens at most, cut at the end of text.

    All dialogues of a call share one compiled program; the longest sets its size.
    """
    eeg, length, _ = np.max([dialogue_size(d) for d in dialogues], axis=0)
    # One answer slot: it asks for the hidden state of the last token so far.
    size = RowSize(int(eeg), int(length) + tokens, 1)
    greedy = _compiled(stage, tokens)
    found = []
    for first in range(0, len(dialogues), batch):
        part = list(dialogues[first : first + batch])
        rows = [fill_dialogues([d], size) for d in part + part[-1:] * (batch - len(part))]
        lengths = np.array([dialogue_size(d)[1] for d in part + part[-1:] * (batch - len(part))], np.int32)
        found += np.asarray(greedy(weights, stack(rows), lengths)).tolist()[: len(part)]
    return [text_of(tokens) for tokens in found]


def text_of(tokens: list[int]) -> str:
    """The words before the end of text."""
    end = tokens.index(vocabulary.END_OF_TEXT) if vocabulary.END_OF_TEXT in tokens else len(tokens)
    return vocabulary.decode(tokens[:end])


def read_answer(task: Task, text: str) -> int | None:
    """Place of the answer that a text is, None if it is none of them: unreadable."""
    answers = [answer.strip() for answer in task.answers.values()]
    return answers.index(text.strip()) if text.strip() in answers else None


@functools.lru_cache(maxsize=16)
def _compiled(stage, new_tokens):
    def greedy(weights, dialogues, lengths):
        classes = weights.params["language"]["output"][: vocabulary.END_OF_TEXT + 1]
        eeg, mixed = dialogues["eeg"], dialogues["mixed"]
        row = jnp.arange(len(lengths))
        last_second = mixed["position"][row, lengths - 1]
        index = jnp.arange(mixed["tokens"].shape[1])
        # Places past the prompt are text of the same segment; no token before them sees them.
        beyond = index >= lengths[:, None]
        position = jnp.where(beyond, last_second[:, None] + 1 + index - lengths[:, None], mixed["position"])
        mixed = mixed | {"segment": jnp.ones_like(position), "position": position, "second": position}

        def step(k, carry):
            tokens, found = carry
            place = lengths + k
            query = mixed | {"tokens": tokens, "answer_index": (place - 1)[:, None]}
            hidden = stage.answer_hidden(weights, {"eeg": eeg, "mixed": query}, jax.random.key(0), train=False)
            chosen = (hidden[:, 0] @ classes.T.astype(hidden.dtype)).argmax(-1).astype(jnp.int32)
            return tokens.at[row, place].set(chosen), found.at[:, k].set(chosen)

        found = jnp.zeros((len(lengths), new_tokens), jnp.int32)
        return jax.lax.fori_loop(0, new_tokens, step, (mixed["tokens"], found))[1]

    return jax.jit(greedy)
