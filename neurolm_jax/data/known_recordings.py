"""Find recordings again among others: by the hash of their samples, of their files, or by a fingerprint.

A recording of a manifest has ``hash`` and ``fingerprint``; one that is a stretch of a file, or was changed after it was
read, also ``file_hashes`` and ``file_fingerprints``. Two stretches of one file are two recordings.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from neurolm_jax.eeg.fingerprint import Known


class Match(NamedTuple):
    """number: of the known recording; copy: whether it was found by its fingerprint alone, so exported anew."""

    number: int
    copy: bool


class KnownRecordings:
    """Recordings, as manifests have them, that others are looked for among."""

    def __init__(self, recordings: Sequence[Mapping]):
        self._hashes, self._files = {}, {}
        own, whole, files = [], [], []  # (fingerprint, number)
        for number, recording in enumerate(recordings):
            if digest := recording.get("hash"):
                self._hashes.setdefault(digest, number)
            for digest in recording.get("file_hashes", ()):
                self._files.setdefault(digest, number)
            if mark := recording.get("fingerprint"):
                own.append((mark, number))
                whole += [(mark, number)] if _is_whole(recording) else []
            files += [(mark, number) for mark in recording.get("file_fingerprints", ())]
        self._own, self._whole, self._of_files = map(_Fingerprints, (own, whole, files))

    def find(self, recordings: Sequence[Mapping]) -> list[Match | None]:
        """Return which known recording each one is, or shares samples with; None for none."""
        found = [self._find_same(recording) for recording in recordings]
        others = [number for number, match in enumerate(found) if match is None]
        for known, marks in (
            (self._own, lambda recording: [recording.get("fingerprint")]),
            (self._of_files, lambda recording: [recording.get("fingerprint")] if _is_whole(recording) else []),
            (self._whole, lambda recording: recording.get("file_fingerprints", ())),
        ):
            asked = [(mark, number) for number in others for mark in filter(None, marks(recordings[number]))]
            for (_, number), match in zip(asked, known.find([mark for mark, _ in asked])):
                if match is not None and found[number] is None:
                    found[number] = Match(match, copy=True)
        return found

    def _find_same(self, recording):
        digest, files = recording.get("hash"), recording.get("file_hashes", ())
        places = [self._hashes.get(digest), self._files.get(digest), *map(self._hashes.get, files)]
        return next((Match(place, copy=False) for place in places if place is not None), None)


class _Fingerprints:
    """Fingerprints, each with the number of its recording."""

    def __init__(self, pairs):
        self._known, self._numbers = Known([mark for mark, _ in pairs]), [number for _, number in pairs]

    def find(self, marks):
        return [None if place is None else self._numbers[place] for place in self._known.match(marks)]


def _is_whole(recording):
    return not recording.get("file_hashes") and not recording.get("file_fingerprints")
