"""The mains frequency, read off the spectrum."""

import numpy as np

FREQUENCIES = (50.0, 60.0)  # Hz
PROMINENCE = 4.0  # power of the line against its neighbourhood


def detect_mains(x: np.ndarray, rate: float) -> float | None:
    """50 or 60 Hz, whichever stands out more from its neighbourhood in samples x [C, N]; None if neither does.

    The median over channels decides: a hum in one channel is not the room's.
    """
    from scipy.signal import welch

    if x.shape[1] < 4 * rate:
        return None
    frequency, density = welch(x, rate, nperseg=int(4 * rate))
    prominence = {}
    for mains in FREQUENCIES:
        if mains + 5 >= rate / 2:
            continue
        line = np.abs(frequency - mains) <= 0.5
        around = (np.abs(frequency - mains) >= 2) & (np.abs(frequency - mains) <= 5)
        floor = np.median(density[:, around], axis=1)
        valid = floor > 0
        if valid.any():
            prominence[mains] = float(np.median(density[valid][:, line].max(axis=1) / floor[valid]))
    best = max(prominence, key=prominence.__getitem__, default=None)
    return best if best and prominence[best] >= PROMINENCE else None
