"""Where the numbers of a run go: metrics.jsonl, TensorBoard, the progress bar."""

import json
import math
import pathlib
import time

import jax
import numpy as np

from neurolm_jax.models.losses import Mean
from neurolm_jax.models.quantizer import used_and_perplexity
from neurolm_jax.outputs import appearing_file


class Writer:
    """Appends to ``metrics.jsonl`` and TensorBoard's event files; on resuming, later lines are dropped.

    Of several processes the first alone writes.
    """

    def __init__(self, workdir: pathlib.Path, stage: str, step: int):
        self._stage = stage
        self._file = workdir / "metrics.jsonl"
        kept = [line for line in read(workdir) if line["step"] <= step]
        self.seconds = max((line["seconds"] for line in kept), default=0.0)  # that earlier starts of this run took
        self._board = None
        if jax.process_index():
            return
        with appearing_file(self._file) as file:
            file.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._board = _Events(workdir / "tensorboard", step + 1)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        if self._board is None:
            return
        scalars = {key: value for key, value in scalars.items() if math.isfinite(value)}  # JSON has no others
        line = {"step": step, "stage": self._stage, **{key: float(value) for key, value in scalars.items()}}
        with self._file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._board.write(step, {f"{self._stage}/{key}": value for key, value in scalars.items()})

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


class _Events:
    """TensorBoard's file, written here and now: its usual writer's thread hides that a disk is full, and then hangs.

    Args:
      step: from which on older files of the folder no longer count.
    """

    def __init__(self, folder: pathlib.Path, step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        folder.mkdir(parents=True, exist_ok=True)
        self._writer, self._event = EventsWriter(str(folder / "events")), event_pb2.Event
        restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(self._event(step=step, session_log=restart))

    def write(self, step: int, scalars: dict[str, float]) -> None:
        from tensorboardX.proto import summary_pb2

        values = [summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._add(self._event(step=step, summary=summary_pb2.Summary(value=values)))

    def close(self) -> None:
        self._writer.close()

    def _add(self, event):
        event.wall_time = time.time()
        self._writer.write_event(event)
        self._writer.flush()


def read(workdir: str | pathlib.Path) -> list[dict]:
    """The lines of a run's ``metrics.jsonl``, [] if there is none; a half-written last line is left out."""
    file = pathlib.Path(workdir) / "metrics.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]


def scalars(metrics: dict[str, Mean | jax.Array]) -> dict[str, float]:
    """Metrics of a step as numbers; code counts become the used fraction and the perplexity."""
    metrics = {key: x.value if isinstance(x, Mean) else x for key, x in jax.device_get(metrics).items()}
    counts = metrics.pop("code_counts", None)
    if counts is not None:
        used, perplexity = used_and_perplexity(counts)
        metrics |= {"codes_used": used, "codes_perplexity": perplexity}
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
    """Time since the last reading, and the share of it spent waiting for data."""

    def __init__(self):
        self._begin, self._waited, self._tokens = time.perf_counter(), 0.0, 0

    def batch(self, waited: float, tokens: int) -> None:
        self._waited += waited
        self._tokens += tokens

    def read(self) -> dict[str, float]:
        seconds = time.perf_counter() - self._begin
        found = {"tokens_per_second": self._tokens / seconds, "data_wait": self._waited / seconds}
        self._begin, self._waited, self._tokens = time.perf_counter(), 0.0, 0
        return found
