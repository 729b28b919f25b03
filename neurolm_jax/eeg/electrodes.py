"""The electrode vocabulary, and what the name of a channel says by itself.

A channel's id is its index in the vocabulary, as in the released models. What the names of a whole recording say
together is judged in ``montage.py``.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

VOCABULARY = tuple(
    """
    FP1 FPZ FP2 AF9 AF7 AF5 AF3 AF1 AFZ AF2 AF4 AF6 AF8 AF10 F9 F7 F5 F3 F1 FZ F2 F4 F6 F8 F10 FT9 FT7 FC5 FC3 FC1 FCZ
    FC2 FC4 FC6 FT8 FT10 T9 T7 C5 C3 C1 CZ C2 C4 C6 T8 T10 TP9 TP7 CP5 CP3 CP1 CPZ CP2 CP4 CP6 TP8 TP10 P9 P7 P5 P3 P1
    PZ P2 P4 P6 P8 P10 PO9 PO7 PO5 PO3 PO1 POZ PO2 PO4 PO6 PO8 PO10 O1 OZ O2 O9 CB1 CB2 IZ O10 T3 T5 T4 T6 M1 M2 A1 A2
    CFC1 CFC2 CFC3 CFC4 CFC5 CFC6 CFC7 CFC8 CCP1 CCP2 CCP3 CCP4 CCP5 CCP6 CCP7 CCP8 T1 T2 FTT9h TTP7h TPP9h FTT10h TPP8h
    TPP10h FP1-F7 F7-T7 T7-P7 P7-O1 FP2-F8 F8-T8 T8-P8 P8-O2 FP1-F3 F3-C3 C3-P3 P3-O1 FP2-F4 F4-C4 C4-P4 P4-O2 pad I1 I2
    """.split()
)
PAD = VOCABULARY.index("pad")
_IDS = {name.upper(): i for i, name in enumerate(VOCABULARY)}
# Two names for one place on the scalp, of the 10-20 system and of the 10-10 system that went on from it.
ALIASES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
_SHARED = {VOCABULARY.index(old): VOCABULARY.index(new) for old, new in ALIASES.items()}
REFERENCES = set(
    """REF REF1 REF2 REFERENCE VREF LE LEAR LINKED LINK LKD EAR EARS EARLOBE EARLOBES LER CLE AR AV AVE AVG AVERAGE CA
    CAR CMR CMS DRL CMSDRL COM COMM COMMON LM RM LMRM LMASTOID RMASTOID MASTOID MASTOIDS MAST A1A2 A2A1 M1M2 M2M1 A12
    M12 AX AA LR TP9TP10 NOSE NZ ORG ORIG CS2 CSZ 0 G2""".split()
)
# Electrodes off the scalp, against which others are measured; on the midline of it, recorders have theirs too.
EARS = {"A1", "A2", "M1", "M2"}
MASTOIDS = EARS | {"TP9", "TP10"}
MIDLINE = {"FPZ", "AFZ", "FZ", "FCZ", "CZ", "CPZ", "PZ", "POZ", "OZ", "IZ"}
_PREFIX = re.compile(r"^(?:(?:EEG|POL)[ _:.-]*)*")
_UNIT = re.compile(r"[\[(] *[UNM\u00b5\u03bc\u039c]?V *[\])]$")
_RECEIVER = re.compile(r"^\d-(?=[A-H]\d{1,2}$)")  # a BioSemi amplifier's second one calls its channels 1-A1
_NUMBERED = re.compile(r"-\d+$")  # MNE numbers names that occur twice
_SEPARATOR = re.compile(r" *[-_/:\u2010-\u2015\u2212] *| +")
_TIGHT = re.compile(rf"^({'|'.join(sorted(map(re.escape, _IDS), key=len, reverse=True))})(.+)$")


class Channel(NamedTuple):
    """Id of an electrode, or of a bipolar pair; and the reference that the name tells, if any."""

    electrode: int
    reference: str | None


def parse_channel(name: str) -> Channel | None:
    """Return what a channel name such as ``Fp1``, ``EEG FP1-REF``, ``C3..``, ``C3A2`` or ``F7-T3`` stands for.

    An electrode against an earlobe, a mastoid or one of the midline is that electrode. Two others are a bipolar pair,
    which has an id of its own or none. None if the name is of nothing in the vocabulary.
    """
    first, second = split_name(name)
    if second is None:
        return _single(first, None)
    if (pair := pair_id(first, second)) is not None:
        return Channel(pair, None)
    if is_reference(second):
        # Two places off the scalp have no EEG between them.
        return None if first in EARS and second in MASTOIDS else _single(first, second)
    return _single(first, second) if second in MIDLINE and first != second else None


def electrode_id(name: str) -> int | None:
    """Return the id of a channel name, see ``parse_channel``; None if it is not in the vocabulary."""
    channel = parse_channel(name)
    return channel.electrode if channel else None


def shared_id(electrode: int) -> int:
    """Return the id of an electrode's place on the scalp: that of T7 for T3, and so on; else the id itself."""
    return _SHARED.get(electrode, electrode)


def recorded_electrodes(entry: Mapping[str, Any]) -> list[int]:
    """Return ids of the electrodes of a recording, from its entry in a manifest."""
    if "electrodes" in entry:
        return [_IDS[name.upper()] for name in entry["electrodes"]]
    # Of earlier versions, which told names of channels alone.
    return [electrode for name in entry["channels"] if (electrode := electrode_id(name)) is not None]


def is_reference(name: str) -> bool:
    """Whether the second part of a name is a common reference, or an electrode off the scalp."""
    return name in REFERENCES or name in MASTOIDS


def is_scalp(name: str) -> bool:
    """Whether a part of a name is an electrode of the vocabulary, and not one off the scalp."""
    return name in _IDS and name not in EARS and _IDS[name] != PAD


def pair_id(first: str, second: str) -> int | None:
    """Id of a bipolar pair of the vocabulary, in this order."""
    return _IDS.get(f"{ALIASES.get(first, first)}-{ALIASES.get(second, second)}")


@functools.lru_cache(maxsize=8192)
def split_name(name: str) -> tuple[str, str | None]:
    """Split a channel name into electrode and what it is measured against, in capitals; None if it does not tell.

    The name's frame is left out: ``EEG``, dots, units, MNE's numbers.
    """
    bare = _UNIT.sub("", _PREFIX.sub("", name.strip().upper())).strip(" ._:")
    bare = _RECEIVER.sub("", _NUMBERED.sub("", bare).strip(" ._:"))
    if bare in _IDS:
        return bare, None
    parts = _SEPARATOR.split(bare, maxsplit=1)
    if len(parts) == 2 and all(parts):
        return parts[0].strip(" ."), _plain_reference(parts[1])
    tight = _TIGHT.match(bare)
    if tight and tight[2][0].isalpha() and is_reference(reference := _plain_reference(tight[2])):  # A10 is not A1-0
        return tight[1], reference
    return bare, None


def _plain_reference(text):
    """``(A1+A2)/2`` as A1A2: without what only groups or joins."""
    plain = re.sub(r"[^A-Z0-9]", "", re.sub(r"/ *2$", "", text))
    return plain or text


def _single(name, reference):
    place = _IDS.get(name)
    return None if place is None or place == PAD else Channel(place, reference)
