"""Turn recordings, task data or text into shards and a manifest.

  python -m neurolm_jax.prepare eeg  IN... --out DIR [--mains 50|60]
  python -m neurolm_jax.prepare task NAME IN --out DIR
  python -m neurolm_jax.prepare text IN... --out DIR

``task`` writes ``DIR/windows/{train,validation,test}``, the labelled windows, and
``DIR/recordings/{train,validation}``, the same recordings whole, for the stages that need no labels.
A folder that is there already is kept; remove it to prepare it anew.
"""

import dataclasses
import functools
import pathlib
import struct
import time
from collections.abc import Iterable, Iterator

from neurolm_jax.command import argument_parser, run
from neurolm_jax.data import shards, text
from neurolm_jax.eeg.preprocessing import RATE, Preprocessing, content_hash, preprocess
from neurolm_jax.eeg.records import Record, encode
from neurolm_jax.eeg.tasks import NAMES, Recording, Task, load_task
from neurolm_jax.errors import UserError
from neurolm_jax.outputs import appearing_folder

PIECE = 256  # seconds of a recording in one record
SUFFIXES = (".edf", ".bdf", ".gdf", ".vhdr", ".set", ".fif", ".fif.gz", ".cnt", ".mff", ".nxe", ".lay")


def main() -> None:
    parser = argument_parser("prepare", __doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    eeg = kinds.add_parser("eeg", help="recordings of any format that MNE reads")
    eeg.add_argument("inputs", nargs="+", type=pathlib.Path)
    eeg.add_argument("--mains", type=float, choices=(50, 60), help="mains frequency to notch, Hz")
    task = kinds.add_parser("task", help="a downstream set with labels")
    task.add_argument("name", choices=NAMES)
    task.add_argument("inputs", nargs=1, type=pathlib.Path)
    words = kinds.add_parser("text", help="plain text, or the docstrings of Python files")
    words.add_argument("inputs", nargs="+", type=pathlib.Path)
    for kind in (eeg, task, words):
        kind.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()

    for path in arguments.inputs:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
    if arguments.out.exists():
        if not any(arguments.out.rglob("manifest.json")):
            raise UserError(f"{arguments.out}: exists and was not made by prepare; give another --out")
        print(f"{arguments.out}: already prepared")
    elif arguments.kind == "eeg":
        prepare_eeg(arguments.inputs, arguments.out, Preprocessing(mains=arguments.mains))
    elif arguments.kind == "task":
        prepare_task(load_task(arguments.name), arguments.inputs[0], arguments.out)
    else:
        prepare_text(arguments.inputs, arguments.out)


def prepare_eeg(inputs: Iterable[pathlib.Path], out: pathlib.Path, settings: Preprocessing) -> None:
    """Shards of whole recordings from files that ``mne.io.read_raw`` reads."""
    begin = time.perf_counter()
    recordings = (Recording(str(file), "train", read_raw(file), []) for file in find_recordings(inputs))
    prepared = list(_progress(_prepare_recordings(recordings, settings), "recordings"))
    _write_eeg(out, "eeg", "train", "eeg", settings, prepared, _pieces, begin)
    _say(out)


def prepare_task(task: Task, path: pathlib.Path, out: pathlib.Path) -> None:
    """Shards of a task's windows and recordings, split by split."""
    begin = time.perf_counter()
    settings = task.preprocessing
    prepared = list(_progress(_prepare_recordings(task.recordings(path), settings), "recordings"))
    with appearing_folder(out) as folder:
        for split in ("train", "validation", "test"):
            part = [p for p in prepared if p.recording.split == split]
            cut = functools.partial(_windows, baseline=task.baseline)
            _write_eeg(folder / "windows" / split, "task", split, task.name, settings, part, cut, begin)
            if split != "test":
                _write_eeg(folder / "recordings" / split, "eeg", split, task.name, settings, part, _pieces, begin)
    for split in ("train", "validation", "test"):
        _say(out / "windows" / split)


def prepare_text(inputs: Iterable[pathlib.Path], out: pathlib.Path) -> None:
    """Token shards of text files and docstrings."""
    begin = time.perf_counter()
    read = []

    def texts() -> Iterator[str]:
        for file, content in _progress(text.documents(inputs), "files"):
            read.append(file)
            yield content

    blocks = list(text.blocks(texts()))
    inputs = [str(path) for path in inputs]
    with appearing_folder(out) as folder:
        for split in ("train", "validation"):
            part = [b for i, b in enumerate(blocks, start=1) if (i % text.VALIDATION == 0) == (split == "validation")]
            seconds = time.perf_counter() - begin
            shards.write(folder / split, part, {"kind": "text", "split": split, "inputs": inputs, "seconds": seconds})
    print(f"{out}: {len(blocks) * text.BLOCK:,} tokens of {len(read):,} files")


def find_recordings(inputs: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """The files among the inputs and under them that MNE has a reader for."""
    files = []
    for path in inputs:
        under = [path] if path.is_file() else sorted(path.rglob("*"))
        files += [file for file in under if file.name.lower().endswith(SUFFIXES)]
    if not files:
        raise UserError(f"{', '.join(map(str, inputs))}: no recording of a format that MNE reads")
    return files


def read_raw(file: pathlib.Path):
    """An ``mne.io.Raw``; UserError where MNE cannot read the file."""
    import mne

    try:
        return mne.io.read_raw(file, verbose="error")
    except (OSError, EOFError, ValueError, RuntimeError, LookupError, TypeError, struct.error) as error:
        raise UserError(f"{file}: MNE cannot read it ({type(error).__name__}: {error})") from error


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """A recording and its outcome: ``signal`` None and a ``reason`` where it is left out."""

    recording: Recording
    hash: str
    signal: object = None
    reason: str | None = None


def _prepare_recordings(recordings, settings):
    seen = {}
    for recording in recordings:
        digest = content_hash(recording.raw)
        if digest in seen:
            yield _Prepared(recording, digest, reason=f"a copy of {seen[digest]}")
            continue
        seen[digest] = recording.name
        yield _Prepared(recording, digest, preprocess(recording.raw, settings, recording.name))


def _write_eeg(path, kind, split, source, settings, prepared, cut, begin):
    outcomes = [
        {
            "name": p.recording.name,
            "hash": p.hash,
            "outcome": "skipped" if p.reason else "used",
            "reason": p.reason,
            "hours": 0.0 if p.reason else p.signal.samples.shape[1] / RATE / 3600,
        }
        for p in prepared
    ]
    records = (_entry(record) for p in prepared if not p.reason for record in cut(p, source))
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


def _entry(record):
    channels, samples = record.samples.shape
    return encode(record), {"channels": channels, "samples": samples, "label": record.label}


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


def _progress(items, unit):
    from tqdm import tqdm

    return tqdm(items, unit=f" {unit}", desc="prepare", disable=None)


def _say(path):
    manifest = shards.read_manifest(path)
    skipped = [r for r in manifest["recordings"] if r["reason"]]
    print(f"{path}: {manifest['records']} records of {len(manifest['recordings']) - len(skipped)} recordings,", end=" ")
    print(f"{manifest['hours']:.2f} h")
    for recording in skipped:
        print(f"  left out {recording['name']}: {recording['reason']}")


if __name__ == "__main__":
    run(main)
