"""Read what EDF, BDF and GDF files tell beside their samples: rate, scale and unit of channels, onsets of records.

MNE parses the headers. What it does not keep is read here from the file: units as they are written, the onsets of
records (EDF+D, BDF+D) and the system bits of BioSemi's Status channel.
"""

import csv
import dataclasses
import pathlib
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from neurolm_jax.eeg.files import decode

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

CHUNK = 16_384  # records looked at together
ROUNDED = 2e-3  # seconds by which onsets of continuous records may be rounded
UNIT_VOLTS = {"v": 1.0, "volt": 1.0, "mv": 1e-3, "uv": 1e-6, "nv": 1e-9}
# A micro sign that was lost on the way leaves another byte, or two, before the V.
_MICRO = re.compile(r"(u|[^\x00-\x7f]{1,3}|[.?]|micro)v(olts?)?")
# A time-stamped annotation list of the specification of EDF+.
_TAL = re.compile(rb"(?P<onset>[+-]\d+(\.\d*)?)(\x15(?P<duration>\d+(\.\d*)?))?\x14(?P<texts>[^\x00]*)\x14\x00")


@dataclasses.dataclass(frozen=True)
class Header:
    """Header of a file, its channels in the order of the file, TAL and Status channels among them.

    rates: Hz [K]. names: as MNE has them, None for those that it leaves out. scales: physical and digital minimum and
    maximum [K, 4]. dimensions: units as they are written, None where the format has codes for them. starts: byte at
    which a channel's samples begin in a record [K + 1].
    """

    file: pathlib.Path
    rates: np.ndarray
    names: tuple[str | None, ...]
    scales: np.ndarray
    dimensions: tuple[str, ...] | None
    starts: np.ndarray
    data_offset: int
    records: int
    record_seconds: float
    annotations: tuple[int, ...]
    status: int | None

    def positions(self, raw: "mne.io.BaseRaw") -> list[int]:
        """Return the position in the file of each channel of ``raw``."""
        return raw._raw_extras[0]["sel"][raw._read_picks[0]].tolist()

    def scale_fault(self, number: int) -> str | None:
        """Return why a channel's integers cannot be turned into volts, or None."""
        physical_min, physical_max, digital_min, digital_max = self.scales[number]
        if not np.isfinite(self.scales[number]).all():
            return "its header's minima and maxima are not finite numbers"
        if physical_min == physical_max:
            return f"no scale: its physical minimum and maximum are both {physical_min:g}"
        if digital_min == digital_max:
            return f"no scale: its digital minimum and maximum are both {digital_min:g}"
        return None

    def column(self, channel: int) -> Iterator[np.ndarray]:
        """Yield the bytes of one channel, uint8 [records, bytes], some records at a time."""
        if not self.records:
            return
        shape = (self.records, int(self.starts[-1]))
        table = np.memmap(self.file, np.uint8, "r", self.data_offset, shape)
        for first in range(0, self.records, CHUNK):
            yield np.array(table[first : first + CHUNK, self.starts[channel] : self.starts[channel + 1]])


def header_of(raw: "mne.io.BaseRaw") -> Header | None:
    """Return the header of the one file of these formats that ``raw`` was opened from; None if it was not."""
    extras = raw._raw_extras[0] if len(raw._raw_extras) == 1 else None
    wanted = {"n_samps", "sel", "record_length", "physical_min", "digital_min", "dtype_byte", "data_offset"}
    if not isinstance(extras, dict) or not wanted <= extras.keys() or not raw.filenames[0]:
        return None
    sel, counts = np.asarray(extras["sel"], int), np.asarray(extras["n_samps"], np.int64)
    names: list[str | None] = [None] * len(counts)
    scales = np.ones((len(counts), 4)) * (0, 1, 0, 1)
    for place, number in enumerate(sel.tolist()):
        names[number] = extras["ch_names"][place]
        scales[number] = [extras[key][place] for key in ("physical_min", "physical_max", "digital_min", "digital_max")]
    seconds = float(extras["record_length"][0]) / float(extras["record_length"][1])
    bdf, annotations = extras["subtype"] == "bdf", np.asarray(extras.get("tal_idx", ()), int).tolist()
    status = [i for i in sel.tolist() if bdf and (names[i] or "").casefold() == "status"]
    file = pathlib.Path(raw.filenames[0])
    return Header(
        file=file,
        rates=counts / seconds,
        names=tuple(names),
        scales=scales,
        dimensions=_dimensions(file, len(counts)) if extras["subtype"] in ("edf", "bdf") else None,
        starts=np.concatenate([[0], np.cumsum(counts)]) * int(extras["dtype_byte"]),
        data_offset=int(extras["data_offset"]),
        records=int(extras["n_records"]),
        record_seconds=seconds,
        annotations=tuple(annotations),
        status=status[0] if status else None,
    )


