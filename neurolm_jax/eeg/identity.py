"""What makes a recording the same recording under another name: its samples."""

import hashlib

import numpy as np


class ContentHash:
    """SHA-256 of samples as read, fed a stretch at a time: channel by channel, then over the channels' digests."""

    def __init__(self, channels: int):
        self._channels = [hashlib.sha256() for _ in range(channels)]

    def update(self, x: np.ndarray) -> None:
        """Go on with samples x [C, N]."""
        for digest, samples in zip(self._channels, np.ascontiguousarray(x, np.float64)):
            digest.update(samples)

    def hexdigest(self) -> str:
        return hashlib.sha256(b"".join(digest.digest() for digest in self._channels)).hexdigest()


def content_hash(x: np.ndarray) -> str:
    """Of all samples [C, N] at once."""
    found = ContentHash(len(x))
    found.update(x)
    return found.hexdigest()
