"""Answers in words, token by token: EEG and question are read once, then one token a question and step."""

import functools
import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from neurolm_jax.data import vocabulary
from neurolm_jax.data.dialogues import answer_tokens, prompt_tokens
from neurolm_jax.eeg.preprocessing import RATE
from neurolm_jax.eeg.tasks import prompts
from neurolm_jax.eeg.tasks.prompts import Prompt
from neurolm_jax.inference.model import Trained, over_rows
from neurolm_jax.inference.questions import Question, QuestionRows, Size, fill_questions
from neurolm_jax.inference.scoring import seen
from neurolm_jax.inference.windows import Windows, centre

SHARE = 32  # tokens in a row for each question that it has room for


def generate_answers(model: Trained, windows: Windows) -> list[int | None]:
    """The class that the model names in words for each window's middle crop, None where it names none.

    What all answers of a task begin with, such as the bracket before a letter, is given to the model.
    """
    task, prompt = windows.task, prompts.prompt(windows.task)
    answers = list(map(answer_tokens, prompt.answers))
    given = os.path.commonprefix(answers)
    begun = prompt_tokens(prompt.question) + given

    def make(number):
        record, begin = windows[number], centre(task, windows.samples[number])
        return Question(record.samples[:, begin : begin + task.seconds * RATE], record.electrodes, begun)

    sizes = [Size(int(channels) * task.seconds, len(begun)) for channels in windows.channels]
    texts = generate(model, sizes, make, max(map(len, answers)) - len(given))
    return [read_answer(prompt, vocabulary.decode(given) + text) for text in texts]


def generate(model: Trained, sizes: Sequence[Size], make: Callable[[int], Question], tokens: int) -> list[str]:
    """Greedy continuation of each question by ``tokens`` tokens at most, cut at the end of text."""
    rows = QuestionRows(sizes, make, model.stage.row_size(max(1, model.stage.config.row_length // SHARE)))
    found: list = [""] * len(sizes)
    row = 0
    greedy = _compiled(model.stage, tokens)
    for said in over_rows(greedy, model, rows, fill_questions([], rows.size), rows.size.tokens):
        for line in said[: len(rows) - row]:
            for place, number in enumerate(rows.questions(row)):
                found[number] = text_of(line[place].tolist())
            row += 1
    return found


def text_of(tokens: list[int]) -> str:
    """The words before the end of text."""
    end = tokens.index(vocabulary.END_OF_TEXT) if vocabulary.END_OF_TEXT in tokens else len(tokens)
    return vocabulary.decode(tokens[:end])


def read_answer(prompt: Prompt, text: str) -> int | None:
    """Place of the answer that a text is, None if it is none of them: unreadable."""
    answers = [answer.strip() for answer in prompt.answers]
    return answers.index(text.strip()) if text.strip() in answers else None


@functools.lru_cache(maxsize=16)
def _compiled(stage, new_tokens):
    def greedy(weights, rows):
        """Tokens [B, Q, new_tokens], of the branches [B, Q]."""
        branches = rows["branches"]
        batch, count = branches["tokens"].shape
        length = rows["mixed"]["tokens"].shape[1]
        cache = stage.read(weights, rows, room=count * new_tokens)
        classes = stage.classes(weights)[: vocabulary.END_OF_TEXT + 1]
        # Token k of every branch lies at length + k * count; at first each branch sees its question alone.
        visible = seen(branches, length)[:, :, :length]
        visible = jnp.concatenate([visible, jnp.zeros((batch, count, count * new_tokens), bool)], axis=2)
        own = jnp.eye(count, dtype=bool)[None].repeat(batch, axis=0)

        def step(carry, k):
            tokens, cache, visible = carry
            place = length + k * count
            visible = jax.lax.dynamic_update_slice_in_dim(visible, own, place, axis=2)
            hidden, cache = stage.go_on(weights, tokens, branches["position"] + k, visible, cache, place)
            chosen = (hidden @ classes.T.astype(hidden.dtype)).argmax(-1).astype(jnp.int32)
            return (chosen, cache, visible), chosen

        first = branches["tokens"], cache, visible
        return jnp.moveaxis(jax.lax.scan(step, first, jnp.arange(new_tokens))[1], 0, 2)

    return jax.jit(greedy)
