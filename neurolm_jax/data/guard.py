"""Nothing that is tested on may be trained on."""

import pathlib
from collections.abc import Iterable, Mapping

from neurolm_jax.errors import UserError

Part = tuple[str | pathlib.Path, Mapping]  # a folder or address of shards, and its manifest: all that is looked at


def check_disjoint(training: Iterable[Part], tests: Iterable[Part]) -> None:
    """Compare recordings by the hash of their samples, under whatever name they lie, and of the files that they are
    taken from.

    Raises:
      UserError: a training folder is itself a test part, or shares a recording with one.
    """
    found = [(path, recording) for path, manifest in tests for recording in _used(manifest)]
    tested = {recording["hash"]: (path, recording) for path, recording in found if recording["hash"]}
    holding = {digest: (path, recording) for path, recording in found for digest in _files(recording)}
    for path, manifest in training:
        if manifest.get("split") == "test":
            raise UserError(f"{path} is a test part; training does not read it")
        for recording in _used(manifest):
            digest, files = recording["hash"], _files(recording)
            # Two stretches of one file may well lie on two sides.
            if twin := tested.get(digest) or holding.get(digest) or next(filter(None, map(tested.get, files)), None):
                test, other = twin
                raise UserError(
                    f"{path}: recording {recording['name']} is, or shares samples with, {other['name']} of the"
                    f" test part {test}; remove that folder, and prepare it again with --exclude"
                )


def _files(recording):
    return recording.get("file_hashes", ())


def _used(manifest):
    return [recording for recording in manifest.get("recordings", []) if recording["outcome"] == "used"]
