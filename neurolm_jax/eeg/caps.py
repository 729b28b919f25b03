"""Caps whose labels are numbers of an amplifier: BioSemi's and EGI's.

``A1`` is the left earlobe beside names of the 10-20 system, the vertex in BioSemi's cap of 128 electrodes, and Fp1 in
that of 64. Labels are therefore looked up as a set: a cap is known by all of its labels, and their places are MNE's.
"""

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from neurolm_jax.eeg.electrodes import electrode_id
from neurolm_jax.eeg.positions import nearest_electrodes, standard_directions, template

BANK = 32  # electrodes on one connector of BioSemi's: A1 to A32, B1 ...
NAMED = (16, 32, 64)  # BioSemi's caps with places of the 10-20 system, which MNE's montages list in the order of labels
EQUIRADIAL = (128, 160, 256)
HYDROCEL = {32: "GSN-HydroCel-32", 64: "GSN-HydroCel-64_1.0", 128: "GSN-HydroCel-128", 256: "GSN-HydroCel-256"}
BANK_FRACTION, NET_FRACTION = 0.75, 0.5  # of its labels from which on a cap is known: bad channels may be gone
_BIOSEMI = re.compile(r"^([A-H])0?(\d{1,2})$")
_EGI = re.compile(r"^E0{0,2}(\d{1,3})$")
_CONNECTOR = re.compile(r"^[A-Z]\d{1,3}$")
VERTEX = ("VREF", "VERTEX", "VERTEX REFERENCE")  # names of EGI's reference at Cz, where it is recorded too
# The manufacturer's equivalents in the 10-20 system, by which the net's template is drawn over the head. The nets of 32
# and 64 electrodes have places of that of 128.
_ANCHORS = {
    128: """FP1 22 FP2 9 F7 33 F3 24 FZ 11 F4 124 F8 122 FCZ 6 T7 45 C3 36 C4 104 T8 108 CPZ 55 TP9 57 TP10 100
        P7 58 P3 52 PZ 62 P4 92 P8 96 POZ 72 O1 70 OZ 75 O2 83""",
    256: """FP1 37 FP2 18 F7 47 F3 36 FZ 21 F4 224 F8 2 FCZ 15 T7 69 C3 59 C4 183 T8 202 CPZ 81 TP9 94 TP10 190
        P7 96 P3 87 PZ 101 P4 153 P8 170 POZ 119 O1 116 OZ 126 O2 150""",
}


class Cap(NamedTuple):
    """A cap: its name, the labels that are its own, and the electrode's id by label, of those that are near one."""

    name: str
    labels: frozenset[str]
    electrodes: dict[str, int]


def find_cap(labels: Iterable[str]) -> Cap | None:
    """Return the cap that a recording's labels are of, with the labels as given; None if they are of none."""
    labels = list(labels)
    banks = {label: (match[1], int(match[2])) for label in labels if (match := _BIOSEMI.match(label))}
    banks = {label: place for label, place in banks.items() if 1 <= place[1] <= BANK}
    count = _biosemi_count(set(banks.values()))
    if count:
        by_place = _biosemi(count)
        return Cap(
            f"BioSemi {count}",
            frozenset(banks),
            {label: by_place[place] for label, place in banks.items() if place in by_place},
        )
    numbers = {label: int(match[1]) for label in labels if (match := _EGI.match(label))}
    numbers = {label: number for label, number in numbers.items() if number}
    # E may be one connector among others, of an amplifier whose cap is not known.
    connectors = {label for label in labels if _CONNECTOR.match(label)} - set(numbers)
    count = None if len(connectors) > len(numbers) / 2 else _hydrocel_count(set(numbers.values()))
    if count:
        by_number = _hydrocel(count)
        numbers |= {label: count + 1 for label in labels if label in VERTEX}
        electrodes = {label: by_number[number] for label, number in numbers.items() if number in by_number}
        return Cap(f"EGI HydroCel {count}", frozenset(numbers), electrodes)
    return None


def _biosemi_count(places):
    """Electrodes of the smallest cap that has all places, most of every connector being there; None if none has."""
    if not places:
        return None
    letters = "ABCDEFGH"
    last = letters.index(max(letter for letter, _ in places)) + 1
    size = 16 if last == 1 and max(number for _, number in places) <= 16 else BANK
    count = size if last == 1 else BANK * last
    filled = [sum(letter == one for letter, _ in places) for one in letters[:last]]
    known = count in NAMED or count in EQUIRADIAL
    return count if known and min(filled) >= BANK_FRACTION * min(size, BANK) else None


def _hydrocel_count(numbers):
    """Electrodes of the smallest net that has all numbers (one more is the vertex), half of them or more being there;
    None if none has."""
    if not numbers:
        return None
    count = next((count for count in HYDROCEL if max(numbers) <= count + 1), None)
    return count if count and len(numbers) >= NET_FRACTION * count else None


@functools.cache
def _biosemi(count):
    """Electrode id by letter and number."""
    places = template(f"biosemi{count}")
    if count in NAMED:
        named = {("ABCDEFGH"[i // BANK], i % BANK + 1): electrode_id(name) for i, name in enumerate(places)}
        return {place: electrode for place, electrode in named.items() if electrode is not None}
    near = nearest_electrodes({label: place / np.linalg.norm(place) for label, place in places.items()})
    return {(label[0], int(label[1:])): electrode for label, (electrode, _) in near.items()}


@functools.cache
def _hydrocel(count):
    """Electrode id by number; the vertex has the one after the last."""
    places = {int(name[1:]): place for name, place in template(HYDROCEL[count]).items() if name.startswith("E")}
    directions = {number: place / np.linalg.norm(place) for number, place in places.items()}
    directions[count + 1] = np.array([0.0, 0.0, 1.0])
    drawn = _over_the_head(count)(np.stack(list(directions.values())))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    near = nearest_electrodes({str(number): place for number, place in zip(directions, drawn)})
    return {int(number): electrode for number, (electrode, _) in near.items()}


def _over_the_head(count):
    """The smooth map of directions [C, 3] that takes a net's anchors to their electrodes."""
    from scipy.interpolate import RBFInterpolator

    anchored = 256 if count == 256 else 128
    words = _ANCHORS[anchored].split()
    places, standard = template(HYDROCEL[anchored]), standard_directions()
    source = [places[f"E{number}"] for number in words[1::2]]
    source = [place / np.linalg.norm(place) for place in source] + [np.array([0.0, 0.0, 1.0])]
    target = [standard[electrode_id(name)] for name in (*words[::2], "CZ")]
    return RBFInterpolator(np.stack(source), np.stack(target), kernel="thin_plate_spline")
