"""The frozen encoder's view of a task's windows: features for a linear probe, and how often each code occurs."""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from neurolm_jax.data.dialogues import crop
from neurolm_jax.inference.model import Trained, over_rows
from neurolm_jax.inference.pooling import least_pool, pooled
from neurolm_jax.inference.questions import Question, QuestionRows, Size, row_size
from neurolm_jax.inference.windows import Windows, middle


def pooling(model: Trained, *parts: Windows) -> str:
    """How far the features of all parts' windows are averaged for a probe; the least that leaves it few enough numbers.

    "none" and "channel" want the same electrodes in all windows; see ``pooled``.
    """
    width = model.stage.tokenizer_config.encoder.width
    montages = {montage for windows in parts for montage in windows.montages.tolist()}
    if len(montages) > 1:
        return "window"
    electrodes = max(int(windows.channels.max()) for windows in parts if len(windows))
    seconds = max(windows.task.seconds for windows in parts)
    return least_pool(electrodes, seconds, width)


def encode_windows(
    model: Trained, windows: Windows, pool: str, among: Sequence[Size] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Features of every window's middle crop, and how often each code occurs in them, [K].

    Features [N, F]: of each window what ``pooled`` leaves, in one row. See ``pooling``.
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
            tokens = tokens.reshape(task.seconds, int(windows.channels[number]), -1)
            found[number] = pooled(tokens, pool).ravel()
            counts += np.bincount(codes[here], minlength=len(counts))
    return np.stack(found), counts


@functools.lru_cache(maxsize=4)
def _compiled(stage):
    return jax.jit(lambda weights, rows: stage.encode(weights.extra, rows["eeg"]))
