"""A downstream task's windows and recordings as shards, split by split, one recording in memory at a time."""

import collections
import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Mapping

import numpy as np

from neurolm_jax.corpus.excluded import NOTHING, Excluded
from neurolm_jax.corpus.parts import entry
from neurolm_jax.corpus.recording import PIECE, SHORTEST
from neurolm_jax.corpus.task_windows import check_window, cut, labelled_record
from neurolm_jax.data import shards
from neurolm_jax.eeg import quality
from neurolm_jax.eeg.electrodes import VOCABULARY, electrode_id, shared_id
from neurolm_jax.eeg.fingerprint import fingerprint
from neurolm_jax.eeg.identity import middle, recording_hash
from neurolm_jax.eeg.opening import opened_from
from neurolm_jax.eeg.preprocessing import RATE, checked_channels, choose_channels, preprocess
from neurolm_jax.eeg.reading import corrected, dropped_channels, warnings_by_kind
from neurolm_jax.eeg.records import Record, encode
from neurolm_jax.eeg.renaming import rename
from neurolm_jax.eeg.stretches import bounds, middle_sample
from neurolm_jax.eeg.tasks import Opened, Recording, Task
from neurolm_jax.eeg.tasks.base import SPLITS
from neurolm_jax.eeg.tasks.readers import duration_of, foreign_bytes, read_raw
from neurolm_jax.eeg.tasks.splits import assign
from neurolm_jax.eeg.timeline import timeline
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
    renaming: Mapping[str, str] | None = None,
) -> None:
    """``out/windows/{train,validation,test}`` and ``out/recordings/{train,validation}`` from the files under path.

    Args:
      way, seed: of the split, see ``splits.assign``; both are in the manifests, but no seed of ``official``, which has
        no choice.
      skip_faulty: leave a recording out, with its reason in the manifest, where otherwise its fault ends the work.
      without: what must not be learnt from, since another set tests on it: such recordings of the training and
        validation parts are left out.
      renaming: electrodes by the names of channels that do not tell them.

    Raises:
      UserError: naming the file that is missing or wrong; a split that is not possible; no window at all.
    """
    from tqdm import tqdm

    begin = time.perf_counter()
    recordings = list(task.recordings(path))
    split_of = assign(task, recordings, way, seed)
    cohort = task.cohort or task.name
    warnings = without.incomparable((cohort, recording.subject) for recording in recordings)
    digests, renaming = _Digests(renaming or {}), dict(renaming or {})
    with appearing_folder(out) as folder, contextlib.ExitStack() as stack:
        folders = {split: _Folder(folder, split) for split in SPLITS}
        bar = stack.enter_context(tqdm(recordings, unit=" recordings", desc="prepare", disable=None))
        for recording in bar:
            split = split_of[recording.name]
            side = folders[split]
            if recording.left_out:
                side.outcome(recording, reason=recording.left_out)
                continue
            given: dict[str, int] = {}
            try:
                with warnings_by_kind(given):
                    _write_recording(task, recording, digests, NOTHING if split == "test" else without, side)
            except UserError as error:
                if not skip_faulty:
                    raise UserError(f"{error} (--skip_faulty leaves such a recording out)") from error
                side.outcome(recording, reason=str(error))
            side.warned(given)
        if not any(side.windows for side in folders.values()):
            raise UserError(f"{path}: no labelled window in any of its {len(recordings)} recordings")
        for split, side in folders.items():
            side.finish(
                {
                    "source": task.name,
                    "cohort": cohort,
                    "split": split,
                    "kept_apart_from": {} if split == "test" else dict(without.sets),
                    "split_by": {"way": way, "seed": None if way == "official" else seed},
                    "preprocessing": dataclasses.asdict(task.preprocessing) | {"rate": RATE, "unit": "microvolt"},
                    "rename": renaming,
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
        known = {"hash": "", "file_hashes": [], "fingerprint": "", "file_fingerprints": []}
        known |= {"rate": None, "channels": [], "electrodes": [], "left_out": {}, "jumps": {}}
        known |= {"bad_channel_seconds": {}, "left_out_windows": {}, "marked_windows": {}} | read
        told = {"name": recording.name, "subject": recording.subject, "outcome": became, "reason": reason}
        self._outcomes.append(escape_all(told | known | {"hours": hours}))
        return len(self._outcomes) - 1

    def warned(self, counts: dict[str, int]) -> None:
        """How often each warning was given while the last recording was read."""
        self._outcomes[-1]["warnings"] = escape_all(counts)

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

    def __init__(self, renaming: Mapping[str, str]):
        self.seen: dict[str, str] = {}
        self.renaming = renaming
        self._files: dict[tuple, str] = {}
        self._fingerprints: dict[str, str] = {}  # of files, by their hash

    def of_files(self, recording: Recording, opened: Opened, digest: str) -> list[str]:
        """Of the files as ``prepare eeg`` would read them, whatever the task has done to its samples; [] where that is
        the recording's own ``digest``. What cannot be read as it is, cannot get into a corpus either."""
        raw, _, whole = opened
        if whole is not None:
            return [self._of(whole)]
        found = [self._of(raw)] if recording.span else []
        for file in opened_from(raw):
            with contextlib.suppress(UserError):
                unchanged = rename(read_raw(file), self.renaming, str(file))
                with foreign_bytes(file):
                    if recording.span or not _same(raw, unchanged):
                        found.append(self._of(unchanged))
        return sorted({*found} - {digest, ""})

    def _of(self, raw):
        """Of a file's, but once."""
        if not all(raw.filenames):  # in memory: nothing tells it from another
            return self._hash(raw)
        key = raw.filenames, tuple(choose_channels(raw)[0]), raw.n_times
        if key not in self._files:
            self._files[key] = self._hash(raw)
        return self._files[key]

    def _hash(self, raw):
        digest = recording_hash(raw)
        self._fingerprints[digest] = fingerprint(raw)
        return digest

    def fingerprints(self, digests: list[str]) -> list[str]:
        """Of the files that ``of_files`` gave the hashes of."""
        return sorted({self._fingerprints[digest] for digest in digests} - {""})


def _same(raw, other) -> bool:
    """Whether two have one hash, as far as their channels and the middle of their samples tell."""
    names = list(choose_channels(raw)[0])
    if raw.n_times != other.n_times or names != list(choose_channels(other)[0]):
        return False
    first, second = (r.get_data(names, *middle(r), verbose="warning") if names else None for r in (raw, other))
    return np.array_equal(first, second, equal_nan=True) if names else True


def _write_recording(task, recording, digests, without, side):
    opened = recording.open()
    with foreign_bytes(recording.name):
        raw, windows, whole = opened._replace(raw=corrected(opened.raw))
    raw = rename(raw, digests.renaming, recording.name)
    opened = Opened(raw, windows, whole and rename(whole, digests.renaming, recording.name))
    rate = float(raw.info["sfreq"])
    if task.rates and rate not in task.rates:
        wanted = " or ".join(f"{value:g}" for value in task.rates)
        raise UserError(f"{recording.name}: sampled at {rate:g} Hz; the recordings of {task.name} have {wanted} Hz")
    begin, end = recording.span or (0.0, duration_of(raw))
    for window in windows:
        check_window(task, recording, window, begin, end)
    if not windows:
        raise UserError(f"{recording.name}: too short, {end - begin:.1f} s; a window of {task.name} has {task.seconds}")
    places = checked_channels(raw, recording.name, task.channels)
    channels = list(places)
    with foreign_bytes(recording.name):
        span = round(begin * rate), round(end * rate)
        digest, own = recording_hash(raw, *span), fingerprint(raw, *span)
        files = digests.of_files(recording, opened, digest)
        left_out = {n: reason for n, reason in dropped_channels(raw).items() if _wanted(n, task, digests.renaming)}
        read = {"hash": digest, "file_hashes": files, "rate": rate, "jumps": timeline(raw).jumps}
        read |= {"fingerprint": own, "file_fingerprints": digests.fingerprints(files)}
    if digest and digest in digests.seen:
        side.outcome(recording, reason=f"a copy of {digests.seen[digest]}", channels=list(channels), **read)
        return
    cohort, prints = task.cohort or task.name, [own, *read["file_fingerprints"]]
    if reason := without.reason(cohort, recording.subject, digest, *files, fingerprints=prints):
        side.outcome(recording, "excluded", reason, channels=list(channels), **read)
        return
    with foreign_bytes(recording.name):
        off_scale = middle_sample(raw, channels, recording.name)[1]
    left_out |= off_scale
    kept = {name: place for name, place in places.items() if name not in off_scale}
    with foreign_bytes(recording.name):
        signal = preprocess(raw, task.preprocessing, recording.name, task.channels, kept)
    records, left_out_windows, marked_windows = _fit_windows(task, recording, signal, windows)
    first, last = (round(second * RATE) for second in (begin, end))
    read |= {
        "channels": list(kept),
        "electrodes": [VOCABULARY[electrode] for electrode in kept.values()],
        "left_out": left_out,
        "bad_channel_seconds": quality.counts(signal.flags[:, first:last], RATE),
        "left_out_windows": left_out_windows,
        "marked_windows": marked_windows,
    }
    if not records:
        faults = ", ".join(f"{fault} in {count}" for fault, count in left_out_windows.items())
        side.outcome(recording, reason=f"none of its {len(windows)} windows is fit for use ({faults})", **read)
        return
    runs = _good_runs(signal, first, last)
    hours = sum(ends - begins for _, _, begins, ends in runs) / RATE / 3600
    digests.seen[digest] = recording.name
    number = side.outcome(recording, "used", hours=hours, **read)
    for record in records:
        side.write("task", record, number)
    for span, rows, begins, ends in runs:
        for start in range(begins, ends, PIECE * RATE):
            record = cut(task, recording, signal, start, min(start + PIECE * RATE, ends), channels=rows)
            side.write("eeg", dataclasses.replace(record, span=span), number)


def _fit_windows(task, recording, signal, windows):
    """Records of the windows that are fit for use; how many are not, by reason; how many are partly bad, by kind."""
    records, left_out, marked = [], collections.Counter(), collections.Counter()
    for window in windows:
        record, fit = labelled_record(task, recording, signal, window)
        marked.update(fit.marks)
        if fit.fault:
            left_out[fit.fault] += 1
        else:
            records.append(record)
    return records, dict(left_out), dict(marked)


def _good_runs(signal, first, last):
    """Number of the span, channels, first and last sample of all that is good between two samples."""
    runs = []
    for number, (start, stop) in enumerate(signal.spans):
        for at, to in bounds(max(start, first), min(stop, last)):
            good = quality.good_runs(signal.flags[:, at:to], SHORTEST * RATE)
            runs += [(number, rows, at + begins, at + ends) for rows, begins, ends in good]
    return runs


def _wanted(name, task, renaming):
    """Whether the task would read a channel of that name."""
    electrode = electrode_id(renaming.get(name, name))
    wanted = {shared_id(known) for other in task.channels if (known := electrode_id(other)) is not None}
    return electrode is not None and (not task.channels or shared_id(electrode) in wanted)
