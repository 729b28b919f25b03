"""A downstream task's windows and recordings as shards, split by split."""

import dataclasses
import functools
import pathlib
import time

from neurolm_jax.corpus.parts import entry
from neurolm_jax.corpus.recording import PIECE
from neurolm_jax.data import shards
from neurolm_jax.eeg.electrodes import electrode_id
from neurolm_jax.eeg.identity import content_hash
from neurolm_jax.eeg.preprocessing import RATE, preprocess
from neurolm_jax.eeg.records import Record, encode
from neurolm_jax.eeg.tasks import Recording, Task
from neurolm_jax.outputs import appearing_folder


def write_task(task: Task, path: pathlib.Path, out: pathlib.Path) -> None:
    """``out/windows/{train,validation,test}`` and ``out/recordings/{train,validation}`` from the files under path."""
    from tqdm import tqdm

    begin = time.perf_counter()
    settings = task.preprocessing
    recordings = tqdm(task.recordings(path), unit=" recordings", desc="prepare", disable=None)
    prepared = list(_prepare(recordings, settings))
    with appearing_folder(out) as folder:
        for split in ("train", "validation", "test"):
            part = [p for p in prepared if p.recording.split == split]
            cut = functools.partial(_windows, baseline=task.baseline)
            _write(folder / "windows" / split, "task", split, task.name, settings, part, cut, begin)
            if split != "test":
                _write(folder / "recordings" / split, "eeg", split, task.name, settings, part, _pieces, begin)


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """A recording and its outcome: ``signal`` None and a ``reason`` where it is left out."""

    recording: Recording
    hash: str
    signal: object = None
    reason: str | None = None


def _prepare(recordings, settings):
    seen = {}
    for recording in recordings:
        known = _electrodes(recording.raw)
        digest = content_hash(recording.raw.get_data(known) * 1e6) if known else ""
        if digest in seen:
            yield _Prepared(recording, digest, reason=f"a copy of {seen[digest]}")
            continue
        seen[digest] = recording.name
        yield _Prepared(recording, digest, preprocess(recording.raw, settings, recording.name))


def _electrodes(raw):
    return [name for name in raw.ch_names if electrode_id(name) is not None]


def _write(path, kind, split, source, settings, prepared, cut, begin):
    outcomes = [
        {
            "name": p.recording.name,
            "hash": p.hash,
            "subject": p.recording.subject,
            "rate": p.recording.raw.info["sfreq"],
            "channels": _electrodes(p.recording.raw),
            "outcome": "skipped" if p.reason else "used",
            "reason": p.reason,
            "hours": 0.0 if p.reason else p.signal.samples.shape[1] / RATE / 3600,
        }
        for p in prepared
    ]
    used = [(number, p) for number, p in enumerate(prepared) if not p.reason]
    records = (_record_and_entry(record, number) for number, p in used for record in cut(p, source))
    manifest = {
        "kind": kind,
        "source": source,
        "split": split,
        "preprocessing": dataclasses.asdict(settings) | {"rate": RATE, "unit": "microvolt"},
        "hours": sum(outcome["hours"] for outcome in outcomes),
        "seconds": time.perf_counter() - begin,
        "recordings": outcomes,
    }
    shards.write(path, records, manifest)


def _record_and_entry(record, number):
    return encode(record), entry(record) | {"recording": number, "label": record.label}


def _windows(prepared, source, baseline):
    for window in prepared.recording.windows:
        begin = round(window.onset * RATE)
        record = _record(prepared, source, begin, begin + round(window.duration * RATE), window.label)
        if baseline:
            zero = record.samples[:, : round(baseline * RATE)].mean(axis=1, keepdims=True)
            record = dataclasses.replace(record, samples=record.samples - zero)
        yield record


def _pieces(prepared, source):
    for begin in range(0, prepared.signal.samples.shape[1], PIECE * RATE):
        yield _record(prepared, source, begin, begin + PIECE * RATE)


def _record(prepared, source, begin, stop, label=None):
    recording, signal = prepared.recording, prepared.signal
    return Record(
        samples=signal.samples[:, begin:stop],
        electrodes=signal.electrodes,
        source=source,
        recording=recording.name,
        subject=recording.subject,
        start=begin / RATE,
        label=label,
    )
