"""Correct what MNE reads wrongly or loosely: channels of several rates, degenerate scales, units, gaps in time.

MNE reads an EDF, BDF or GDF file at the rate of its fastest channel, cuts slower channels by sample numbers of the
fastest one, takes unknown units for volts, and joins the records of a discontinuous file without a mark.
"""

import contextlib
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from neurolm_jax.eeg import edf
from neurolm_jax.eeg.montage import read_montage
from neurolm_jax.errors import UserError

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

SEAM = "EDGE"  # MNE's own filters stop at annotations that begin so
LONGEST_KIND = 160  # characters of a warning in a manifest
_KEY = "neurolm_jax"  # of ``raw.info["temp"]``, which copies keep


def corrected(raw: "mne.io.BaseRaw") -> "mne.io.BaseRaw":
    """Return a recording at the EEG's own rate, in volts, with every jump of time annotated; ``raw`` stays as it is.

    Channels of other rates and without a scale are dropped, see ``dropped_channels``. Jumps that only the file tells
    (records of EDF+D and BDF+D, epochs of BioSemi) become annotations that begin with "EDGE".

    Raises:
      UserError: every electrode is dropped.
    """
    if _kept(raw):
        return raw
    header = edf.header_of(raw)
    if header is None or not raw.ch_names:
        return raw
    raw, dropped, rate = _at_own_rate(raw, header)
    raw = _in_volts(raw, header)
    raw = _with_seams(raw, header)
    others = raw.info.get("temp")
    others = others if isinstance(others, dict) else {}
    raw.info["temp"] = others | {_KEY: {"dropped": dropped, "rate": float(rate)}}
    return raw


def own_rate(raw: "mne.io.BaseRaw") -> float:
    """Return the rate in Hz at which the EEG was recorded, whatever it was loaded at."""
    return _kept(raw).get("rate") or float(raw.info["sfreq"])


def dropped_channels(raw: "mne.io.BaseRaw") -> dict[str, str]:
    """Return the reason by name of the channels that ``corrected`` dropped."""
    return dict(_kept(raw).get("dropped", {}))


def _kept(raw):
    """What ``corrected`` has left in the recording."""
    temp = raw.info.get("temp")
    return temp.get(_KEY, {}) if isinstance(temp, dict) else {}


@contextlib.contextmanager
def warnings_by_kind(counts: dict[str, int]) -> Iterator[None]:
    """Count the warnings given inside, instead of showing them: by kind, which is their text without its numbers and
    names."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for warning in given:
                kind = _warning_kind(warning.message)
                counts[kind] = counts.get(kind, 0) + 1


def _warning_kind(message):
    first = str(message).strip().split("\n")[0]
    first = re.sub(r"(?<!\w)[-+]?\d[\d.,]*", "N", re.sub(r"(?<!\w)(/[^\s:]+)+", "FILE", first))
    return " ".join(first.split())[:LONGEST_KIND]


def _at_own_rate(raw, header):
    """A copy of the recording without channels of another rate than most electrodes', the reasons, and that rate."""
    numbers = header.positions(raw)  # of the channels in the file
    names = dict(zip(raw.ch_names, numbers))
    kinds = dict(zip(raw.ch_names, raw.get_channel_types()))
    electrodes = list(read_montage(raw).channels)
    usable = {name: header.rates[names[name]] for name in electrodes if header.scale_fault(names[name]) is None}
    rates = list(usable.values()) or [header.rates[names[name]] for name in electrodes] or list(header.rates[numbers])
    rate = max(set(rates), key=lambda value: (rates.count(value), value))
    dropped = {}
    for name, number in names.items():
        if header.rates[number] != rate:
            dropped[name] = f"sampled at {header.rates[number]:g} Hz, the EEG at {rate:g} Hz"
        elif kinds[name] != "stim" and (fault := header.scale_fault(number)):
            dropped[name] = fault
    if electrodes and set(electrodes) <= dropped.keys():
        name = electrodes[0]
        raise UserError(f"{raw.filenames[0]}: no electrode can be used ({name}: {dropped[name]})")
    same_rate = abs(raw.info["sfreq"] - rate) < 1e-6 * rate
    # A loaded recording may also have been resampled since.
    if not same_rate and raw.preload and np.isclose(header.rates, raw.info["sfreq"], rtol=1e-6).any():
        warnings.warn(
            f"the EEG has {rate:g} Hz and was loaded at {raw.info['sfreq']:g} Hz, the rate of other channels; open the"
            " file with preload=False to have it read at its own rate",
            stacklevel=2,
        )
    if same_rate or raw.preload:
        kept = [name for name in raw.ch_names if name not in dropped]
        return raw.copy().pick(kept, verbose="warning"), dropped, rate
    if header.dimensions is None:  # MNE reads wrong channels of a GDF file where some are left out
        raise UserError(
            f"{raw.filenames[0]}: the EEG has {rate:g} Hz, other channels {raw.info['sfreq']:g} Hz, which cannot be"
            " read apart in a GDF file; convert it to EDF, or remove the other channels"
        )
    return _reopened(raw, header, dropped), dropped, rate