def _dimensions(file, channels):
    with file.open("rb") as opened:
        opened.seek(256 + (16 + 80) * channels)
        return tuple(opened.read(8).decode("latin-1").strip(" \x00") for _ in range(channels))


def volts(dimension: str) -> float | None:
    """Return the volts of a unit as a header or a sidecar writes it; None if it is none, or is not known."""
    plain = dimension.strip().casefold()
    if plain in UNIT_VOLTS:
        return UNIT_VOLTS[plain]
    return 1e-6 if _MICRO.fullmatch(plain) else None


def sidecar_units(file: pathlib.Path) -> dict[str, str]:
    """Return the units by channel that the ``channels.tsv`` beside a recording of a BIDS tree tells."""
    table = file.with_name(file.stem.removesuffix("eeg") + "channels.tsv")
    if not file.stem.endswith("_eeg") or not table.is_file():
        return {}
    try:
        lines = decode(table.read_bytes()).splitlines()
        rows = list(csv.DictReader(lines, delimiter="\t"))
    except (OSError, csv.Error) as error:
        warnings.warn(f"{table.name} cannot be read ({error})", stacklevel=2)
        return {}
    return {row["name"]: row["units"] for row in rows if row.get("name") and row.get("units")}


@dataclasses.dataclass(frozen=True)
class RecordClock:
    """When each record begins, seconds after the first one [R], and how long each lasts. first: second of the first one
    after the time in the header, which annotations count from."""

    onsets: np.ndarray
    record_seconds: float
    first: float

    def jumps(self, sample: float) -> list[int]:
        """Return the records that do not begin where the one before them ended, to three quarters of a ``sample``."""
        away = np.abs(np.diff(self.onsets) - self.record_seconds)
        return (1 + np.flatnonzero(away > max(0.75 * sample, ROUNDED))).tolist()

    def sample_seconds(self, seconds: np.ndarray) -> np.ndarray:
        """Return where clock times lie when records follow each other without gaps; times in a gap at its place."""
        order = np.argsort(self.onsets, kind="stable")
        rank = np.clip(np.searchsorted(self.onsets[order], seconds + 1e-9, side="right") - 1, 0, None)
        record = order[rank]
        return record * self.record_seconds + np.clip(seconds - self.onsets[record], 0, self.record_seconds)


def record_clock(header: Header) -> RecordClock | None:
    """Return the clock of a file whose records tell their onsets, as those of EDF+ and BDF+ do; None of others."""
    if not header.annotations:
        return None
    onsets = []
    for table in header.column(header.annotations[0]):
        for row in table:
            head = row.tobytes().split(b"\x14", 1)[0].split(b"\x15", 1)[0]
            try:
                onsets.append(float(head))
            except ValueError:
                warnings.warn("a record does not tell its onset; the file is taken as continuous", stacklevel=2)
                return None
    return RecordClock(np.array(onsets) - onsets[0], header.record_seconds, onsets[0]) if onsets else None


def annotations(header: Header) -> list[tuple[float, float, str]]:
    """Return onset and duration in seconds, and text, of all annotations of an EDF+ or BDF+, in the order of the file.

    Onsets count from the time in the header. Text that is not UTF-8 is taken for Latin-1.
    """
    found = []
    for channel in header.annotations:
        for table in header.column(channel):
            for row in table:
                for match in _TAL.finditer(row.tobytes()):
                    onset, duration = float(match["onset"]), float(match["duration"] or 0)
                    texts = filter(None, match["texts"].split(b"\x14"))
                    found += [(onset, duration, _decoded(text)) for text in texts]
    return found


def _decoded(text):
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def status_rises(header: Header, bit: int) -> list[int]:
    """Return the samples of a BDF's Status channel at which one of its system bits, 16 to 23, rises."""
    if header.status is None:
        return []
    rises, begin, before = [], 0, 1  # set at the first sample, it tells the start of the recording
    for table in header.column(header.status):
        flags = (table.reshape(-1, 3)[:, 2] >> (bit - 16) & 1).astype(np.int8)  # little-endian
        rises += (begin + np.flatnonzero(np.diff(flags, prepend=np.int8(before)) == 1)).tolist()
        begin, before = begin + len(flags), int(flags[-1])
    return rises


def set_unit(raw: "mne.io.BaseRaw", name: str, scale: float) -> None:
    """Have a channel of a raw of these formats read in units of so many volts."""
    channel = raw.ch_names.index(name)
    units = raw._raw_extras[0]["units"]
    place = int(raw._read_picks[0][channel])
    factor, units[place] = scale / units[place], scale
    if raw.preload and factor != 1:
        raw.apply_function(lambda x: x * factor, picks=[channel], verbose="warning")
