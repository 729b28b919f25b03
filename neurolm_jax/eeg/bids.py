"""Sidecars of BIDS trees (https://bids-specification.readthedocs.io): a faulty one costs what it tells, no more."""

import collections
import json
import math
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from neurolm_jax.eeg.files import decode, not_fetched, stem_of

DESCRIPTION = "dataset_description.json"
LINE_FREQUENCIES = (40, 70)  # Hz: no mains are beyond
HEAD_RADIUS = (0.04, 0.16)  # metres, of the median electrode
_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_MODALITY = re.compile(r"^(?P<stem>sub-(?P<subject>[^_/]+)(?:_ses-(?P<session>[^_/]+))?(?:_.*)?)_eeg$", re.IGNORECASE)


class Positions(NamedTuple):
    """Where electrodes are: ``metres`` x, y, z by name as electrodes.tsv has it; the name of the coordinate system as
    coordsystem.json tells it (``EEGCoordinateSystem``), None if it does not; and its ``landmarks``, in any unit."""

    metres: dict[str, tuple[float, float, float]]
    system: str | None
    landmarks: dict[str, Any] | None = None


class Name(NamedTuple):
    """What a BIDS file name tells: subject and session (or None) without sub- and ses-."""

    subject: str
    session: str | None


def parse_name(file: pathlib.Path) -> Name | None:
    """Parse the name of a scalp EEG recording of a BIDS tree; None of other names."""
    match = _MODALITY.match(stem_of(file.name))
    return Name(match["subject"], match["session"]) if match else None


