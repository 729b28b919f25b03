"""What must not be learnt from, since a downstream set tests on it."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from neurolm_jax.data import remote, shards
from neurolm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Excluded:
    """subjects: cohort and subject -> set; hashes: of samples -> set."""

    subjects: Mapping[tuple[str, str], str]
    hashes: Mapping[str, str]

    def reason(self, cohort: str | None, subject: str | None, *digests: str | None) -> str | None:
        """Why a recording is left out, by its subject, its samples or those of the file it is a stretch of; None if it
        is not. What is not known (yet) is None or ""."""
        if subject and (cohort, subject) in self.subjects:
            return f"subject {subject} is in {self.subjects[cohort, subject]}"
        return next((f"a recording of {self.hashes[digest]}" for digest in digests if digest in self.hashes), None)

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
    subjects, hashes = {}, {}
    for name, folders in sets.items():
        manifests = {folder: shards.read_manifest(folder) for folder in folders}
        parts = {f: m for f, m in manifests.items() if m.get("kind") != "text" and m.get("split") in KEPT}
        if not parts:
            raise UserError(f"{name}: no test or validation part of a task among {', '.join(map(str, folders))}")
        for folder, manifest in parts.items():
            if not {"recordings", "cohort"} <= manifest.keys():
                raise UserError(f"{folder}: not of this version's 'prepare task'; prepare that set again")
            for recording in manifest["recordings"]:
                for digest in filter(None, (recording.get("hash"), *recording.get("file_hashes", ()))):
                    hashes.setdefault(digest, name)
                if recording.get("subject"):
                    subjects.setdefault((manifest["cohort"], recording["subject"]), name)
    return Excluded(subjects, hashes)


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
