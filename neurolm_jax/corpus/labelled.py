"""A downstream task's windows and recordings as shards, split by split, one recording in memory at a time."""

import contextlib
import dataclasses
import pathlib
import time

import numpy as np

from neurolm_jax.corpus.excluded import NOTHING, Excluded
from neurolm_jax.corpus.parts import entry
from neurolm_jax.corpus.recording import PIECE
from neurolm_jax.data import shards
from neurolm_jax.eeg.identity import middle, recording_hash
from neurolm_jax.eeg.opening import opened_from
from neurolm_jax.eeg.preprocessing import RATE, Signal, choose_channels, known_channels, preprocess
from neurolm_jax.eeg.records import Record, encode
from neurolm_jax.eeg.tasks import Opened, Recording, Task
from neurolm_jax.eeg.tasks.base import SPLITS, Window
from neurolm_jax.eeg.tasks.readers import duration_of, foreign_bytes, read_raw
from neurolm_jax.eeg.tasks.splits import assign
from neurolm_jax.errors import UserError
from neurolm_jax.escaping import escape_all
from neurolm_jax.outputs import appearing_folder


def write_task(
    task: Task,
    path: pathlib.Path,
    out: pathlib.Path,
    way: str = "published",
    seed: int = 0,
    skip_faulty: bool = False,
    without: Excluded = NOTHING,
) -> None:
    """``out/windows/{train,validation,test}`` and ``out/recordings/{train,validation}`` from the files under path.

    Args:
      way, seed: of the split, see ``splits.assign``; both are in the manifests, but no seed of ``official``, which has
        no choice.
      skip_faulty: leave a recording out, with its reason in the manifest, where otherwise its fault ends the work.
      without: what must not be learnt from, since another set tests on it: such recordings of the training and
        validation parts are left out.

    Raises:
      UserError: naming the file that is missing or wrong; a split that is not possible; no window at all.
    """
    from tqdm import tqdm

    begin = time.perf_counter()
    recordings = list(task.recordings(path))
    split_of = assign(task, recordings, way, seed)
    cohort = task.cohort or task.name
    warnings = without.incomparable((cohort, recording.subject) for recording in recordings)
    digests = _Digests()
    with appearing_folder(out) as folder, contextlib.ExitStack() as stack:
        folders = {split: _Folder(folder, split) for split in SPLITS}
        bar = stack.enter_context(tqdm(recordings, unit=" recordings", desc="prepare", disable=None))
        for recording in bar:
            split = split_of[recording.name]
            side = folders[split]
            if recording.left_out:
                side.outcome(recording, reason=recording.left_out)
                continue
            try:
                _write_recording(task, recording, digests, NOTHING if split == "test" else without, side)
            except UserError as error:
                if not skip_faulty:
                    raise UserError(f"{error} (--skip_faulty leaves such a recording out)") from error
                side.outcome(recording, reason=str(error))
        if not any(side.windows for side in folders.values()):
            raise UserError(f"{path}: no labelled window in any of its {len(recordings)} recordings")
        for split, side in folders.items():
            side.finish(
                {
                    "source": task.name,
                    "cohort": cohort,
                    "split": split,
                    "split_by": {"way": way, "seed": None if way == "official" else seed},
                    "preprocessing": dataclasses.asdict(task.preprocessing) | {"rate": RATE, "unit": "microvolt"},
                    "seconds": time.perf_counter() - begin,
                    "warnings": warnings if split == "train" else [],
                }
            )


class _Folder:
    """The windows and recordings of one split."""

    def __init__(self, folder: pathlib.Path, split: str):
        self._writers = {"task": shards.FolderWriter(folder / "windows" / split)}
        if split != "test":
            self._writers["eeg"] = shards.FolderWriter(folder / "recordings" / split)
        self._outcomes: list[dict] = []
        self.windows = 0

    def outcome(self, recording: Recording, became="skipped", reason: str | None = None, hours=0.0, **read):
        """What became of a recording; returns its number."""
        known = {"hash": "", "file_hashes": [], "rate": None, "channels": []} | read
        told = {"name": recording.name, "subject": recording.subject, "outcome": became, "reason": reason}
        self._outcomes.append(escape_all(told | known | {"hours": hours}))
        return len(self._outcomes) - 1

    def write(self, kind: str, record: Record, number: int) -> None:
        self.windows += kind == "task"
        if kind in self._writers:
            fields = entry(record) | {"recording": number, "label": record.label}
            self._writers[kind].write(encode(record), fields)

    def finish(self, fields: dict) -> None:
        hours = sum(outcome["hours"] for outcome in self._outcomes)
        for kind, writer in self._writers.items():
            writer.finish({"kind": kind} | fields | {"hours": hours, "recordings": self._outcomes})


