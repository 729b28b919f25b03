"""Where a recording goes on without a jump, and what its annotations call bad."""

import collections
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

_ALMOST = 0.01  # samples; onsets are sums of fractions
# Kinds of jumps, by what the annotations of the formats and of MNE call them.
_SEAMS = {
    "boundary": re.compile(r"(bad |edge )?boundary"),
    "new segment": re.compile(r"new segment.*"),
    "discontinuous records": re.compile(r"edge discontinuous records"),
    "new epoch": re.compile(r"edge new epoch"),
    "edge": re.compile(r"edge.*"),
}
_SKIP = re.compile(r"bad[ _]acq[ _]skip.*")
_CODES = {"32766": (".gdf",), "-99": (".set",)}  # of a new run, where a format numbers its events


class Timeline(NamedTuple):
    """Spans of a recording, and the stretches of them that are bad.

    Attributes:
      spans: first and last sample of each, in order; no filter or window crosses from one to the next. What no span
        has was not recorded.
      jumps: how often time jumps, by kind.
      bad: first and last second, and names of the channels that it is about, () for all.
    """

    spans: tuple[tuple[int, int], ...]
    jumps: dict[str, int]
    bad: tuple[tuple[float, float, tuple[str, ...]], ...]


def timeline(raw: "mne.io.BaseRaw") -> Timeline:
    """Return the spans of a recording from its annotations; sample 0 and second 0 are the first of ``raw``."""
    rate, length = float(raw.info["sfreq"]), int(raw.n_times)
    seams: dict[int, str] = {}
    skips, bad = [], []
    suffix = str(raw.filenames[0] or "").lower()[-4:] if raw.filenames else ""
    for onset, duration, description, names in zip(
        raw.annotations.onset, raw.annotations.duration, raw.annotations.description, raw.annotations.ch_names
    ):
        plain = " ".join(str(description).casefold().split())
        begin = float(onset) - raw.first_time
        first = int(np.ceil(begin * rate - _ALMOST))
        if _SKIP.fullmatch(plain):
            skips.append((max(0, first), min(length, int(np.ceil((begin + duration) * rate - _ALMOST)))))
        elif suffix in _CODES.get(plain, ()):
            seams.setdefault(first, "boundary" if suffix == ".set" else "new segment")
        elif kind := next((kind for kind, pattern in _SEAMS.items() if pattern.fullmatch(plain)), None):
            seams[first] = kind if seams.get(first, "edge") == "edge" else seams[first]
            if kind == "edge" and duration:
                seams.setdefault(int(np.ceil((begin + duration) * rate - _ALMOST)), kind)
        elif plain.startswith("bad"):
            bad.append((begin, begin + max(float(duration), 1 / rate), tuple(names)))
    inside = {sample: kind for sample, kind in sorted(seams.items()) if 0 < sample < length}
    skips = sorted({(first, last) for first, last in skips if first < last})  # FIF tells them twice
    jumps = collections.Counter(inside.values())
    jumps["bad_acq_skip"] = len(skips)
    edges = sorted({0, length, *inside, *(sample for skip in skips for sample in skip)})
    spans = tuple(
        (first, last)
        for first, last in zip(edges, edges[1:])
        if not any(begin <= first and last <= end for begin, end in skips)
    )
    return Timeline(spans, {kind: count for kind, count in jumps.items() if count}, tuple(bad))
