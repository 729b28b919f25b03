"""Answers in words, token by token: EEG and question are read once, then one token a question and step."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from neurolm_jax.data import vocabulary
from neurolm_jax.data.dialogues import prompt_tokens
from neurolm_jax.eeg.tasks import prompts
from neurolm_jax.eeg.tasks.prompts import Prompt
from neurolm_jax.inference.model import Trained, over_rows
from neurolm_jax.inference.questions import Question, QuestionRows, Size, row_size
from neurolm_jax.inference.scoring import asked, question, seen
from neurolm_jax.inference.windows import Windows, middle


def generate_answers(model: Trained, windows: Windows, among: Sequence[Size] = ()) -> list[int | None]:
    """The class that the model names in words for each window's middle crop, None where it names none.

    What all answers of a task begin with is given to the model, as in scoring.
    """
    task, prompt = windows.task, prompts.prompt(windows.task)
    tokens, answers = asked(prompt)
    given = vocabulary.decode(tokens[len(prompt_tokens(prompt.question)) :])

    def make(number):
        return dataclasses.replace(question(task, prompt, *middle(windows, number)), answers=())

    sizes = [Size(int(channels) * task.seconds, len(tokens)) for channels in windows.channels]
    texts = generate(model, sizes, make, max(map(len, answers)), among)
    return [read_answer(prompt, given + text) for text in texts]


def generate(
    model: Trained,
    sizes: Sequence[Size],
    make: Callable[[int], Question],
    tokens: int,
    among: Sequence[Size] = (),
) -> list[str]:
    """Greedy continuation of each question by ``tokens`` tokens at most, cut at the end of text."""
    among = [dataclasses.replace(size, answers=(1,)) for size in among]
    rows = QuestionRows(sizes, make, row_size(model.stage, sizes, among))
    found: list = [""] * len(sizes)
    for row, said in enumerate(over_rows(_compiled(model.stage, tokens), model, rows, rows.size.tokens)):
        for number, branch in zip(rows.questions(row), said):
            found[number] = text_of(branch.tolist())
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
        cache = stage.prefill(weights, rows, new_tokens=count * new_tokens)
        classes = stage.classes(weights)[: vocabulary.END_OF_TEXT + 1]
        # Token k of every branch lies at length + k * count; at first each branch sees its question alone.
        visible = seen(branches, length)[:, :, :length]
        visible = jnp.concatenate([visible, jnp.zeros((batch, count, count * new_tokens), bool)], axis=2)
        own = jnp.eye(count, dtype=bool)[None].repeat(batch, axis=0)

        def step(carry, k):
            tokens, cache, visible = carry
            place = length + k * count
            visible = jax.lax.dynamic_update_slice_in_dim(visible, own, place, axis=2)
            hidden, cache = stage.decode(weights, tokens, branches["position"] + k, visible, cache, place)
            chosen = (hidden @ classes.T.astype(hidden.dtype)).argmax(-1).astype(jnp.int32)
            return (chosen, cache, visible), chosen

        first = branches["tokens"], cache, visible
        return jnp.moveaxis(jax.lax.scan(step, first, jnp.arange(new_tokens))[1], 0, 2)

    return jax.jit(greedy)
