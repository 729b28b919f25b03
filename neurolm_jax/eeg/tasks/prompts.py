"""A task's question in words, as the released models were taught it (paper, section 2.4), and other ways to ask it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neurolm_jax.eeg.tasks.base import Task

SEED = 0  # of the variants' options


class Prompt(NamedTuple):
    """question: up to and including "Answer:"; answers: of each class, with a leading space."""

    question: str
    answers: tuple[str, ...]


def prompt(task: Task, wording: int = 0, order: Sequence[int] | np.ndarray | None = None) -> Prompt:
    """The task's question.

    Args:
      wording: 0 for the task's own, k for its k-th other one.
      order: of lettered options, the classes in the order in which they are offered; by default as they stand.
    """
    stem = (task.question, *task.wordings)[wording]
    words = list(task.answers.values())
    if not task.lettered:
        return Prompt(free_prompt(stem), tuple(f" {word}" for word in words))
    order = range(len(words)) if order is None else order
    options = " ".join(f"({chr(ord('A') + place)}) {words[k]}." for place, k in enumerate(order))
    letters = [f" ({chr(ord('A') + place)})" for place in np.argsort(order)]
    return Prompt(free_prompt(f"{stem} Options: {options}"), tuple(letters))


def free_prompt(question: str) -> str:
    """A question of the user's own, in the form the model knows."""
    return f"Question: {question.strip()} Answer:"


def stem_of(question: str) -> str:
    """A question without its frame and options."""
    return question.strip().removeprefix("Question:").removesuffix("Answer:").split("Options:")[0].strip()


def draw(task: Task, rng: np.random.Generator, reworded: bool = True) -> Prompt:
    """The task's options in any order; ``reworded``: in any of its wordings."""
    order = rng.permutation(len(task.answers)) if task.lettered else None
    return prompt(task, int(rng.integers(1 + len(task.wordings))) if reworded else 0, order)


def variants(task: Task) -> list[Prompt]:
    """The task's own prompt, then every other wording; options are shuffled in all but the first, and a task without
    other wordings is asked a second time with shuffled options. The same in every run."""
    rng = np.random.default_rng(SEED)
    others = range(1, 1 + len(task.wordings)) if task.wordings else [0] if task.lettered else []
    orders = (rng.permutation(len(task.answers)) if task.lettered else None for _ in others)
    return [prompt(task), *(prompt(task, wording, order) for wording, order in zip(others, orders))]
