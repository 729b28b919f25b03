"""Refuse training data that shares recordings with a test part."""

import pathlib
from collections.abc import Iterable, Mapping

from neurolm_jax.data.known_recordings import KnownRecordings
from neurolm_jax.errors import UserError

Part = tuple[str | pathlib.Path, Mapping]  # a folder or address of shards, and its manifest: all that is looked at


def check_disjoint(training: Iterable[Part], tests: Iterable[Part]) -> None:
    """Compare recordings by the hash of their samples, under whatever name they lie, and of the files that they are
    taken from; copies that were exported anew are known by their fingerprints.

    Raises:
      UserError: a training folder is itself a test part, or shares a recording with one.
    """
    tested = [(path, recording) for path, manifest in tests for recording in _used(manifest)]
    known = KnownRecordings([recording for _, recording in tested])
    for path, manifest in training:
        if manifest.get("split") == "test":
            raise UserError(f"{path} is a test part; training does not read it")
        recordings = _used(manifest)
        for recording, match in zip(recordings, known.find(recordings)):
            if match:
                test, other = tested[match.number]
                how = "is an export of" if match.copy else "is, or shares samples with,"
                raise UserError(
                    f"{path}: recording {recording['name']} {how} {other.get('name', 'one')} of the test part {test};"
                    " remove that folder, and prepare it again with --exclude"
                )


def _used(manifest):
    """Recordings that a manifest does not call left out; one from elsewhere may not tell."""
    return [recording for recording in manifest.get("recordings", []) if recording.get("outcome", "used") == "used"]
