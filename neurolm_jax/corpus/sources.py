"""Which recordings lie under the inputs, and what their paths and sidecars tell about them."""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable
from typing import Any

from neurolm_jax.eeg.bids import Sidecars, parse_name
from neurolm_jax.eeg.files import Files, files_below, not_fetched, stem_of
from neurolm_jax.eeg.positions import read_places
from neurolm_jax.errors import UserError
from neurolm_jax.escaping import escape

TUH = "tuh"  # the cohort of all sets of Temple University Hospital
_MONTAGE = re.compile(r"\d\d_tcp_(?P<reference>ar|le)(_a)?")
_SESSION = re.compile(r"s\d{3}(_\d{4}(_\d\d_\d\d)?)?")
_PERSON = re.compile(r"[a-z0-9]{8}")
_FILE = re.compile(r"(?P<subject>[a-z0-9]{8})_(?P<session>s\d{3})(_t\d{3})?")
_EVENTS_FILE = re.compile(r"(?P<subject>[a-z]{8}|\d{8})_\d{8}")  # of TUEV, AAAAAAAR/AAAAAAAR_00000001.edf
_OTHER_MODALITY = re.compile(r"_(?P<kind>ieeg|meg)$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Source:
    """A recording's path; ``name`` is that path below its input. The rest is what path and sidecars tell, or None.

    Attributes:
      cohort: what the subject's name is unique in.
      mains: Hz.
      left_out: pairs of channel and reason.
      positions: pairs of channel and place on the head, to the right, front and up.
      renaming: pairs of channel and electrode, of the user's own.
      excluded: why no sample of it may be used.
      fault: why none can be.
      participant, scan, events: see ``Outcome``.
      warnings: what was found wrong with sidecars when they were read for this recording the first time.
      options: of its reader, as pairs.
      state: digest of its files as they were when it was found: work on what it was before is not taken for it.
    """

    path: pathlib.Path
    name: str
    subject: str | None = None
    cohort: str | None = None
    session: str | None = None
    reference: str | None = None
    mains: float | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    positions: tuple[tuple[str, tuple[float, ...]], ...] = ()
    renaming: tuple[tuple[str, str], ...] = ()
    participant: tuple[tuple[str, str], ...] = ()
    scan: tuple[tuple[str, str], ...] = ()
    events: tuple[tuple[str, int], ...] = ()
    excluded: str | None = None
    fault: str | None = None
    warnings: tuple[str, ...] = ()
    options: tuple[tuple[str, Any], ...] = dataclasses.field(default=(), hash=False)
    state: str = ""


def find(inputs: Iterable[pathlib.Path]) -> tuple[list[Source], dict[str, int]]:
    """Find the recordings among the inputs and under them, in the order of their paths; and how many other files there
    are, by suffix, and folders that are not searched, by name.

    Folders that several links or inputs lead to are searched once, folders of derived data and hidden ones not at all
    (see ``files.is_searched``), unless they are themselves an input.

    Raises:
      UserError: there is none.
    """
    inputs = list(inputs)
    found: list[Source] = []
    others: collections.Counter[str] = collections.Counter()
    files, sidecars, visited = Files(), Sidecars(), set()

    def not_searched(folder):
        others[f"{escape(folder.name)}/"] += 1

    for root in inputs:
        paths = sorted(files_below(root, visited, not_searched))
        base = root.parent if paths == [root] else root
        for path in paths:
            if not files.is_recording(path):
                others[escape(path.suffix.lower() or path.name)] += 1
                continue
            part = files.later_part(path)
            if part is None or part[1] is False or path == root:
                found.append(_source(path, base, part, files, sidecars))
    if not found:
        named = [name for name in others if name.endswith("/")]
        more = f"; not searched: {', '.join(named)}" if named else ""
        raise UserError(f"{', '.join(map(str, inputs))}: no recording of a format that MNE reads{more}")
    return found, dict(others)


def _source(path, base, part, files, sidecars):
    before = set(sidecars.faults)
    told = _path_and_sidecars(path, sidecars)
    if part:
        first, there = part
        remedy = "give that one, with which it is read" if there else "which is missing"
        told["fault"] = f"it goes on where another file of its recording ends; the first is {first.name}, {remedy}"
    told["fault"] = told.get("fault") or next(filter(None, map(not_fetched, files.own(path))), None)
    new = [file for file in sidecars.faults if file not in before]
    told["warnings"] = tuple(escape(f"{file}: {sidecars.faults[file]}") for file in new)
    return Source(path, escape(path.relative_to(base).as_posix()), state=files.state(path), **told)


def _path_and_sidecars(path, sidecars) -> dict[str, Any]:
    """What is told by where a recording lies, or where it lies really if a link leads to it."""
    for place in _places(path):
        if told := _tuh(place) or _bids(place, sidecars):
            return told
    match = _OTHER_MODALITY.search(stem_of(path.name))
    return {"fault": f"its name says that it is {match['kind'].lower()}, not scalp EEG"} if match else {}


def _places(path):
    """The paths by which links lead to a file, the given one first; none within what git-annex keeps."""
    places = [path, pathlib.Path(os.path.abspath(path))]
    while len(places) < 40:  # as many links as Linux follows
        last = places[-1]
        real = pathlib.Path(os.path.realpath(last.parent)) / last.name
        places.append(real)
        if not real.is_symlink():
            break
        places.append(real.parent / os.readlink(real))
    return [place for place in dict.fromkeys(places) if ".git" not in place.parts]


def _tuh(path) -> dict[str, Any] | None:
    """Of a file in a tree of Temple University Hospital, old or new: subject, session and reference, by the folders
    above it and its name."""
    folders, stem = [folder.lower() for folder in path.parts[:-1]], path.stem.lower()
    montage = next(filter(None, map(_MONTAGE.fullmatch, reversed(folders))), None)
    place = next((i for i in reversed(range(len(folders))) if _SESSION.fullmatch(folders[i])), None)
    session = None if place is None else folders[place]
    told = {"cohort": TUH, "reference": montage and montage["reference"].upper()}
    # Files of TUSL are not always called after the person in whose folder they lie.
    if montage and place and _PERSON.fullmatch(folders[place - 1]):
        return told | {"subject": folders[place - 1], "session": session}
    if match := _FILE.fullmatch(stem):
        # Without a token _t000, other sets have such names too.
        if match[3] or montage:
            number = match["session"]
            session = session if session and session.startswith(number) else None
            return told | {"subject": match["subject"], "session": session or number}
    elif (match := _EVENTS_FILE.fullmatch(stem)) and folders[-1:] == [match["subject"]]:
        return told | {"subject": match["subject"], "session": None}
    return None


def _bids(path, sidecars) -> dict[str, Any] | None:
    if not sidecars.roots(path.parent):
        return None
    cohort, name = sidecars.cohort(path), parse_name(path)
    cohort = escape(cohort) if cohort else None
    if name is None:
        return {"cohort": cohort, "fault": "it lies in a BIDS tree, where the names of scalp EEG end in _eeg"}
    return {
        "subject": escape(name.subject),
        "session": name.session and escape(name.session),
        "cohort": cohort,
        "mains": sidecars.line_frequency(path),
        "left_out": sidecars.left_out(path),
        "participant": sidecars.participant(path, name.subject),
        "scan": sidecars.scan(path),
        "events": sidecars.events(path),
        "positions": tuple((n, tuple(x.tolist())) for n, x in read_places(path, sidecars).items()),
    }
