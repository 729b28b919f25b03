"""What must not be learnt from, since a downstream set tests on it."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from neurolm_jax.data import remote, shards
from neurolm_jax.eeg.fingerprint import Known
from neurolm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Excluded:
    """What must not be learnt from.

    subjects: cohort and subject -> set. hashes, fingerprints: of samples -> set. sets: set -> content hashes of the
    parts that are kept apart from, as manifests record it.
    """

    subjects: Mapping[tuple[str, str], str]
    hashes: Mapping[str, str]
    fingerprints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sets: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def reason(
        self, cohort: str | None, subject: str | None, *digests: str | None, fingerprints: Sequence[str] = ()
    ) -> str | None:
        """Why a recording is left out, by its subject, its samples or those of the file it is a stretch of, also where
        they were exported anew; None if it is not. What is not known (yet) is None or ""."""
        if subject and (cohort, subject) in self.subjects:
            return f"subject {subject} is in {self.subjects[cohort, subject]}"
        for digest in digests:
            if digest in self.hashes:
                return f"a recording of {self.hashes[digest]}"
        for place in self._known.match(list(filter(None, fingerprints))):
            if place is not None:
                return f"a recording of {list(self.fingerprints.values())[place]}, exported anew"
        return None

    @functools.cached_property
    def _known(self) -> Known:
        return Known(list(self.fingerprints))

    def incomparable(self, people: Iterable[tuple[str | None, str | None]]) -> list[str]:
        """Say where subjects of one cohort have numbers in one place and letters in the other, as in old and new
        editions of a set: the same people may be in both, and cannot be found.

        Args:
          people: cohort and subject of recordings.
        """
        kinds: dict[str, dict[str, str]] = {}
        for (cohort, subject), name in self.subjects.items():
            kinds.setdefault(cohort, {}).setdefault(_kind(subject), name)
        others: dict[str, set[str]] = {}
        for cohort, subject in people:
            if subject and cohort in kinds:
                others.setdefault(cohort, set()).add(_kind(subject))
        found = []
        for cohort, there in others.items():
            for kind in sorted(there - kinds[cohort].keys()):
                excluded, name = next(iter(kinds[cohort].items()))
                found.append(
                    f"subjects here are named by {kind}, those of {name} by {excluded}: they cannot be compared, so"
                    " people that are tested on may be among them; only recordings with the same samples are left out"
                )
        return found


def _kind(subject):
    """By what a subject is named: letters, or numbers, whatever prefix or digits there are besides."""
    return "numbers" if subject.isdigit() else "letters"


NOTHING = Excluded({}, {})
KEPT = ("test", "validation")  # parts


def excluded(sets: Mapping[str, Sequence[str | pathlib.Path]]) -> Excluded:
    """Subjects and recordings of the test and validation parts of each set, given all its folders of shards.

    Of a set whose recordings are stretches of files, the files are left out whole.

    Raises:
      UserError: a manifest that does not tell; a set without such a part.
    """
    subjects, hashes, fingerprints, contents = {}, {}, {}, {}
    for name, folders in sets.items():
        manifests = {folder: shards.read_manifest(folder) for folder in folders}
        parts = {f: m for f, m in manifests.items() if m.get("kind") != "text" and m.get("split") in KEPT}
        if not parts:
            raise UserError(f"{name}: no test or validation part of a task among {', '.join(map(str, folders))}")
        for folder, manifest in parts.items():
            if not {"recordings", "cohort", "content_hash"} <= manifest.keys():
                raise UserError(f"{folder}: not of this version's 'prepare task'; prepare that set again")
            for recording in manifest["recordings"]:
                for digest in filter(None, (recording.get("hash"), *recording.get("file_hashes", ()))):
                    hashes.setdefault(digest, name)
                for known in filter(None, (recording.get("fingerprint"), *recording.get("file_fingerprints", ()))):
                    fingerprints.setdefault(known, name)
                if recording.get("subject"):
                    subjects.setdefault((manifest["cohort"], recording["subject"]), name)
        contents[name] = sorted({manifest["content_hash"] for manifest in parts.values()})
    return Excluded(subjects, hashes, fingerprints, contents)


def beside(out: str | pathlib.Path) -> dict[str, list[str]]:
    """Folders of the tasks beside a folder or address, by the name of each.

    Raises:
      UserError: the address cannot be listed.
    """
    pattern = "*/windows/*/manifest.json"
    if remote.is_url(out):
        files = remote.find(str(out).rstrip("/").rpartition("/")[0], pattern)
    else:
        files = sorted(file.as_posix() for file in pathlib.Path(out).absolute().parent.glob(pattern))
    found: dict[str, list[str]] = {}
    for file in files:
        found.setdefault(file.split("/")[-4], []).append(file.removesuffix("/manifest.json"))
    return found


def named(pairs: Sequence[str]) -> dict[str, list[str]]:
    """Folders of the sets that pairs NAME=FOLDER tell, by their names.

    Raises:
      UserError: one is no such pair, or holds nothing that ``prepare`` wrote.
    """
    found: dict[str, list[str]] = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        if remote.is_url(path):
            files = remote.find(path, "**/manifest.json")
        else:
            files = [file.as_posix() for file in sorted(pathlib.Path(path).rglob("manifest.json"))] if path else []
        if not files:
            raise UserError(f"--exclude {pair}: want NAME=FOLDER, a folder that 'prepare task' wrote")
        found.setdefault(name, []).extend(file.removesuffix("/manifest.json") for file in files)
    return found
