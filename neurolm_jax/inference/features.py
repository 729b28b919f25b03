"""The frozen encoder's view of a task's windows: features for a linear probe, and how often each code occurs."""

import functools

import jax
import numpy as np

from neurolm_jax.data.dialogues import RowSize, fill_dialogues
from neurolm_jax.data.streams import stack
from neurolm_jax.inference.scoring import dialogue_size
from neurolm_jax.inference.windows import LabelledWindows, centred

BATCH = 64  # windows


def encode_windows(windows: LabelledWindows, stage, weights) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, S * C * W] and codes [N, S * C] of every window's middle crop."""
    dialogues = [centred(windows.task, record) for record in windows.records]
    size = RowSize(*np.max([dialogue_size(d) for d in dialogues], axis=0).tolist())
    encode = _compiled(stage)
    features, codes = [], []
    for first in range(0, len(dialogues), BATCH):
        part = dialogues[first : first + BATCH]
        rows = [fill_dialogues([d], size)["eeg"] for d in part + part[-1:] * (BATCH - len(part))]
        found = encode(weights.extra, stack(rows))
        features.append(np.asarray(found[0]).reshape(BATCH, -1)[: len(part)])
        codes.append(np.asarray(found[1])[: len(part)])
    return np.concatenate(features), np.concatenate(codes)


@functools.lru_cache(maxsize=4)
def _compiled(stage):
    return jax.jit(stage.encode)
