"""The frozen encoder's view of a task's windows: features for a linear probe, and how often each code occurs."""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from neurolm_jax.data.dialogues import crop
from neurolm_jax.inference.model import Trained, over_rows
from neurolm_jax.inference.questions import Question, QuestionRows, Size, row_size
from neurolm_jax.inference.windows import Windows, middle

LARGEST = 4096  # numbers of a window that a probe reads one by one


def all_alike(model: Trained, *parts: Windows) -> bool:
    """Whether the windows of all parts have the same electrodes, and so few features that each can be told apart."""
    width = model.stage.tokenizer_config.encoder.width
    montages = {montage for windows in parts for montage in windows.montages.tolist()}
    largest = max(int(windows.channels.max()) * windows.task.seconds * width for windows in parts if len(windows))
    return len(montages) == 1 and largest <= LARGEST


def encode_windows(
    model: Trained, windows: Windows, whole: bool, among: Sequence[Size] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Features of every window's middle crop, and how often each code occurs in them, [K].

    Features [N, F]: all of a window's S * C * W if ``whole``, which makes sense for windows that are ``all_alike``,
    otherwise mean and deviation of each of the W dimensions over its tokens.
    """
    task = windows.task

    def make(number):
        record, begin = middle(windows, number)
        return Question(crop(task, record, begin), record.electrodes, [0])

    sizes = [Size(int(channels) * task.seconds, 1) for channels in windows.channels]
    among = [Size(size.eeg, 1) for size in among]
    rows = QuestionRows(sizes, make, row_size(model.stage, sizes, among))
    found: list = [None] * len(windows)
    counts = np.zeros(model.stage.tokenizer_config.codes, int)
    for row, (features, codes) in enumerate(over_rows(_compiled(model.stage), model, rows, rows.size.eeg)):
        stop = 0
        for number in rows.questions(row):
            here = slice(stop, stop := stop + sizes[number].eeg)
            tokens = np.asarray(features[here], np.float32)
            found[number] = tokens.ravel() if whole else np.concatenate([tokens.mean(0), tokens.std(0)])
            counts += np.bincount(codes[here], minlength=len(counts))
    return np.stack(found), counts


@functools.lru_cache(maxsize=4)
def _compiled(stage):
    return jax.jit(lambda weights, rows: stage.encode(weights.extra, rows["eeg"]))
