"""Which electrodes the channels of a recording are, judged from all of its names together.

First the labels of a cap (``caps.py``), then names of the 10-20 and 10-10 systems, then, where these tell few channels,
the places that the recording brings with it (``positions.py``).
"""

import collections
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from neurolm_jax.eeg.caps import find_cap
from neurolm_jax.eeg.electrodes import (
    MIDLINE,
    VOCABULARY,
    Channel,
    is_reference,
    is_scalp,
    pair_id,
    parse_channel,
    split_name,
)
from neurolm_jax.eeg.positions import MAX_DISTANCE, electrodes_at, montage_places, standard_directions

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

MIN_FRACTION = 1 / 3  # of the EEG channels that must be known
ENOUGH = 16  # electrodes of the 10-20 system's 19: then names are to be trusted, whatever else is recorded
FEW = 4  # unknown channels that say nothing about the others
TEN_TWENTY = frozenset(
    map(VOCABULARY.index, "FP1 FP2 F7 F3 FZ F4 F8 T7 T3 C3 CZ C4 T8 T4 P7 T5 P3 PZ P4 P8 T6 O1 O2".split())
)
_CONTACT = re.compile(r"^([A-Z])'?(\d{1,2})$")
# Channels that are no EEG, though files without types call all of them so.
_OTHER = re.compile(
    r"ECG|EKG|EMG|EOG|RESP|SAO2|SPO2|O2SAT|^OX|PULS|PLETH|STATUS|TRIG|^STI|PHOTIC|MARK|EVENT|TEMP|ANNOT|^AUX|^DC ?\d|"
    r"^EXG|^EX\d|GSR|EDA|^ERG|LEG|CHIN|SNOR|FLOW|NASAL|ORAL|^AIR|THOR|ABD|CHEST|EFFORT|BELT|^HR|^H\.R|HEART|BEAT|"
    r"LIGHT|SOUND|^MIC|AUDIO|POSITION|BODY|^ACC|^GYR|^MAG|^LOC|^ROC|BURST|SUPPR|^IBI|COUNTER|BATT|CO2|PRES|CPAP|TIB|"
    r"^LAT|^RAT|^GND|GROUND|^E[12](-|$)|SYNC|CLOCK|TIME"
)


class Montage(NamedTuple):
    """What is known of a recording's channels.

    Attributes:
      channels: what a channel stands for, by name, in the order of the recording.
      reasons: why a channel stands for nothing, by name, where there is more to say than that its name is unknown.
      placed: names of channels whose place on the head is known, near an electrode of the vocabulary or not.
    """

    channels: dict[str, Channel]
    reasons: dict[str, str]
    placed: frozenset[str] = frozenset()


def read_montage(raw: "mne.io.BaseRaw") -> Montage:
    """Judge all channel names of an ``mne.io.Raw`` together, and its electrodes' places where names tell few."""
    montage = _by_name(raw.ch_names)
    eeg = _eeg_channels(raw)
    if _too_few(montage, eeg) and (places := montage_places(raw)):
        montage = _by_place(montage, {name: places[name] for name in eeg if name in places})
    return montage._replace(
        channels={name: montage.channels[name] for name in raw.ch_names if name in montage.channels}
    )


def unknown_montage(raw: "mne.io.BaseRaw", others: Collection[str] = ()) -> str | None:
    """Say what is wrong with a recording most of whose electrodes are unknown, and the remedy; None if most are known.

    Args:
      others: names of channels that are told to be no EEG.
    """
    montage, eeg = read_montage(raw), _eeg_channels(raw, others)
    if montage.channels and not _too_few(montage, eeg):
        return None
    known = [name for name in eeg if name in montage.channels]
    unknown = [name for name in eeg if name not in known] or raw.ch_names
    shown = ", ".join(unknown[:4]) + (" ..." if len(unknown) > 4 else "")
    why = next((f"; {name} is {montage.reasons[name]}" for name in unknown if name in montage.reasons), "")
    count = f"only {len(known)} of its {len(eeg)} EEG channels are known electrodes, not"
    return (
        f"{count if known else 'none of its channels is a known electrode:'} {shown}{why};"
        " tell which they are by --rename FILE, lines of NAME,ELECTRODE"
    )


