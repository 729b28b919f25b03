"""The numbers of a run: read back, and made from what steps measure."""

import contextlib
import pathlib
import time
from collections.abc import Iterator

import jax
import numpy as np

from neurolm_jax.models.losses import Mean
from neurolm_jax.models.quantizer import rank, used_and_perplexity
from neurolm_jax.training import lines

FILE = "metrics.jsonl"


def read(workdir: str | pathlib.Path) -> list[dict]:
    """The lines of a run's ``metrics.jsonl``, [] if there is none; a half-written last line is left out."""
    return lines.read(pathlib.Path(workdir) / FILE)


def scalars(metrics: dict[str, Mean | jax.Array]) -> dict[str, float]:
    """Return a step's metrics as numbers; code counts become the used fraction and perplexity, moments a rank."""
    metrics = {key: x.value if isinstance(x, Mean) else x for key, x in jax.device_get(metrics).items()}
    counts = metrics.pop("code_counts", None)
    if counts is not None:
        used, perplexity = used_and_perplexity(counts)
        metrics |= {"codes_used": used, "codes_perplexity": perplexity}
    if "code_vector_moments" in metrics:
        metrics["code_vector_rank"] = rank(metrics.pop("code_vector_moments"))
    return {key: float(value) for key, value in metrics.items()}


def total(batches: list):
    """Means and counts of several batches (trees of one structure), added up."""
    return jax.tree.map(lambda *x: np.sum(x, axis=0), *jax.device_get(batches))


def count_tokens(batch) -> int:
    """Tokens of a batch that are not padding, EEG and text."""
    if "dialogues" in batch:
        valid = int((batch["dialogues"]["mixed"]["segment"] > 0).sum())
    else:
        valid = int((batch["eeg"]["segment"] > 0).sum()) if "eeg" in batch else 0
    return valid + (batch["text"][:, 1:].size if "text" in batch else 0)


class Clock:
    """Time in steps since the last reading, and the share of it in which nothing was computed for want of data."""

    def __init__(self):
        self._reset()

    def batch(self, waited: float, tokens: int, idle: bool) -> None:
        """``idle``: the step before was done when the batch came; else it was being computed all the while."""
        self._waited += waited * idle
        self._tokens += tokens

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A block whose time is not that of steps, such as a validation; what was computed before has to be done."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - begin

    def read(self) -> dict[str, float]:
        seconds = time.perf_counter() - self._begin - self._paused
        found = {"tokens_per_second": self._tokens / seconds, "data_wait": self._waited / seconds}
        self._reset()
        return found

    def _reset(self):
        self._begin, self._paused, self._waited, self._tokens = time.perf_counter(), 0.0, 0.0, 0
