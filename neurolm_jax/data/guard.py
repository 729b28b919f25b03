"""Nothing that is tested on may be trained on."""

from collections.abc import Iterable

from neurolm_jax.data.shards import Shards
from neurolm_jax.errors import UserError


def check_disjoint(training: Iterable[Shards], tests: Iterable[Shards]) -> None:
    """Compare recordings by the hash of their samples, under whatever name they lie, and of the files that they are
    taken from.

    Raises:
      UserError: a training folder is itself a test part, or shares a recording with one.
    """
    found = [(test, recording) for test in tests for recording in _used(test)]
    tested = {recording["hash"]: (test, recording) for test, recording in found if recording["hash"]}
    holding = {digest: (test, recording) for test, recording in found for digest in _files(recording)}
    for shards in training:
        if shards.manifest.get("split") == "test":
            raise UserError(f"{shards.path} is a test part; training does not read it")
        for recording in _used(shards):
            digest, files = recording["hash"], _files(recording)
            # Two stretches of one file may well lie on two sides.
            if twin := tested.get(digest) or holding.get(digest) or next(filter(None, map(tested.get, files)), None):
                test, other = twin
                raise UserError(
                    f"{shards.path}: recording {recording['name']} is, or shares samples with, {other['name']} of the"
                    f" test part {test.path}; remove that folder, and prepare it again with --exclude"
                )


def _files(recording):
    return recording.get("file_hashes", ())


def _used(shards):
    return [recording for recording in shards.manifest.get("recordings", []) if recording["outcome"] == "used"]
