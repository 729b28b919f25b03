"""Whether shards that are there already are those that are asked for."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from neurolm_jax.corpus.documents import HUGGING_FACE
from neurolm_jax.corpus.excluded import Excluded
from neurolm_jax.data import shards
from neurolm_jax.errors import UserError
from neurolm_jax.escaping import escape

REMEDY = "remove the folder, or give another --out"


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a command asks for.

    Attributes:
      kind: eeg, task or text.
      inputs: files and folders, of eeg and text.
      source: name of the corpus or task, of eeg and task.
      mains: Hz, of eeg; None leaves it to each recording, and takes what is there.
      way, seed: of a task's split, see ``splits.assign``.
      renaming: electrode by channel name, of eeg and task.
      reader_options: of eeg.
    """

    kind: str
    inputs: tuple[str, ...] = ()
    source: str | None = None
    mains: float | None = None
    way: str | None = None
    seed: int = 0
    renaming: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reader_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def check_finished(
    out: str | pathlib.Path, folders: Sequence[str | pathlib.Path], asked: Asked, without: Excluded
) -> None:
    """Refuse to take ``folders`` of shards under ``out`` for what is asked.

    Raises:
      UserError: they are of something else, of other inputs or settings, split otherwise, or not kept apart from what
        must not be learnt from now.
    """
    manifests = [shards.read_manifest(folder) for folder in folders]
    for manifest in manifests:
        kind = "task" if "split_by" in manifest else manifest["kind"]
        if kind != asked.kind or (kind == "task" and manifest["source"] != asked.source):
            wanted = asked.source if asked.kind == "task" else asked.kind
            raise UserError(f"{out}: holds {manifest.get('source', kind)}, not {wanted}; {REMEDY}")
        if other := _other_options(manifest, asked):
            raise UserError(f"{out}: prepared {other}; {REMEDY}")
    learnt = [(m, r) for m in manifests if m.get("split") != "test" for r in m.get("recordings", ())]
    for manifest, recording in learnt:
        cohort = manifest.get("cohort", recording.get("cohort"))
        digests = recording["hash"], *recording.get("file_hashes", ())
        prints = [recording.get("fingerprint", ""), *recording.get("file_fingerprints", ())]
        reason = without.reason(cohort, recording["subject"], *digests, fingerprints=prints)
        if reason and recording["outcome"] == "used":
            raise UserError(f"{out}: prepared without regard to {recording['name']}, {reason}; {REMEDY}")


def _other_options(manifest: Mapping, asked: Asked) -> str | None:
    """What a manifest of the kind that is asked for was prepared with, where that is another."""
    if asked.kind != "text" and dict(asked.renaming) != manifest.get("rename", {}):
        return "with another --rename" if manifest.get("rename") else "without --rename"
    if asked.kind == "task":
        there = manifest["split_by"]
        seed = "" if there["way"] == "official" else f" --seed {there['seed']}"
        if there["way"] != asked.way or (seed and there["seed"] != asked.seed):
            return f"with --split {there['way']}{seed}"
        return None
    if asked.kind == "eeg":
        if manifest["source"] != asked.source:
            return f"with --source {manifest['source']}"
        mains = manifest["preprocessing"]["mains"]
        if asked.mains not in (None, mains):
            return f"with --mains {mains:g}" if mains else "without --mains"
        options = manifest.get("reader_options", {})
        if dict(asked.reader_options) != options:
            told = " ".join(f"{name}={value}" for name, value in options.items())
            return f"with --reader_options {told}" if told else "without --reader_options"
    inputs = manifest.get("inputs")  # not told by those of earlier versions
    wanted = [escape(given) for given in asked.inputs]
    if inputs and wanted != inputs and _placed(wanted) != _placed(inputs):
        return f"from {', '.join(inputs)}"
    return None


def _placed(inputs: Sequence[str]) -> list[str]:
    return [given if given.startswith(HUGGING_FACE) else os.path.abspath(given) for given in inputs]
