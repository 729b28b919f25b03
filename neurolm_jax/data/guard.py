"""Nothing that is tested on may be trained on."""

from collections.abc import Iterable

from neurolm_jax.data.shards import Shards
from neurolm_jax.errors import UserError


def check_disjoint(training: Iterable[Shards], tests: Iterable[Shards]) -> None:
    """Compare recordings by the hash of their samples, under whatever name they lie.

    Raises:
      UserError: a training folder is itself a test part, or shares a recording with one.
    """
    tested = {r["hash"]: (test, r) for test in tests for r in _used(test)}
    for shards in training:
        if shards.manifest.get("split") == "test":
            raise UserError(f"{shards.path} is a test part; training does not read it")
        for recording in _used(shards):
            if recording["hash"] in tested:
                test, twin = tested[recording["hash"]]
                raise UserError(
                    f"{shards.path}: recording {recording['name']} is {twin['name']} of the test part {test.path};"
                    " leave it out of training"
                )


def _used(shards):
    return [recording for recording in shards.manifest.get("recordings", []) if recording["outcome"] == "used"]
