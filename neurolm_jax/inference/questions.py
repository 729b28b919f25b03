"""Rows of open questions, read once; what is said after each is a branch that grows from its end.

A row is packed as in training, but every question ends before its last token. A branch starts with that token, so that
all that is predicted after a question is predicted from branches: an allowed answer each when answers are scored, the
words so far when text is generated.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from neurolm_jax.data.dialogues import NO_TARGET, Dialogue, RowSize, fill_dialogues
from neurolm_jax.data.packing import RowPlan
from neurolm_jax.stages.instruct import InstructStage

ROOM = 2  # of the largest question's needs, in a row
MOST = 8  # questions in a row: their branches cost little beside what is read


@dataclasses.dataclass(frozen=True)
class Question:
    """samples [C, S * 200] microvolts; prompt: [SEP] and question; answers: allowed ones, () where any text will do."""

    samples: np.ndarray
    electrodes: tuple[int, ...]
    prompt: list[int]
    answers: tuple[list[int], ...] = ()


@dataclasses.dataclass(frozen=True)
class Size:
    """Of a question, before its samples are read: EEG tokens, prompt tokens, and tokens of each answer.

    A question without answers has one branch of a single token.
    """

    eeg: int
    prompt: int
    answers: tuple[int, ...] = (1,)


def row_size(stage: InstructStage, sizes: Sequence[Size], among: Sequence[Size] = ()) -> RowSize:
    """A row for questions of these sizes: no longer than ``ROOM`` of the largest need, as attention grows with the
    square of a row.

    ``among``: sizes of other questions that the same compiled program is to serve.
    """
    needs = np.array(sorted({_needs(s) for s in (*sizes, *among)}))
    eeg, tokens, answers, _ = needs.max(axis=0).tolist()
    if stage.alone:
        length = max(eeg, stage.config.eeg_length), max(tokens, stage.config.row_length)
        return RowSize(*length, answers, 1, stage.literal_names)
    eeg, tokens = ROOM * eeg, ROOM * tokens
    fit = np.minimum(MOST, np.minimum(eeg // needs[:, 0], tokens // needs[:, 1]))
    return RowSize(eeg, tokens, int((fit * needs[:, 2]).max()), int(fit.max()), stage.literal_names)


class QuestionRows:
    """Rows [i], of a size, of questions that ``make`` makes by their number."""

    def __init__(self, sizes: Sequence[Size], make: Callable[[int], Question], size: RowSize):
        self.size, self._make = size, make
        self._plan = RowPlan(np.array([_needs(s) for s in sizes]), size.capacity, None)

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> dict:
        return fill_questions([self._make(i) for i in self.questions(index)], self.size)

    def empty(self) -> dict:
        return fill_questions([], self.size)

    def questions(self, index: int) -> list[int]:
        """Numbers of the questions in a row."""
        return self._plan.row(index)[1]


def fill_questions(questions: Sequence[Question], size: RowSize) -> dict:
    """One row: ``eeg`` and ``mixed`` as of ``fill_dialogues``, and ``branches``, int32 [Q] each, Q = size.answers.

    tokens, position; branch: number of the branch, 0 for padding; first, stop: the places in the row that it goes on
    from; target: the token to predict, -1 for none.
    """
    row = fill_dialogues([Dialogue(q.samples, q.electrodes, q.prompt[:-1], []) for q in questions], size)
    branches = {key: np.zeros(size.answers, np.int32) for key in ("tokens", "position", "branch", "first", "stop")}
    branches["target"] = np.full(size.answers, NO_TARGET, np.int32)
    place = number = stop = 0
    for question in questions:
        first, stop = stop, stop + question.samples.size // 200 + len(question.prompt) - 1
        for answer in question.answers or ([],):
            said = question.prompt[-1:] + answer[:-1]
            here = slice(place, place + len(said))
            place, number = here.stop, number + 1
            branches["tokens"][here] = said
            branches["target"][here] = answer or NO_TARGET
            branches["position"][here] = row["mixed"]["position"][stop - 1] + 1 + np.arange(len(said))
            branches["branch"][here] = number
            branches["first"][here], branches["stop"][here] = first, stop
    row["mixed"] = {key: row["mixed"][key] for key in ("eeg_index", "tokens", "position", "second", "segment")}
    return row | {"branches": branches}


def _needs(size: Size) -> tuple[int, int, int, int]:
    return size.eeg, size.eeg + size.prompt - 1, sum(size.answers), 1