def _by_place(montage, places):
    """The montage with what the places [3] of channels add to it."""
    near = electrodes_at(places)
    # Most of a dense cap's channels are between electrodes; where even these are missed, the places are not a head's.
    if len(near) < MIN_FRACTION * min(len(places), len(standard_directions())):
        return montage
    channels, reasons = dict(montage.channels), dict(montage.reasons)
    taken = {channel.electrode for channel in channels.values()}
    for name in places:
        if name in channels:
            continue
        if name in near and near[name][0] not in taken:
            channels[name] = Channel(near[name][0], None)
        else:
            reasons[name] = f"not the nearest to an electrode of the vocabulary, within {MAX_DISTANCE:g} mm"
    return Montage(channels, reasons, montage.placed | set(places))


def _by_name(names):
    """What a cap's labels, or names one by one, tell."""
    labels = {name: _label(name) for name in names}
    cap = find_cap(labels.values())
    of_cap = {name: label for name, label in labels.items() if cap and label in cap.labels}
    channels, reasons = _by_single_name([name for name in names if name not in of_cap])
    taken = {channel.electrode for channel in channels.values()}
    for name, label in of_cap.items():
        electrode = cap.electrodes.get(label)
        if electrode is not None and electrode not in taken:
            reference = split_name(name)[1]
            channels[name] = Channel(electrode, reference)
        else:
            reasons[name] = f"{label} in the cap {cap.name}, not the nearest to an electrode of the vocabulary"
    return Montage(channels, reasons, frozenset(of_cap))


def _label(name):
    """A name without its frame and a common reference, as caps have labels."""
    first, second = split_name(name)
    return first if second is None or is_reference(second) else name.strip().upper()


def _by_single_name(names):
    channels, reasons = {}, {}
    contacts = _contacts(names)
    parts = {name: split_name(name) for name in names}
    bipolar = _is_bipolar(parts.values())
    for name, (first, second) in parts.items():
        if first in contacts:
            reasons[name] = "one of an array's contacts, whose letters and numbers are no places of the 10-20 system"
        elif second in MIDLINE and bipolar and pair_id(first, second) is None:
            reasons[name] = f"a bipolar channel, {first} against {second}, which the vocabulary does not have"
        elif channel := parse_channel(name):
            channels[name] = channel
        elif second is not None and is_scalp(first) and is_scalp(second):
            reasons[name] = f"a bipolar channel, {first} against {second}, which the vocabulary does not have"
    return channels, reasons


def _is_bipolar(parts):
    """Whether a recording has bipolar pairs: then an electrode of the midline is none that all are measured against.

    They are pairs of electrodes off the midline, or chains in which one electrode is the first and the second.
    """
    pairs = {(first, second) for first, second in parts if second and is_scalp(first) and is_scalp(second)}
    pairs = {pair for pair in pairs if not is_reference(pair[1])}
    firsts = {first for first, _ in pairs}
    return any(second not in MIDLINE or second in firsts for _, second in pairs) or any(
        second is None and "-" in first for first, second in parts
    )


def _contacts(names):
    """Names in capitals, such as A1 or C3, that number contacts of an array or a cap that is not known.

    The 10-20 system has no A3, C7 or T11: where two of its letters go on as far, no single letter and number is meant
    as a place on the scalp; where one does, that letter is not.
    """
    banks = collections.defaultdict(set)
    for name in names:
        first, _ = split_name(name)
        if match := _CONTACT.match(first):
            banks[match[1]].add(first)
    known = set(VOCABULARY)
    beyond = {letter for letter, bank in banks.items() if bank - known and any(f"{letter}{i}" in known for i in (1, 2))}
    letters = set(banks) if len(beyond) > 1 else beyond
    return set().union(*(banks[letter] for letter in letters)) if letters else set()


def _eeg_channels(raw, others=()):
    """Names of the channels that are to be EEG: of this type, and not called otherwise."""
    kinds = zip(raw.ch_names, raw.get_channel_types())
    return [name for name, kind in kinds if kind == "eeg" and name not in others and not _is_other(name)]


def _is_other(name):
    return any(_OTHER.search(text) for text in (name.upper(), split_name(name)[0]))


def _too_few(montage, eeg):
    channels = montage.channels
    electrodes = {channels[name].electrode for name in eeg if name in channels}
    known = sum(name in channels or name in montage.placed for name in eeg)
    if len(TEN_TWENTY & electrodes) >= ENOUGH or len(eeg) - known < FEW:
        return False
    return known < MIN_FRACTION * len(eeg)
