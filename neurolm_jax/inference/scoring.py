"""A probability for every allowed answer."""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from neurolm_jax.data.dialogues import Dialogue, RowSize, dialogue, fill_dialogues
from neurolm_jax.data.packing import RowPlan
from neurolm_jax.data.streams import stack
from neurolm_jax.inference.windows import LabelledWindows, crops
from neurolm_jax.models.losses import target_log_probabilities
from neurolm_jax.stages.instruct import InstructStage


def answer_probabilities(stage: InstructStage, weights, windows: LabelledWindows) -> np.ndarray:
    """Probability of each of the task's answers: [N, answers], rows sum to 1.

    An answer's probability is that of all its tokens, the end of text included, normalised over the allowed answers
    and averaged over the window's crops.
    """
    task = windows.task
    questions, owner = [], []
    for i, record in enumerate(windows.records):
        for begin in crops(task, record):
            owner.append(i)
            questions += [dialogue(task, record, begin, label) for label in task.answers]
    scores = answer_log_probabilities(stage, weights, questions).reshape(len(owner), -1)  # [crops, answers]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    total = np.zeros((len(windows.records), scores.shape[1]))
    np.add.at(total, owner, scores)
    return total / total.sum(axis=1, keepdims=True)


def answer_log_probabilities(stage: InstructStage, weights, dialogues: Sequence[Dialogue]) -> np.ndarray:
    """Log probability of each dialogue's answer: [N]. Dialogues are packed as in training."""
    c = stage.config
    size = RowSize(c.eeg_length, c.row_length, c.answer_length)
    sizes = [dialogue_size(d) for d in dialogues]
    plan = RowPlan(np.array(sizes), (size.eeg, size.tokens, size.answers), None)
    rows = [plan.row(i)[1] for i in range(len(plan))]
    score = _compiled(stage)
    found = np.zeros(len(dialogues))
    for first in range(0, len(rows), c.batch_size):
        part = rows[first : first + c.batch_size]
        filled = [fill_dialogues([dialogues[i] for i in row], size) for row in part]
        filled += [fill_dialogues([], size)] * (c.batch_size - len(part))
        scores = np.asarray(score(weights, stack(filled)))  # [B, A]
        for row, line in zip(part, scores):
            ends = np.cumsum([len(dialogues[i].answer) for i in row])
            found[row] = [line[end - len(dialogues[i].answer) : end].sum() for i, end in zip(row, ends)]
    return found


def dialogue_size(d: Dialogue) -> tuple[int, int, int]:
    """EEG tokens, all tokens, answer tokens."""
    eeg = d.samples.size // 200
    return eeg, eeg + len(d.prompt) + len(d.answer), len(d.answer)


@functools.lru_cache(maxsize=4)
def _compiled(stage):
    def score(weights, dialogues):
        hidden = stage.answer_hidden(weights, dialogues, jax.random.key(0), train=False)
        classes, targets = weights.params["language"]["output"], dialogues["mixed"]["answer_target"]
        scores = target_log_probabilities(hidden.reshape(-1, hidden.shape[-1]), classes, targets.reshape(-1))
        return scores.reshape(targets.shape)

    return jax.jit(score)