def _reopened(raw, header, dropped):
    """The same recording read anew without some channels, cropped and named as ``raw`` is."""
    kept = {header.names[n]: name for n, name in zip(header.positions(raw), raw.ch_names) if name not in dropped}
    options = raw._init_kwargs | {"include": list(kept), "exclude": (), "preload": False, "verbose": "warning"}
    if "exclude_after_unique" in options:
        options["exclude_after_unique"] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was said when ``raw`` was opened
        new = type(raw)(**options)
    new.reorder_channels(list(kept))
    if raw.ch_names != list(kept.values()):
        new.rename_channels({old: name for old, name in kept.items() if old != name}, verbose="warning")
    types = dict(zip(raw.ch_names, raw.get_channel_types()))
    changed = {name: types[name] for name, kind in zip(new.ch_names, new.get_channel_types()) if types[name] != kind}
    if changed:
        new.set_channel_types(changed, verbose="warning")
    new.info["bads"] = [name for name in raw.info["bads"] if name in new.ch_names]
    new.info["line_freq"] = raw.info.get("line_freq")
    new.set_meas_date(raw.info["meas_date"])
    rate, old_rate = new.info["sfreq"], raw.info["sfreq"]
    first, last = (round(sample / old_rate * rate) for sample in (raw.first_samp, raw.first_samp + raw.n_times))
    if (first, last) != (0, new.n_times):
        new.crop(first / rate, (min(last, new.n_times) - 1) / rate, verbose="warning")
    annotations = raw.annotations.copy()
    if annotations.orig_time is None:  # then MNE counts from the first sample that is left
        annotations.onset -= raw.first_time
    return new.set_annotations(annotations, on_missing="ignore", verbose="warning")


def _in_volts(raw, header):
    """The recording, a copy already, with units that MNE does not know."""
    if header.dimensions is None:
        return raw
    unnamed, electrodes = 0, read_montage(raw).channels
    beside = edf.sidecar_units(header.file)
    for number, name, kind in zip(header.positions(raw), raw.ch_names, raw.get_channel_types()):
        if kind != "eeg":
            continue
        dimension, is_electrode = header.dimensions[number], name in electrodes
        scale, told = edf.volts(dimension), edf.volts(beside.get(name, ""))
        if is_electrode and None not in (scale, told) and told != scale:
            warnings.warn(
                f"channels.tsv tells the unit {beside[name]}, the header {dimension}; the header's is used",
                stacklevel=2,
            )
        if is_electrode and scale is None and dimension:
            warnings.warn(f"unit {dimension!r} of an electrode is not known", stacklevel=2)
        scale = told if scale is None else scale
        if scale is not None:
            edf.set_unit(raw, name, scale)
        unnamed += is_electrode and scale is None
    if unnamed:
        warnings.warn(
            "electrodes without a known unit are taken for volts; name the unit in channels.tsv beside the file",
            stacklevel=2,
        )
    return raw


def _with_seams(raw, header):
    """The recording, a copy already, with an annotation at each jump that only the file tells."""
    rate = float(raw.info["sfreq"])
    seams = {}
    if rises := edf.status_rises(header, bit=16):
        ratio = rate / header.rates[header.status]
        seams |= {round(sample * ratio): "new epoch" for sample in rises}
    clock = edf.record_clock(header)
    if clock is not None and (jumps := clock.jumps(1 / rate)):
        seams |= {round(record * header.record_seconds * rate): "discontinuous records" for record in jumps}
        raw = _on_sample_clock(raw, header, clock)
    for sample, kind in sorted(seams.items()):
        if raw.first_samp < sample < raw.first_samp + raw.n_times:
            raw.annotations.append(sample / rate, 0.0, f"{SEAM} {kind}")
    return raw


def _on_sample_clock(raw, header, clock):
    """Annotations of a discontinuous file tell its clock; MNE takes that for the time of samples, which knows no gaps,
    and drops what lies behind the last one."""
    import mne

    if raw.first_samp or not len(told := edf.annotations(header)):
        return raw
    onsets, durations, texts = (np.array(column) for column in zip(*sorted(told)))
    onsets = onsets.astype(float) - clock.first
    length = raw.n_times / raw.info["sfreq"]
    own = [o for o in raw.annotations.onset if not np.isclose(onsets, o, atol=1e-3).any()]
    if len(own) or len(raw.annotations) > np.count_nonzero(onsets <= length):
        return raw  # they are not those of the file: the user has changed them
    begins, ends = (clock.sample_seconds(seconds) for seconds in (onsets, onsets + durations.astype(float)))
    named = [text.split("@@") for text in texts.tolist()]  # of a channel, as MNE writes and reads them
    names = [tuple(name for name in parts[1:] if name in raw.ch_names) for parts in named]
    moved = mne.Annotations(begins, ends - begins, [parts[0] for parts in named], ch_names=names)
    return raw.set_annotations(moved, on_missing="ignore", verbose="warning")
