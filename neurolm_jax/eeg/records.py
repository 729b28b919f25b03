"""One stretch of EEG as bytes: msgpack, int16 samples with a scale per channel. No pickle."""

import dataclasses

import msgpack
import numpy as np

from neurolm_jax.eeg.preprocessing import RATE
from neurolm_jax.escaping import escape

_FOREIGN = ("source", "recording", "subject", "session", "reference")  # texts that come from outside


@dataclasses.dataclass(frozen=True)
class Record:
    """samples [C, N] float32 microvolts at 200 Hz.

    electrodes: C ids; source, subject, session, recording: names; reference: of the montage, such as LE or AR, where
    it is known; start: second of the first sample in the recording; label: of a task's window, else None; span: number
    of the part of its recording without a jump of time, stored where there are several.
    """

    samples: np.ndarray
    electrodes: tuple[int, ...]
    source: str
    recording: str
    subject: str | None = None
    session: str | None = None
    reference: str | None = None
    start: float = 0.0
    label: str | None = None
    span: int = 0


@dataclasses.dataclass(frozen=True)
class Packed:
    """A record's samples as stored: integers [C, N], microvolts when multiplied by scale [C] float32."""

    samples: np.ndarray
    scale: np.ndarray
    electrodes: tuple[int, ...]


def encode(record: Record) -> bytes:
    """int16 samples, lossless to half of max|x| / 32767 in each channel: 0.05 microvolts up to 3 millivolts."""
    peak = np.abs(record.samples).max(axis=1, keepdims=True)
    scale = np.where(peak > 0, peak / np.iinfo(np.int16).max, 1).astype(np.float32)
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    fields |= {name: escape(fields[name]) for name in _FOREIGN if fields[name] is not None}
    fields |= {
        "samples": np.rint(record.samples / scale).astype("<i2").tobytes(),
        "scale": scale[:, 0].tolist(),
        "rate": RATE,
    }
    if not record.span:
        del fields["span"]
    return msgpack.packb(fields)


def decode(data: bytes) -> Record:
    """The record that ``encode`` made these bytes of; samples in microvolts."""
    fields = msgpack.unpackb(data)
    packed = _packed(fields)
    del fields["scale"], fields["rate"]
    samples = packed.samples * packed.scale[:, None]
    return Record(**fields | {"samples": samples, "electrodes": packed.electrodes})


def unpack(data: bytes) -> Packed:
    """A view of the bytes; nothing is copied."""
    return _packed(msgpack.unpackb(data))


def _packed(fields):
    scale = np.array(fields["scale"], np.float32)
    samples = np.frombuffer(fields["samples"], "<i2").reshape(len(scale), -1)
    return Packed(samples, scale, tuple(fields["electrodes"]))
