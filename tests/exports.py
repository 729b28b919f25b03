"""One recording in several containers, as other software writes it."""

import pathlib

import edfio
import mne
import numpy as np


def write_edf(path: pathlib.Path, x: np.ndarray, names, rate: int) -> pathlib.Path:
    """Samples [C, N] microvolts as EDF, whole seconds: 16 bits over each channel's own range."""
    x = np.pad(x, ((0, 0), (0, -x.shape[1] % rate)), mode="edge")
    limits = [(float(np.floor(s.min()) - 1), float(np.ceil(s.max()) + 1)) for s in x]
    signals = [
        edfio.EdfSignal(s, rate, label=name, physical_dimension="uV", physical_range=limit)
        for s, name, limit in zip(x, names, limits)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    edfio.Edf(signals).write(path)
    return path


def write_fif(path: pathlib.Path, x: np.ndarray, names, rate: int) -> pathlib.Path:
    """Microvolts as FIF of single precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = mne.io.RawArray(x * 1e-6, mne.create_info(list(names), rate, "eeg"), verbose="error")
    raw.save(path, fmt="single", overwrite=True, verbose="error")
    return path


def write_brainvision(path: pathlib.Path, x: np.ndarray, names, rate: int, resolution: float = 0.5) -> pathlib.Path:
    """Microvolts as BrainVision of 16 bits, in steps of ``resolution``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.rint(x / resolution).astype("<i2").T.tofile(path.with_suffix(".eeg"))
    channels = "\n".join(f"Ch{i}={name},,{resolution},µV" for i, name in enumerate(names, start=1))
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.with_suffix('.eeg').name}\nMarkerFile={path.with_suffix('.vmrk').name}\nDataFormat=BINARY\n"
        f"DataOrientation=MULTIPLEXED\nNumberOfChannels={len(x)}\nSamplingInterval={1e6 / rate:g}\n\n"
        f"[Binary Infos]\nBinaryFormat=INT_16\n\n[Channel Infos]\n{channels}\n",
        encoding="utf-8",
    )
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.with_suffix('.eeg').name}\n\n[Marker Infos]\n",
        encoding="utf-8",
    )
    return path


WRITERS = {".edf": write_edf, "_raw.fif": write_fif, ".vhdr": write_brainvision}
