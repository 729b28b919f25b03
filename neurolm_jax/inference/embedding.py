"""Features of many recordings into one file: several at a time, resumable, in bounded memory.

Each recording's rows are first written to a part beside the file. A run that was stopped finds the parts that it
finished; when all are there, they are put together.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import logging
import pathlib
import shutil
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neurolm_jax.corpus import recording as corpus_recording
from neurolm_jax.corpus import sources
from neurolm_jax.eeg.preprocessing import RATE, Preprocessing
from neurolm_jax.eeg.reading import warnings_by_kind
from neurolm_jax.eeg.tasks.readers import foreign_bytes
from neurolm_jax.errors import UserError
from neurolm_jax.inference import feature_file
from neurolm_jax.inference.encoder import WINDOW_SECONDS, Encoder
from neurolm_jax.inference.feature_file import Part
from neurolm_jax.inference.layers import DEFAULT
from neurolm_jax.inference.own_recordings import warning_notes
from neurolm_jax.inference.pooling import POOLS, pooled
from neurolm_jax.inference.signals import Recording, electrode_names
from neurolm_jax.outputs import appearing_file, begin_work, locked

FORMAT = 1  # of parts and of what a file says about itself


class Options(NamedTuple):
    """What is asked for; see ``Encoder.encode``. workers: recordings at a time; batch_size: windows at once."""

    layer: str = DEFAULT
    pool: str = "none"
    seconds: int = WINDOW_SECONDS
    every: float | None = None
    preprocessing: Preprocessing = Preprocessing()
    batch_size: int | None = None
    workers: int = 4


def embed(inputs: Sequence[pathlib.Path], out: pathlib.Path, encoder: Encoder, options: Options = Options()) -> dict:
    """Write features of all recordings among the inputs and under them to ``out``, .npz or .parquet.

    Stopped, it leaves finished work beside ``out`` and goes on from there when it is called again. A file that is there
    already is kept, if it is what is asked for.

    Returns:
      What the file says about itself: settings, and what became of each recording.

    Raises:
      UserError: no recording, or none that can be used; a file or unfinished work of other settings; a wrong option.
      OSError: a disk is full or must not be written.
    """
    feature_file.check(out)
    _check(encoder, options)
    found = _named(sources.find(inputs)[0])
    settings = _settings(encoder, options)
    about = {"format": FORMAT, "settings": settings, "inputs": sorted(map(_key, found))}
    if out.exists():
        existing = feature_file.read_about(out)
        if {name: existing.get(name) for name in about} != about:
            raise UserError(f"{out}: holds features of other recordings or settings; remove it, or give another --out")
        return existing
    work = out.with_name(f".{out.name}.unfinished")
    with locked(work):
        begin_work(work, settings)
        outcomes = _make_parts(found, work, encoder, options)
        used = [outcome for outcome in outcomes if outcome["outcome"] == "used"]
        if not used:
            first, others = outcomes[0], len(outcomes) - 1
            shutil.rmtree(work)
            more = f"; nor is any of {others} others of use" if others else ""
            raise UserError(f"{first['reason']}{more}")
        about["recordings"] = [{k: v for k, v in outcome.items() if k != "key"} for outcome in outcomes]
        parts = [_part(work, outcome, encoder, options) for outcome in used]
        with appearing_file(out) as file:
            feature_file.write(file, parts, about, work)
        shutil.rmtree(work)
    return about


def _check(encoder, options):
    encoder.check(options.layer, options.seconds, options.every, options.batch_size)
    if options.pool not in POOLS:
        raise UserError(f"pool: want one of {', '.join(POOLS)}, not {options.pool!r}")
    if options.workers < 1:
        raise UserError(f"workers: want 1 or more, not {options.workers}")


def _named(found):
    """Each recording once, under a name that no other has: its path, where two inputs have a file of one name."""
    found = list({source.path.absolute(): source for source in found}.values())
    counts = Counter(source.name for source in found)
    return [
        dataclasses.replace(source, name=source.path.as_posix()) if counts[source.name] > 1 else source
        for source in found
    ]


def _settings(encoder, options):
    chosen = options._asdict() | {"every": options.every or float(options.seconds)}
    chosen["preprocessing"] = dataclasses.asdict(options.preprocessing)
    del chosen["workers"], chosen["batch_size"]  # which change nothing but rounding
    return encoder.identity | chosen


def _make_parts(found, work, encoder, options):
    """What became of each recording, in the order of the recordings."""
    from tqdm import tqdm

    outcomes = {_key(source): _finished(work, source) for source in found}
    waiting = [source for source in found if outcomes[_key(source)] is None]
    given: dict[str, int] = {}
    with (
        warnings_by_kind(given),  # around all threads, which share what becomes of warnings
        tqdm(
            total=len(found), initial=len(found) - len(waiting), unit=" recordings", desc="embed", disable=None
        ) as bar,
        concurrent.futures.ThreadPoolExecutor(options.workers) as pool,
    ):
        running = [pool.submit(_make, source, work, encoder, options) for source in waiting]
        try:
            for done in concurrent.futures.as_completed(running):
                outcome = done.result()
                outcomes[outcome["key"]] = outcome
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for note in warning_notes(given):
        logging.getLogger(__name__).warning(note)
    return [outcomes[_key(source)] for source in found]


def _make(source, work, encoder, options):
    """Write the part of one recording; whatever is wrong with it becomes its outcome."""
    key = _key(source)
    outcome = {"key": key, "name": source.name, "subject": source.subject, "session": source.session}
    try:
        if source.fault:
            raise UserError(source.fault)
        with foreign_bytes(source.path):
            raw = corpus_recording.read(source)
        with appearing_file(_rows_file(work, key)) as unfinished:
            outcome |= _write_rows(raw, source, unfinished, encoder, options)
    except UserError as error:
        outcome |= {"outcome": "skipped", "reason": str(error)}
    except MemoryError as error:
        raise UserError(f"{source.path}: not enough memory to read it; take fewer --workers, or remove it") from error
    text = json.dumps(outcome)
    with appearing_file(_rows_file(work, key).with_suffix(".json")) as unfinished:
        unfinished.write_text(text)
    return json.loads(text)  # as a later run reads it


def _write_rows(raw, source, file, encoder, options):
    opened = Recording(raw, str(source.path), options.preprocessing, dict(source.left_out), source.mains)
    seconds = options.seconds
    begins = opened.begins(seconds, options.every or seconds)
    kind = _row_type(encoder, options)
    bad = []

    def samples():
        for window in opened.windows(begins, seconds):
            bad.append(window.bad)
            yield window.samples

    with file.open("wb") as opened_file:
        tokens = encoder.tokens(samples(), opened.electrodes, options.layer, options.batch_size)
        for number, token in enumerate(tokens):
            window = number, begins[number] / RATE, bad[number], token.codes
            opened_file.write(_rows(kind, pooled(token.features, options.pool), *window).tobytes())
    channels = opened.channels, electrode_names(opened.electrodes), opened.left_out
    described = dict(zip(("channels", "electrodes", "left_out"), channels))
    described |= {"rate": float(raw.info["sfreq"]), "mains": opened.mains, "windows": len(begins)}
    return {"outcome": "used", "reason": None} | described


def _row_type(encoder, options):
    """One row of a part: a token, a channel of a window, or a window, as it is pooled."""
    width = encoder.width(options.layer) * (2 if options.pool == "window" else 1)
    fields = [("window", "<i4"), ("onset", "<f8")]
    if options.pool == "none":
        fields.append(("second", "<i4"))
    if options.pool != "window":
        fields.append(("channel", "<i4"))  # number among the recording's
        if encoder.has_codes:
            fields.append(("code", "<i4", (options.seconds,)) if options.pool == "channel" else ("code", "<i4"))
    return np.dtype([*fields, ("bad", "<f4"), ("feature", "<f4", (width,))])


def _rows(kind, values, number, onset, bad, codes):
    """Rows of one window. values as ``pooled`` leaves them; bad, codes [S, C]."""
    seconds, channels = bad.shape
    count = {3: seconds * channels, 2: channels, 1: 1}[values.ndim]
    rows = np.zeros(count, kind)
    rows["window"], rows["onset"] = number, onset
    rows["feature"] = values.reshape(count, -1)
    if values.ndim == 1:
        rows["bad"] = bad.mean()
        return rows
    rows["channel"] = np.tile(np.arange(channels), count // channels)
    rows["bad"] = bad.ravel() if values.ndim == 3 else bad.mean(axis=0)
    if values.ndim == 3:
        rows["second"] = np.repeat(np.arange(seconds), channels)
    if "code" in kind.names:
        rows["code"] = codes.ravel() if values.ndim == 3 else codes.T
    return rows


def _part(work, outcome, encoder, options):
    rows = np.memmap(_rows_file(work, outcome["key"]), _row_type(encoder, options), "r")
    return Part(outcome["name"], outcome["subject"], outcome["channels"], outcome["electrodes"], rows)


def _key(source):
    """By all that path, sidecars and file system tell: of a file that has changed nothing is kept."""
    known = dataclasses.replace(source, path=source.path.absolute())
    return hashlib.sha256(repr(known).encode()).hexdigest()[:24]


def _rows_file(work, key):
    return work / "parts" / f"{key}.rows"


def _finished(work, source):
    file = _rows_file(work, _key(source)).with_suffix(".json")
    return json.loads(file.read_text()) if file.is_file() else None
