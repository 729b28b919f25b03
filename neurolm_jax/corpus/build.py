"""A corpus of unlabelled EEG from directories of recordings, in any number of sittings."""

import dataclasses
import functools
import pathlib
import shutil
import time
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from neurolm_jax.corpus import parts, sources, workers
from neurolm_jax.corpus.excluded import NOTHING, Excluded
from neurolm_jax.corpus.parts import Part
from neurolm_jax.corpus.recording import PIECE
from neurolm_jax.corpus.sources import Source
from neurolm_jax.data import shards
from neurolm_jax.eeg.opening import accepted
from neurolm_jax.eeg.preprocessing import RATE, Preprocessing
from neurolm_jax.errors import UserError
from neurolm_jax.escaping import escape
from neurolm_jax.outputs import begin_work

NO_OPTIONS: Mapping[str, Any] = types.MappingProxyType({})


def build(
    inputs: Iterable[pathlib.Path],
    out: pathlib.Path,
    settings: Preprocessing,
    corpus: str,
    without: Excluded = NOTHING,
    worker_count: int = 0,
    scheduler: str | None = None,
    renaming: Mapping[str, str] | None = None,
    reader_options: Mapping[str, Any] = NO_OPTIONS,
) -> dict:
    """Write shards and manifest of all recordings under the inputs to ``out``; returns the manifest.

    ``renaming`` has electrodes by the names of channels that do not tell them.

    Stopped, it leaves finished work beside ``out`` and goes on from there when it is called again.

    Args:
      reader_options: of MNE's readers; each is given those that it takes.

    Raises:
      UserError: no recording, or none that can be used; unfinished work with other settings; too little memory; an
        option that no recording's reader takes.
      OSError: a disk is full or must not be written.
    """
    begin, inputs = time.perf_counter(), list(inputs)
    recordings, others = sources.find(inputs)
    recordings = [_with_options(source, reader_options) for source in recordings]
    for name in reader_options:
        if not any(name in dict(source.options) for source in recordings):
            raise UserError(f"--reader_options {name}: the reader of none of these recordings has such an option")
    renamed = tuple((renaming or {}).items())
    found = [dataclasses.replace(_without_subject(source, without), renaming=renamed) for source in recordings]
    warnings = [warning for source in found for warning in source.warnings]
    warnings += without.incomparable((source.cohort, source.subject) for source in found)
    work = out.with_name(f".{out.name}.unfinished")
    described = dataclasses.asdict(settings) | {"rate": RATE, "unit": "microvolt", "piece_seconds": PIECE}
    options = {"reader_options": dict(reader_options)} if reader_options else {}
    begin_work(work, described | {"corpus": corpus} | options)
    with workers.mapping(worker_count, scheduler) as run:
        done = _make_parts(found, work / "parts", settings, corpus, run)
        kept = _refuse_copies(done, without)
        if not any(part.digests for _, part in kept):
            shutil.rmtree(work)
            first = kept[0][1].outcome
            more = f"; nor is any of {len(kept) - 1} others of use" if len(kept) > 1 else ""
            raise UserError(f"{kept[0][0].path}: {first['reason']}{more}{_also(warnings)}")
        entries = _merge(kept, work, run)
    outcomes = [part.outcome for _, part in kept]
    whole = [part for _, part in kept]
    manifest = {
        "kind": "eeg",
        "source": corpus,
        "split": "train",
        "inputs": [escape(str(path)) for path in inputs],
        "kept_apart_from": dict(without.sets),
        "preprocessing": described,
        "rename": dict(renamed),
        "hours": sum(outcome["hours"] for outcome in outcomes),
        "seconds": time.perf_counter() - begin,
        "recordings": outcomes,
        "other_files": others,
        "warnings": warnings,
    } | options
    index = {key: [value for part in whole for value in part.index[key]] for key in parts.INDEX}
    index["recording"] = [number for number, part in enumerate(whole) for _ in part.digests]
    digests = [bytes.fromhex(digest) for part in whole for digest in part.digests]
    manifest = shards.write_manifest(work / "shards", manifest, entries, index, digests)
    (work / "shards").rename(out)
    shutil.rmtree(work)
    return manifest


def _with_options(source, reader_options):
    return dataclasses.replace(source, options=tuple(accepted(source.path, reader_options).items()))


def _without_subject(source, without):
    return dataclasses.replace(source, excluded=without.reason(source.cohort, source.subject))


def _also(warnings):
    return f"; {len(warnings)} warnings, such as: {warnings[0]}" if warnings else ""


def _make_parts(found, folder, settings, corpus, run) -> list[tuple[Source, Part]]:
    from tqdm import tqdm

    done = {source: part for source in found if (part := parts.finished(folder, source))}
    make = functools.partial(parts.make, settings=settings, corpus=corpus, folder=folder)
    with tqdm(total=len(found), initial=len(done), unit=" recordings", desc="prepare", disable=None) as bar:
        hours = 0.0
        for source, part in run(make, [source for source in found if source not in done]):
            if isinstance(part, workers.WorkerLost):
                part = parts.skipped(source, str(part))
            done[source] = part
            hours += part.outcome["hours"]
            bar.set_postfix_str(f"{hours:.1f} h")
            bar.update()
    return [(source, done[source]) for source in found]


def _refuse_copies(done, without) -> list[tuple[Source, Part]]:
    """The same list, but recordings that are there already, or in a set that is tested on, are left out."""
    seen: dict[str, str] = {}
    kept = []
    for source, part in done:
        digest, reason, became = part.outcome["hash"], None, "skipped"
        if part.outcome["outcome"] == "used":
            if reason := without.reason(None, None, digest, fingerprints=[part.outcome.get("fingerprint", "")]):
                became = "excluded"
            elif digest in seen:
                reason = f"a copy of {seen[digest]}"
            else:
                seen[digest] = source.name
        if reason:
            outcome = part.outcome | {"outcome": became, "reason": reason, "hours": 0.0}
            part = Part(outcome, {key: [] for key in part.index}, [], 0)
        kept.append((source, part))
    return kept


def _merge(kept, work, run) -> list[dict]:
    """Shards of the kept parts, in their order; each as the manifest has it."""
    folder = work / "shards"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped here, perhaps with fewer recordings
    folder.mkdir()
    jobs = list(_jobs(kept, work))
    sizes = dict(run(_merge_one, jobs))
    return [{"file": job.shard.name, "records": sum(job.counts), "bytes": sizes[job]} for job in jobs]


@dataclasses.dataclass(frozen=True)
class _Job:
    files: tuple[pathlib.Path, ...]
    counts: tuple[int, ...]
    shard: pathlib.Path


def _jobs(kept, work) -> Iterator[_Job]:
    files, counts, size, number = [], [], 0, 0
    used = [(source, part) for source, part in kept if part.digests]
    for place, (source, part) in enumerate(used, start=1):
        files.append(parts.records_file(work / "parts", source))
        counts.append(len(part.digests))
        size += part.bytes
        if size >= shards.SHARD_BYTES or place == len(used):
            yield _Job(tuple(files), tuple(counts), work / "shards" / shards.shard_name(number))
            files, counts, size, number = [], [], 0, number + 1


def _merge_one(job):
    return parts.merge(job.files, job.counts, job.shard)
