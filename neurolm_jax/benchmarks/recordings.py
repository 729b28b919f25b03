"""Recordings into shards, against a script of MNE's functions."""

import functools
import os
import pathlib
import tempfile
import time

from neurolm_jax.benchmarks import ROUNDS, peak_memory

MANY = 12  # recordings


def bench_prepare(hours: float) -> dict[str, float]:
    """Hours per core-minute of both ways, their ratio, and of two processes to one; best of ``ROUNDS`` turns."""
    from neurolm_jax.corpus import build, sources
    from neurolm_jax.eeg.preprocessing import Preprocessing

    settings = Preprocessing(mains=60.0)
    seconds: dict[str, list[float]] = {"plain": [], "one": []}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        file = write_recording(root / "in" / "0.edf", hours)
        for turn in range(ROUNDS):
            begin = time.process_time()
            plain_script(file, root / f"plain-{turn}.npy")
            seconds["plain"].append(time.process_time() - begin)
            begin = time.process_time()
            build.build([file], root / f"one-{turn}", settings, "bench")
            seconds["one"].append(time.process_time() - begin)
        peak = peak_memory()
        for i in range(1, MANY):
            os.link(file, root / "in" / f"{i}.edf")
        found, _ = sources.find([root / "in"])
        times = {count: _spread(found, root / f"parts-{count}", settings, count) for count in (1, 2)}
    rate = {name: hours * 60 / min(values) for name, values in seconds.items()}
    return {
        "plain MNE script, hours/core-minute": rate["plain"],
        "prepare, hours/core-minute": rate["one"],
        "ratio": rate["one"] / rate["plain"],
        f"two processes to one, {MANY} recordings": times[1] / times[2],
        "peak memory of both, GB": peak,
    }


def _spread(found, folder, settings, count):
    """Seconds that ``count`` processes take for all recordings, once they have started and imported what they need."""
    from neurolm_jax.corpus import parts, workers

    with workers.mapping(count, None) as run:
        for warm in (True, False):
            make = functools.partial(parts.make, settings=settings, corpus="bench", folder=folder / str(warm))
            begin = time.perf_counter()
            list(run(make, found[: 2 * count] if warm else found))
    return time.perf_counter() - begin


def write_recording(file: pathlib.Path, hours: float) -> pathlib.Path:
    """An EDF file of 33 channels at 256 Hz, 23 of them electrodes: noise that falls off as EEG does, and hum."""
    import edfio
    import numpy as np

    from neurolm_jax.eeg.electrodes import VOCABULARY

    rng, rate = np.random.default_rng(0), 256
    count = round(hours * 3600) * rate
    names = [*(f"EEG {name}-REF" for name in VOCABULARY[:23]), *(f"AUX{i}" for i in range(10))]
    hum = 5 * np.sin(2 * np.pi * 60 * np.arange(count) / rate)
    signals = []
    for name in names:
        x = rng.standard_normal(count).cumsum()
        x -= np.linspace(x[0], x[-1], count)
        x = 30 * x / x.std() + 5 * rng.standard_normal(count) + hum
        limits = {"physical_dimension": "uV", "physical_range": (x.min(), x.max())}
        signals.append(edfio.EdfSignal(x, rate, label=name, **limits))
    file.parent.mkdir(parents=True, exist_ok=True)
    edfio.Edf(signals).write(file)
    return file


def plain_script(file: pathlib.Path, out: pathlib.Path) -> None:
    """What one writes with MNE alone."""
    import mne
    import numpy as np

    raw = mne.io.read_raw_edf(file, preload=True, verbose="error")
    raw.pick([name for name in raw.ch_names if name.startswith("EEG")])
    raw.filter(0.1, 75.0, verbose="error").notch_filter(60.0, verbose="error").resample(200, verbose="error")
    np.save(out, raw.get_data(units="uV").astype(np.float32))