class _Digests:
    """Hashes of what was read: of recordings, and of the files that they are taken from."""

    def __init__(self):
        self.seen: dict[str, str] = {}
        self._files: dict[tuple, str] = {}

    def of_files(self, recording: Recording, opened: Opened, digest: str) -> list[str]:
        """Of the files as ``prepare eeg`` would read them, whatever the task has done to its samples; [] where that is
        the recording's own ``digest``. What cannot be read as it is, cannot get into a corpus either."""
        raw, _, whole = opened
        if whole is not None:
            return [self._of(whole)]
        found = [self._of(raw)] if recording.span else []
        for file in opened_from(raw):
            with contextlib.suppress(UserError):
                unchanged = read_raw(file)
                with foreign_bytes(file):
                    if recording.span or not _same(raw, unchanged):
                        found.append(self._of(unchanged))
        return sorted({*found} - {digest, ""})

    def _of(self, raw):
        """Of a file's, but once."""
        if not all(raw.filenames):  # in memory: nothing tells it from another
            return recording_hash(raw)
        key = raw.filenames, tuple(choose_channels(raw)[0]), raw.n_times
        if key not in self._files:
            self._files[key] = recording_hash(raw)
        return self._files[key]


def _same(raw, other) -> bool:
    """Whether two have one hash, as far as their channels and the middle of their samples tell."""
    names = list(choose_channels(raw)[0])
    if raw.n_times != other.n_times or names != list(choose_channels(other)[0]):
        return False
    first, second = (r.get_data(names, *middle(r), verbose="error") if names else None for r in (raw, other))
    return np.array_equal(first, second, equal_nan=True) if names else True


def _write_recording(task, recording, digests, without, side):
    opened = recording.open()
    raw, windows = opened.raw, opened.windows
    rate, channels = float(raw.info["sfreq"]), known_channels(raw, task.channels)
    if task.rates and rate not in task.rates:
        wanted = " or ".join(f"{value:g}" for value in task.rates)
        raise UserError(f"{recording.name}: sampled at {rate:g} Hz; the recordings of {task.name} have {wanted} Hz")
    begin, end = recording.span or (0.0, duration_of(raw))
    for window in windows:
        _check_window(task, recording, window, begin, end)
    if not windows:
        raise UserError(f"{recording.name}: too short, {end - begin:.1f} s; a window of {task.name} has {task.seconds}")
    with foreign_bytes(recording.name):
        digest = recording_hash(raw, round(begin * rate), round(end * rate))
        files = digests.of_files(recording, opened, digest)
        read = {"hash": digest, "file_hashes": files, "rate": rate, "channels": list(channels)}
        raw = raw.copy().pick(list(channels), verbose="error").load_data(verbose="error") if channels else raw
    if digest and digest in digests.seen:
        side.outcome(recording, reason=f"a copy of {digests.seen[digest]}", **read)
        return
    if reason := without.reason(task.cohort or task.name, recording.subject, digest, *files):
        side.outcome(recording, "excluded", reason, **read)
        return
    signal = preprocess(raw, task.preprocessing, recording.name, task.channels)
    records = [labelled_record(task, recording, signal, window) for window in windows]
    digests.seen[digest] = recording.name
    number = side.outcome(recording, "used", hours=(end - begin) / 3600, **read)
    for record in records:
        side.write("task", record, number)
    first, last = (round(second * RATE) for second in (begin, end))
    last = min(last, signal.samples.shape[1])
    for start in range(first, last, PIECE * RATE):
        side.write("eeg", _record(task, recording, signal, start, min(start + PIECE * RATE, last)), number)


def _check_window(task, recording, window, begin, end):
    if window.label not in task.answers:
        known = ", ".join(task.answers)
        raise UserError(f"{recording.name}: label {window.label!r} at {window.onset:g} s is none of {known}")
    if not window.duration * RATE >= task.seconds * RATE - 0.5:
        raise UserError(
            f"{recording.name}: a window of {window.duration:g} s at {window.onset:g} s; {task.name} asks about"
            f" {task.seconds} s"
        )
    tolerance = 1 / RATE
    if not begin - tolerance <= window.onset <= window.onset + window.duration <= end + tolerance:  # nor NaN
        raise UserError(
            f"{recording.name}: its labels want seconds {window.onset:g} to {window.onset + window.duration:g},"
            f" it has {begin:g} to {end:g}"
        )


def labelled_record(task: Task, recording: Recording, signal: Signal, window: Window) -> Record:
    """A window of a prepared signal, told from its baseline where the task says so."""
    # The whole window even where its edges lie between samples.
    length = round(window.duration * RATE)
    begin = min(round(window.onset * RATE), signal.samples.shape[1] - length)
    if begin < 0:
        raise UserError(f"{recording.name}: too short for its window of {window.duration:g} s")
    record = _record(task, recording, signal, begin, begin + length, window.label)
    return dataclasses.replace(record, samples=from_baseline(task, record.samples))


def from_baseline(task: Task, samples: np.ndarray) -> np.ndarray:
    """A window's samples [C, N] minus the mean of each channel's first ``task.baseline`` seconds."""
    if not task.baseline:
        return samples
    return samples - samples[:, : round(task.baseline * RATE)].mean(axis=1, keepdims=True)


def _record(task, recording, signal, begin, stop, label=None):
    return Record(
        samples=signal.samples[:, begin:stop],
        electrodes=signal.electrodes,
        source=task.name,
        recording=recording.name,
        subject=recording.subject,
        start=begin / RATE,
        label=label,
    )
