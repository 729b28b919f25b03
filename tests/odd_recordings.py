"""Recordings that formats allow and few programs read rightly: several rates, gaps in time, no scales or units."""

import pathlib
from collections.abc import Mapping, Sequence

import edfio
import mne
import numpy as np
import scipy.io

NAMES = ("Fp1", "C3", "T3")
LIMIT = 600.0  # microvolts


def write_rates(file: pathlib.Path, channels: Sequence[tuple[str, float, np.ndarray]], record_seconds=None) -> None:
    """EDF of channels (name, Hz, microvolts), each at a rate of its own."""
    kinds = {"physical_dimension": "uV", "physical_range": (-LIMIT, LIMIT)}
    signals = [edfio.EdfSignal(x, rate, label=name, **kinds) for name, rate, x in channels]
    edfio.Edf(signals, data_record_duration=record_seconds).write(file)


def edit_header(file: pathlib.Path, field: str, channel: int, text: str) -> None:
    """Overwrite a field of a channel in the header of an EDF or BDF."""
    widths = {"label": 16, "transducer": 80, "dimension": 8, "physical_min": 8, "physical_max": 8, "digital_min": 8}
    widths |= {"digital_max": 8, "prefiltering": 80, "samples": 8, "reserved": 32}
    data = bytearray(file.read_bytes())
    count, at = int(data[252:256]), 256
    for name, width in widths.items():
        if name == field:
            at += channel * width
            data[at : at + width] = text.encode("latin-1").ljust(width)
            break
        at += width * count
    file.write_bytes(data)


def write_discontinuous(file: pathlib.Path, x: np.ndarray, rate: int, onsets: Sequence[float], annotations=()) -> None:
    """EDF+D or BDF+D, as the suffix says, whose records of a second begin at these seconds."""
    bdf = file.suffix == ".bdf"
    kind, signal = (edfio.Bdf, edfio.BdfSignal) if bdf else (edfio.Edf, edfio.EdfSignal)
    kinds = {"physical_dimension": "uV", "physical_range": (-LIMIT, LIMIT)}
    signals = [signal(row, rate, label=name, **kinds) for row, name in zip(x, NAMES)]
    spare = edfio.EdfAnnotation(0.0, None, "room for onsets of more digits")
    written = [edfio.EdfAnnotation(*a) for a in annotations]
    kind(signals, annotations=[spare, *written], data_record_duration=1).write(file)
    data = bytearray(file.read_bytes())
    count, width = int(data[252:256]), 3 if bdf else 2
    at = 256 + count * (16 + 80 + 8 * 5 + 80)
    samples = [int(data[at + 8 * i : at + 8 * i + 8]) for i in range(count)]
    data[192:197] = b"BDF+D" if bdf else b"EDF+D"
    at = 256 + 256 * count
    for onset in onsets:
        first, size = at + width * sum(samples[:-1]), width * samples[-1]
        rest = bytes(data[first : first + size]).split(b"\x14\x14\x00", 1)[1]
        text = f"+{onset:g}".encode() + b"\x14\x14\x00" + rest
        assert not text[size:].strip(b"\x00")
        data[first : first + size] = text[:size].ljust(size, b"\x00")
        at += width * sum(samples)
    file.write_bytes(data)


def write_status(file: pathlib.Path, x: np.ndarray, rate: int, epochs: Sequence[int]) -> None:
    """BDF as of BioSemi, whose Status has triggers, and bit 16 at the samples at which an epoch begins."""
    kinds = {"physical_dimension": "uV", "physical_range": (-LIMIT, LIMIT)}
    signals = [edfio.BdfSignal(row, rate, label=name, **kinds) for row, name in zip(x, NAMES)]
    status = np.full(x.shape[1], 1 << 20)  # the CMS is in range
    status[::97] |= 255
    status[list(epochs)] |= 1 << 16
    digital = {"physical_range": (-8388608, 8388607), "digital_range": (-8388608, 8388607)}
    signals.append(edfio.BdfSignal.from_digital(status.astype(np.int32), rate, label="Status", **digital))
    edfio.Bdf(signals, data_record_duration=1).write(file)


def write_eeglab(file: pathlib.Path, x: np.ndarray, rate: int, events: Sequence[tuple[str, float, float]]) -> None:
    """EEGLAB's .set with events (type, latency in samples from 1, duration in samples)."""
    locations = np.array([(name,) for name in NAMES[: len(x)]], dtype=[("labels", object)])
    event = np.array(list(events), dtype=[("type", object), ("latency", object), ("duration", object)])
    numbers = {"nbchan": len(x), "trials": 1, "pnts": x.shape[1], "srate": rate, "xmin": 0, "xmax": x.shape[1] / rate}
    fields = {"setname": "x", "filename": file.name, "data": x.astype(np.float32), "ref": "common", "icawinv": []}
    scipy.io.savemat(file, {"EEG": numbers | fields | {"chanlocs": locations, "event": event, "epoch": []}})


def write_brainvision(file: pathlib.Path, x: np.ndarray, rate: int, markers: Sequence[tuple[str, str, int]]) -> None:
    """BrainVision's three files with markers (type, description, sample from 1)."""
    x.T.astype("<f4").tofile(file.with_suffix(".eeg"))
    header = f"""Brain Vision Data Exchange Header File Version 1.0
[Common Infos]
DataFile={file.stem}.eeg
MarkerFile={file.stem}.vmrk
DataFormat=BINARY
DataOrientation=MULTIPLEXED
NumberOfChannels={len(x)}
SamplingInterval={1e6 / rate:g}
[Binary Infos]
BinaryFormat=IEEE_FLOAT_32
[Channel Infos]
"""
    file.write_text(header + "".join(f"Ch{i}={name},,1,µV\n" for i, name in enumerate(NAMES[: len(x)], start=1)))
    lines = "".join(f"Mk{i}={kind},{text},{sample},1,0\n" for i, (kind, text, sample) in enumerate(markers, start=1))
    marks = "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\n" + f"DataFile={file.stem}.eeg\n"
    file.with_suffix(".vmrk").write_text(marks + "[Marker Infos]\n" + lines)


def array_raw(x: np.ndarray, rate: float, annotations: Sequence[tuple[float, float, str]] = (), names=NAMES):
    """An ``mne.io.RawArray`` of microvolts with annotations (onset, duration, description)."""
    info = mne.create_info(list(names[: len(x)]), rate, "eeg", verbose="error")
    raw = mne.io.RawArray(x[: len(names)] * 1e-6, info, verbose="error")
    return raw.set_annotations(mne.Annotations(*zip(*annotations))) if annotations else raw


def filtered(x: np.ndarray, rate: float, settings: Mapping) -> np.ndarray:
    """Microvolts at 200 Hz as MNE's own pipeline has them, of a part without a gap."""
    raw = array_raw(x, rate, names=tuple(f"X{i}" for i in range(len(x))))
    raw.filter(settings["low"], settings["high"] if settings["high"] < rate / 2 else None, verbose="error")
    if settings["mains"] and settings["mains"] < rate / 2:
        raw.notch_filter(settings["mains"], verbose="error")
    return raw.resample(200, verbose="error").get_data() * 1e6
