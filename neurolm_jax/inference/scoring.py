"""A probability for every allowed answer: one pass over EEG and question, from which all answers go on."""

import functools
import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from neurolm_jax.data.dialogues import answer_tokens, crop, prompt_tokens
from neurolm_jax.eeg.records import Record
from neurolm_jax.eeg.tasks import Task, prompts
from neurolm_jax.eeg.tasks.prompts import Prompt
from neurolm_jax.inference.model import Trained, over_rows
from neurolm_jax.inference.questions import Question, QuestionRows, Size, row_size
from neurolm_jax.inference.windows import Windows, crops
from neurolm_jax.models.losses import target_log_probabilities


def answer_probabilities(
    model: Trained, windows: Windows, prompt: Prompt | None = None, among: Sequence[Size] = ()
) -> np.ndarray:
    """Probability of each of the task's answers: [N, answers], rows sum to 1.

    An answer's probability is that of all its tokens, the end of text included, normalised over the allowed answers
    and averaged over the window's crops.

    Args:
      prompt: the task's own if None.
      among: see ``questions.row_size``.
    """
    prompt = prompt or prompts.prompt(windows.task)
    shapes = windows.channels, windows.samples
    return probabilities_of(model, windows.task, prompt, *shapes, windows.__getitem__, among)


def probabilities_of(
    model: Trained,
    task: Task,
    prompt: Prompt,
    channels: Sequence[int] | np.ndarray,
    samples: Sequence[int] | np.ndarray,
    record: Callable[[int], Record],
    among: Sequence[Size] = (),
) -> np.ndarray:
    """The same for windows of so many channels and samples each, which ``record`` gives by their number."""
    places = [(i, int(begin)) for i, count in enumerate(samples) for begin in crops(task, int(count))]
    sizes = [question_size(task, prompt, int(channels[i])) for i, _ in places]

    def make(number):
        i, begin = places[number]
        return question(task, prompt, record(i), begin)

    scores = np.array(answer_scores(model, sizes, make, among))  # [crops, answers]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    total = np.zeros((len(samples), scores.shape[1]))
    np.add.at(total, [i for i, _ in places], scores)
    return total / total.sum(axis=1, keepdims=True)


def question(task: Task, prompt: Prompt, record: Record, begin: int) -> Question:
    """A task's question about a window's crop from sample ``begin`` on.

    What all answers begin with, such as the bracket before a letter, is a part of the question.
    """
    return Question(crop(task, record, begin), record.electrodes, *asked(prompt))


def question_size(task: Task, prompt: Prompt, channels: int) -> Size:
    """Of such a question about so many channels."""
    tokens, answers = asked(prompt)
    return Size(channels * task.seconds, len(tokens), tuple(map(len, answers)))


@functools.lru_cache(maxsize=1024)
def asked(prompt: Prompt) -> tuple[list[int], tuple[list[int], ...]]:
    """Tokens of the question, with what all answers begin with; and what is left of each answer."""
    answers = [answer_tokens(answer) for answer in prompt.answers]
    given = list(os.path.commonprefix(answers))
    return prompt_tokens(prompt.question) + given, tuple(answer[len(given) :] for answer in answers)


def answer_scores(
    model: Trained, sizes: Sequence[Size], make: Callable[[int], Question], among: Sequence[Size] = ()
) -> list[list[float]]:
    """Log probability of every allowed answer of each question; questions are packed."""
    rows = QuestionRows(sizes, make, row_size(model.stage, sizes, among))
    found: list = [None] * len(sizes)
    for row, scores in enumerate(over_rows(_compiled(model.stage), model, rows, rows.size.tokens)):
        stop = 0
        for number in rows.questions(row):
            stops = stop + np.cumsum(sizes[number].answers)
            found[number] = [float(part.sum()) for part in np.split(scores[stop : stops[-1]], stops[:-1] - stop)]
            stop = int(stops[-1])
    return found


@functools.lru_cache(maxsize=4)
def _compiled(stage):
    def score(weights, rows):
        branches = rows["branches"]
        length = rows["mixed"]["tokens"].shape[1]
        cache = stage.prefill(weights, rows, new_tokens=branches["tokens"].shape[1])
        hidden, _ = stage.decode(
            weights, branches["tokens"], branches["position"], seen(branches, length), cache, length
        )
        return target_log_probabilities(hidden, stage.classes(weights), branches["target"])

    return jax.jit(score)


def seen(branches: dict, length: int) -> jax.Array:
    """Which places each of the Q branch tokens sees: its question among the first ``length``, and its own branch up to
    itself among the Q after them. Bool [B, Q, length + Q]."""
    index = jnp.arange(length)
    question = (index >= branches["first"][..., None]) & (index < branches["stop"][..., None])
    branch = branches["branch"]
    own = (branch[:, :, None] == branch[:, None, :]) & jnp.tri(branch.shape[1], dtype=bool)
    return jnp.concatenate([question, own], axis=2)
