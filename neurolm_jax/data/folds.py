"""Deal labelled windows anew into training, validation and test part, by whole people, for cross-validation."""

import collections
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from neurolm_jax.data.shards import Shards
from neurolm_jax.data.shares import choose
from neurolm_jax.errors import UserError

LEFT_OUT = "other fold"  # what became of a recording, in the manifest of a part that it does not belong to


def split_people(parts: Sequence[Shards], folds: int) -> list[set[str]]:
    """Deal the people of all parts of a set into folds.

    People are ordered by the label that most of their windows have, then by a hash of their name, and dealt in turns:
    each fold has as many of each label as can be, and nothing depends on a seed or on the order of files. People whose
    recordings are the same, whatever they are called, stay together.

    Raises:
      UserError: fewer people than folds.
    """
    labels = collections.defaultdict(collections.Counter)
    alike: dict[str, set[str]] = {}
    owners: dict[str, str] = {}
    for part in parts:
        names = subjects(part)
        for number, label in zip(part.manifest["index"].get("recording", []), part.manifest["index"].get("label", [])):
            labels[names[number]][label] += 1
        for recording, name in zip(part.manifest["recordings"], names):
            for digest in filter(None, [recording.get("hash"), *recording.get("file_hashes", ())]):
                _join(alike, name, owners.setdefault(digest, name))
    groups = {min(alike.get(name, {name})): sorted(alike.get(name, {name}) & labels.keys()) for name in labels}
    if len(groups) < folds:
        raise UserError(f"config.data.folds: {folds} folds of {len(groups)} people; choose fewer")

    def order(first):
        votes = sum((labels[name] for name in groups[first]), collections.Counter())
        most = max(sorted(votes), key=votes.__getitem__)
        return most, hashlib.sha256(first.encode()).digest()

    dealt: list[set[str]] = [set() for _ in range(folds)]
    for place, first in enumerate(sorted(groups, key=order)):
        dealt[place % folds].update(groups[first])
    return dealt


def people_of(split: str, dealt: Sequence[set[str]], fold: int) -> set[str]:
    """Return who is in a split of a fold: test has its own people, validation the next fold's, train all others."""
    after = (fold + 1) % len(dealt)
    if split != "train":
        return dealt[fold if split == "test" else after]
    return set().union(*(people for number, people in enumerate(dealt) if number not in (fold, after)))


def of_people(parts: Iterable[Shards], split: str, people: set[str]) -> list[Shards]:
    """Return the records of some people, from each part that has any; their manifests call themselves the split."""
    found = []
    for part in parts:
        names = subjects(part)
        kept = np.flatnonzero([names[number] in people for number in part.manifest["index"].get("recording", [])])
        if not len(kept):
            continue
        recordings = [
            recording if name in people or recording["outcome"] != "used" else recording | {"outcome": LEFT_OUT}
            for recording, name in zip(part.manifest["recordings"], names)
        ]
        found.append(choose(part, kept, f"{split} {kept.tolist()}", recordings=recordings, split=split))
    return found


def subjects(part: Shards) -> list[str]:
    """Return the subject of each recording of a part, or the recording itself where the set does not tell subjects."""
    return [recording.get("subject") or recording["name"] for recording in part.manifest["recordings"]]


def _join(alike, one, other):
    both = alike.get(one, {one}) | alike.get(other, {other})
    for name in both:
        alike[name] = both