class Sidecars:
    """The sidecars of BIDS trees, each read once.

    A recording's own sidecar is the nearest one, up to the tree's root, whose entities are all its own; fields of JSON
    are taken together, the nearer the stronger.

    Attributes:
      faults: what is wrong with a sidecar, by file; what it tells is left out.
    """

    def __init__(self) -> None:
        self.faults: dict[pathlib.Path, str] = {}
        self._roots: dict[pathlib.Path, list[pathlib.Path]] = {}
        self._names: dict[pathlib.Path, list[str]] = {}
        self._objects: dict[pathlib.Path, dict[str, Any]] = {}
        self._tables: dict[pathlib.Path, list[dict[str, str]]] = {}
        self._rows: dict[tuple[pathlib.Path, str], dict[str, dict[str, str]]] = {}

    def roots(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Return the roots of the BIDS trees that a folder is in, the innermost first."""
        if folder not in self._roots:
            above = self.roots(folder.parent) if folder.parent != folder else []
            own = [folder] if os.path.lexists(folder / DESCRIPTION) else []
            self._roots[folder] = own + above
        return self._roots[folder]

    def cohort(self, recording: pathlib.Path) -> str | None:
        """Return the name of the outermost tree that a recording is in, as its description tells it."""
        name = self._object(self.roots(recording.parent)[-1] / DESCRIPTION).get("Name")
        return name if isinstance(name, str) and name.strip() else None

    def line_frequency(self, recording: pathlib.Path) -> float | None:
        """Return the power line's frequency in Hz, None if it is not told."""
        told = (f for f in self._sidecars(recording, "eeg", ".json") if "PowerLineFrequency" in self._object(f))
        file = next(told, None)
        value = self._object(file)["PowerLineFrequency"] if file else None
        if file is None or value is None or (isinstance(value, str) and value.strip().lower() in ("", "n/a")):
            return None
        lowest, highest = LINE_FREQUENCIES
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not lowest <= value <= highest:
            self._fault(file, f"PowerLineFrequency is {str(value)[:40]}, not {lowest} to {highest} Hz")
            return None
        return float(value)

    def channels(self, recording: pathlib.Path) -> list[dict[str, str]]:
        """Return the rows of channels.tsv (``name``, ``type``, ``units``, ``status`` ...), cells as they are."""
        return self._nearest_table(recording, "channels", "name")

    def left_out(self, recording: pathlib.Path) -> tuple[tuple[str, str], ...]:
        """Return channels that channels.tsv calls bad or of another kind than EEG, each with the reason."""
        reasons = []
        for row in self.channels(recording):
            kind = row.get("type", "n/a").strip()
            if kind.upper() not in ("EEG", "N/A", ""):
                reasons.append((row["name"], f"of type {kind}"))
            elif row.get("status", "").strip().lower() == "bad":
                reasons.append((row["name"], "marked bad"))
        return tuple(reasons)

    def events(self, recording: pathlib.Path) -> tuple[tuple[str, int], ...]:
        """Return how often each trial type occurs in events.tsv."""
        rows = self.event_rows(recording)
        return tuple(collections.Counter(row.get("trial_type", "event") for row in rows).items())

    def event_rows(self, recording: pathlib.Path) -> list[dict[str, str]]:
        """Return the rows of events.tsv (``onset``, ``duration``, ``trial_type`` ...), cells as they are."""
        return self._nearest_table(recording, "events", "onset") if self.roots(recording.parent) else []

    def participant(self, recording: pathlib.Path, subject: str) -> tuple[tuple[str, str], ...]:
        """Return a subject's row of participants.tsv, of the innermost tree that has one."""
        for root in self.roots(recording.parent):
            rows = self._by(root / "participants.tsv", "participant_id")
            if row := rows.get(f"sub-{subject}") or rows.get(subject):
                return tuple(row.items())
        return ()

    def scan(self, recording: pathlib.Path) -> tuple[tuple[str, str], ...]:
        """Return a recording's row of scans.tsv, whose names are relative to the table's folder."""
        root = self.roots(recording.parent)[0]
        for folder in (recording.parent, *recording.parent.parents):
            for name in self._listing(folder):
                if name.startswith("sub-") and name.endswith("_scans.tsv"):
                    row = self._by(folder / name, "filename").get(recording.relative_to(folder).as_posix())
                    if row:
                        return tuple(row.items())
            if folder == root:
                break
        return ()

    def positions(self, recording: pathlib.Path) -> Iterator[Positions]:
        """Yield electrode positions of each electrodes.tsv, in metres by the units of coordsystem.json.

        Where these are not told, or make no head, the unit is the one that makes one; where none does, there are no
        positions to use.
        """
        if not self.roots(recording.parent):
            return
        for file in self._sidecars(recording, "electrodes", ".tsv"):
            if (found := self._positions_of(recording, file)) is not None:
                yield found

    def _positions_of(self, recording, file):
        space = [entity for entity in _entities(file.stem) if entity.startswith("space-")]
        systems = self._sidecars(recording, "coordsystem", ".json")
        system = next((f for f in systems if [e for e in _entities(f.stem) if e.startswith("space-")] == space), None)
        fields = self._object(system) if system else {}
        places = {row["name"]: place for row in self._table(file, "name") if (place := _place(row))}
        told = fields.get("EEGCoordinateUnits")
        scale = _scale(list(places.values()), told if isinstance(told, str) else "n/a")
        if not places or scale is None:
            if places:
                self._fault(file, "its positions are those of no head, in whatever unit")
            return None
        if isinstance(told, str) and told in _METRES and scale != _METRES[told] and system:
            self._fault(system, f"EEGCoordinateUnits is {told}, but the positions of {file.name} are not in {told}")
        metres = {name: (x * scale, y * scale, z * scale) for name, (x, y, z) in places.items()}
        named = fields.get("EEGCoordinateSystem")
        landmarks = fields.get("AnatomicalLandmarkCoordinates")
        landmarks = landmarks if isinstance(landmarks, dict) else None
        return Positions(metres, named if isinstance(named, str) else None, landmarks)

    def _sidecars(self, recording: pathlib.Path, kind: str, suffix: str) -> Iterator[pathlib.Path]:
        """A recording's sidecars of a kind, the nearest and most specific first."""
        entities, root = _entities(stem_of(recording.name)), self.roots(recording.parent)[0]
        for folder in (recording.parent, *recording.parent.parents):
            matching = []
            for name in self._listing(folder):
                if name.endswith(suffix) and (own := _entities(name[: -len(suffix)]))[-1:] == [kind]:
                    # The parts of a recording share their sidecars; positions have a space of their own.
                    rest = {entity for entity in own[:-1] if not entity.startswith("space-")}
                    if rest <= set(entities):
                        matching.append((-len(rest), len(own), name))
            yield from (folder / name for *_, name in sorted(matching))
            if folder == root:
                return

    def _nearest_table(self, recording, kind, key):
        file = next(self._sidecars(recording, kind, ".tsv"), None)
        return self._table(file, key) if file else []

    def _listing(self, folder):
        if folder not in self._names:
            self._names[folder] = sorted(name for name in os.listdir(folder) if name.endswith((".tsv", ".json")))
        return self._names[folder]

    def _by(self, file, key):
        """Rows of a table by one column, each the first of its value."""
        if (file, key) not in self._rows:
            rows = self._table(file, key) if os.path.lexists(file) else []
            self._rows[file, key] = {row[key]: row for row in reversed(rows)}
        return self._rows[file, key]

    def _object(self, file):
        if file not in self._objects:
            self._objects[file] = {}
            text = self._text(file)
            if text is not None:
                try:
                    value = json.loads(text)
                except (ValueError, RecursionError) as error:
                    self._fault(file, f"not a JSON object ({error})")
                else:
                    if isinstance(value, dict):
                        self._objects[file] = value
                    else:
                        self._fault(file, f"not a JSON object, but {type(value).__name__}")
        return self._objects[file]

    def _table(self, file, key):
        """Rows of a table that have as many cells as its header; nothing of one that has no column ``key``."""
        if file not in self._tables:
            self._tables[file] = self._parse(file, self._text(file), key)
        return self._tables[file]

    def _parse(self, file, text, key):
        lines = [line for line in re.split(r"\r\n|\n|\r", text or "") if line.strip()]
        if not lines:
            if text is not None:
                self._fault(file, "an empty table")
            return []
        head, *rows = ([cell.strip().strip('"') for cell in line.rstrip("\t").split("\t")] for line in lines)
        if key not in head:
            self._fault(file, f"its first line has no column {key}")
            return []
        found, ragged = [], []
        for number, row in enumerate(rows, start=2):
            # Empty cells at the end may have been cut off; what stands before them is in its column.
            if len(row) > len(head) or (len(row) < len(head) and not lines[number - 1].endswith("\t")):
                ragged.append(number)
                continue
            cells = {name: cell for name, cell in zip(head, row) if name and cell}
            if key in cells:
                found.append(cells)
        if ragged:
            more = f" and {len(ragged) - 1} more" if len(ragged) > 1 else ""
            self._fault(file, f"row {ragged[0]}{more} has not as many cells as the header, and is not heeded")
        return found

    def _text(self, file):
        """Text of a sidecar; None where it cannot be read."""
        if fault := not_fetched(file):
            self._fault(file, fault)
            return None
        try:
            data = file.read_bytes()
        except OSError as error:
            self._fault(file, f"cannot be read ({error.strerror})")
            return None
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self._fault(file, f"not in UTF-8 ({error.reason} at byte {error.start}); read as Latin-1 or UTF-16")
            return decode(data)

    def _fault(self, file, fault):
        self.faults.setdefault(file, fault)


def _entities(stem: str) -> list[str]:
    """Parts of a name; of a recording split into several files, not which of them it is."""
    return [entity for entity in stem.split("_") if not entity.startswith("split-")]


def _place(row):
    try:
        place = tuple(float(row[axis]) for axis in "xyz")
    except (KeyError, ValueError):  # n/a
        return None
    return place if all(map(math.isfinite, place)) else None


def _scale(places: Sequence[tuple[float, float, float]], unit: str) -> float | None:
    """Metres of a unit, that which is told if it makes a head, else the one that does; None if none does."""
    radii = sorted(math.hypot(*place) for place in places)
    if not radii:
        return None
    lowest, highest = HEAD_RADIUS
    units = [unit] * (unit in _METRES) + list(_METRES)
    return next((_METRES[u] for u in units if lowest <= radii[len(radii) // 2] * _METRES[u] <= highest), None)
