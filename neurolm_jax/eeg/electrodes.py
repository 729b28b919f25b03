"""The electrode vocabulary: a channel's id is the place of its name, as in the released models."""

import re
from typing import NamedTuple

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
_PLACES = {name.upper(): i for i, name in enumerate(VOCABULARY)}
# Two names for one place on the scalp, of the 10-20 system and of the 10-10 system that went on from it.
ALIASES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
REFERENCES = {"REF", "LE", "AR", "AVG", "CAR", "A1A2", "A1+A2", "M1M2", "M1+M2", "LER", "CLE", "0", "G2"}
_DECORATION = re.compile(r"^(?:EEG|POL)?[ _:]*(.*?)[ .]*(?:-\d+)?$")  # MNE numbers names that occur twice


class Channel(NamedTuple):
    """Id of an electrode, or of a bipolar pair; and the reference that the name tells, if any."""

    electrode: int
    reference: str | None


def parse_channel(name: str) -> Channel | None:
    """What a channel name such as ``Fp1``, ``EEG FP1-REF``, ``C3..``, ``EEG Fpz-Cz`` or ``F7-T3`` stands for.

    A pair that the vocabulary does not have, such as ``C4-M1``, is its first electrode against the second. None if
    the name is of no electrode in the vocabulary.
    """
    bare = _DECORATION.match(name.strip().upper()).group(1)  # type: ignore[union-attr]  # which matches anything
    if "-" not in bare:
        return _single(bare, None)
    first, second = (part.strip(" .") for part in bare.split("-", 1))
    pair = _PLACES.get(f"{ALIASES.get(first, first)}-{ALIASES.get(second, second)}")
    if pair is not None:
        return Channel(pair, None)
    if second in REFERENCES or _single(second, None):
        return _single(first, second)
    return None


def electrode_id(name: str) -> int | None:
    """Id of a channel name, see ``parse_channel``; None if it is not in the vocabulary."""
    found = parse_channel(name)
    return found.electrode if found else None


def _single(name, reference):
    place = _PLACES.get(ALIASES.get(name, name))
    return None if place is None or place == PAD else Channel(place, reference)
