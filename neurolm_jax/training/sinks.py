"""Where the numbers of a run go: metrics.jsonl, TensorBoard and, if asked, Weights & Biases."""

import importlib.util
import json
import math
import pathlib
import time

import jax
from ml_collections import ConfigDict

from neurolm_jax.errors import UserError
from neurolm_jax.outputs import write_json
from neurolm_jax.training import lines, metrics


def check(config: ConfigDict) -> None:
    """Refuse a sink that cannot be used here.

    Raises:
      UserError: naming what to install.
    """
    if config.get("wandb") and importlib.util.find_spec("wandb") is None:
        raise UserError("config.wandb: Weights & Biases is not installed: pip install wandb")


class Writer:
    """Writes to all sinks; on resuming, later lines of ``metrics.jsonl`` are dropped.

    Of several processes the first alone writes.
    """

    def __init__(self, workdir: pathlib.Path, config: ConfigDict, step: int):
        self._stage = config.stage
        self._file = workdir / metrics.FILE
        kept = [line for line in metrics.read(workdir) if line["step"] <= step]
        self.seconds = max((line["seconds"] for line in kept), default=0.0)  # that earlier starts of this run took
        self._others: list[_Events | _WeightsAndBiases] = []
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        if config.wandb:  # first, since it may refuse
            self._others.append(_WeightsAndBiases(workdir, config))
        lines.rewrite(self._file, kept)
        self._others.append(_Events(workdir / "tensorboard", step + 1))

    def write(self, step: int, scalars: dict[str, float]) -> None:
        if not self._writes:
            return
        scalars = {key: float(value) for key, value in scalars.items() if math.isfinite(value)}  # JSON has no others
        lines.append(self._file, {"step": step, "stage": self._stage, **scalars})
        for sink in self._others:
            sink.write(step, {f"{self._stage}/{key}": value for key, value in scalars.items()})

    def close(self) -> None:
        for sink in self._others:
            sink.close()


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


class _WeightsAndBiases:
    """One run there for a workdir, however often it is started; WANDB_MODE and its like are heeded.

    What was sent cannot be taken back, so steps that are taken once more are left out: wandb.json remembers the last.
    """

    def __init__(self, workdir: pathlib.Path, config: ConfigDict):
        import wandb

        self._file = workdir / "wandb.json"
        self._known = json.loads(self._file.read_text()) if self._file.exists() else {"id": None, "step": 0}
        quiet = wandb.Settings(console="off", silent=True, disable_code=True, disable_git=True)
        options = {"id": self._known["id"], "resume": "allow"} if self._known["id"] else {}
        try:
            self._run = wandb.init(
                project=config.wandb,
                name="/".join(workdir.absolute().parts[-2:]),
                config=config.to_dict(),
                dir=workdir,
                settings=quiet,
                **options,
            )
        except wandb.Error as error:
            raise UserError(f"config.wandb: {error}; WANDB_MODE=offline keeps it all in {workdir / 'wandb'}") from error
        self._remember(self._known["step"])

    def write(self, step: int, scalars: dict[str, float]) -> None:
        if step > self._known["step"]:
            self._run.log(scalars, step=step)
            self._remember(step)

    def close(self) -> None:
        self._run.finish()

    def _remember(self, step):
        self._known = {"id": self._run.id, "step": step}
        write_json(self._file, self._known)
