"""Speed, as ratios to the usual way, in one run on one machine.

  python -m neurolm_jax.bench prepare [--hours 1] [--json FILE]

``prepare``: hours of recording prepared in a minute of one core, against a script that reads, filters, notches and
resamples a file with MNE's functions; with 23 of 33 channels at 256 Hz kept, as in a clinical recording.
"""

import json
import pathlib
import tempfile
import time

from neurolm_jax.command import argument_parser, run
from neurolm_jax.outputs import appearing_file

ROUNDS = 3


def main() -> None:
    parser = argument_parser("bench", __doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    prepare = kinds.add_parser("prepare", help="recordings into shards")
    prepare.add_argument("--hours", type=float, default=1.0, help="length of the recording")
    prepare.add_argument("--json", type=pathlib.Path, help="write the figures here too")
    arguments = parser.parse_args()
    found = bench_prepare(arguments.hours)
    for name, value in found.items():
        print(f"{name:<40} {value:10.2f}")
    if arguments.json:
        with appearing_file(arguments.json) as file:
            file.write_text(json.dumps(found, indent=1))


def bench_prepare(hours: float) -> dict[str, float]:
    """Hours per core-minute of both ways, their ratio, and of two processes to one; best of ``ROUNDS`` turns."""
    import resource

    from neurolm_jax.corpus import build
    from neurolm_jax.eeg.preprocessing import Preprocessing

    settings = Preprocessing(mains=60.0)
    seconds: dict[str, list[float]] = {"plain": [], "one": [], "two": []}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        files = [write_recording(root / "in" / f"{i}.edf", hours, seed=i) for i in range(2)]
        for turn in range(ROUNDS):
            begin = time.process_time()
            plain_script(files[0], root / f"plain-{turn}.npy")
            seconds["plain"].append(time.process_time() - begin)
            begin = time.process_time()
            build.build([files[0]], root / f"one-{turn}", settings, "bench")
            seconds["one"].append(time.process_time() - begin)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        times = {}
        for count in (1, 2):
            begin = time.perf_counter()
            build.build([root / "in"], root / f"spread-{count}", settings, "bench", worker_count=count)
            times[count] = time.perf_counter() - begin
    rate = {name: hours * 60 / min(values) for name, values in seconds.items() if values}
    return {
        "plain MNE script, hours/core-minute": rate["plain"],
        "prepare, hours/core-minute": rate["one"],
        "ratio": rate["one"] / rate["plain"],
        "two processes to one, two recordings": times[1] / times[2],
        "peak memory of both, GB": peak,
    }


def write_recording(file: pathlib.Path, hours: float, seed: int) -> pathlib.Path:
    """An EDF file of 33 channels at 256 Hz, 23 of them electrodes: noise that falls off as EEG does, and hum."""
    import edfio
    import numpy as np

    from neurolm_jax.eeg.electrodes import VOCABULARY

    rng, rate = np.random.default_rng(seed), 256
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


if __name__ == "__main__":
    run(main)
