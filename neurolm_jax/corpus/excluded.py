"""What must not be learnt from, since a downstream set tests on it."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping

from neurolm_jax.data import shards
from neurolm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Excluded:
    """subjects: cohort and subject -> set; hashes: of samples -> set."""

    subjects: Mapping[tuple[str, str], str]
    hashes: Mapping[str, str]

    def reason(self, cohort: str | None, subject: str | None, digest: str | None) -> str | None:
        """Why a recording is left out; None if it is not. What is not known (yet) is None or ""."""
        if subject and (cohort, subject) in self.subjects:
            return f"subject {subject} is in {self.subjects[cohort, subject]}"
        if digest and digest in self.hashes:
            return f"a recording of {self.hashes[digest]}"
        return None


NOTHING = Excluded({}, {})


def excluded(manifests: Mapping[str, Iterable[pathlib.Path]]) -> Excluded:
    """Subjects and recordings of the test and validation parts of each set, named by the manifests of its folders.

    Of a set whose recordings are stretches of files, the files are left out whole.

    Raises:
      UserError: a manifest that does not tell.
    """
    subjects, hashes = {}, {}
    for name, files in manifests.items():
        for file in files:
            manifest = shards.read_manifest(file.parent)
            if manifest.get("split") not in ("test", "validation"):
                continue
            if not {"recordings", "cohort"} <= manifest.keys():
                raise UserError(f"{file}: not of this version's 'prepare task'; prepare that set again")
            for recording in manifest["recordings"]:
                for digest in filter(None, (recording.get("hash"), recording.get("whole_hash"))):
                    hashes.setdefault(digest, name)
                if recording.get("subject"):
                    subjects.setdefault((manifest["cohort"], recording["subject"]), name)
    return Excluded(subjects, hashes)
