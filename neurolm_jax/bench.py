"""Speed, as ratios to the usual way, in one run on one machine.

  python -m neurolm_jax.bench prepare [--hours 1] [--json FILE]
  python -m neurolm_jax.bench data [--hours 2] [--json FILE]
  python -m neurolm_jax.bench plan [--hours 25000] [--json FILE]

``prepare``: hours of recording prepared in a minute of one core, against a script that reads, filters, notches and
resamples a file with MNE's functions; with 23 of 33 channels at 256 Hz kept, as in a clinical recording.
``data``: rows of 1024 tokens read in a second by one core, against a loader with a file for each sample, its targets
and its dense mask made on the host; and how many cores feed one TPU v5p that trains size B at half its peak.
``plan``: time and memory until the first batch of a corpus of so many hours in 70,000 recordings of made-up lengths.
"""

import functools
import json
import os
import pathlib
import tempfile
import time

from neurolm_jax.command import argument_parser, run
from neurolm_jax.outputs import appearing_file

ROUNDS = 3
MANY = 12  # recordings
LENGTH = 1024  # tokens in a row of size B
BLOCK = 320  # seconds of one made recording
V5P_PEAK = 459e12  # bfloat16 FLOP a second


def main() -> None:
    parser = argument_parser("bench", __doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for name, measure, hours, about in (
        ("prepare", bench_prepare, 1.0, "recordings into shards"),
        ("data", bench_data, 2.0, "shards into rows"),
        ("plan", bench_plan, 25_000.0, "the start of a large corpus"),
    ):
        kind = kinds.add_parser(name, help=about)
        kind.set_defaults(measure=measure)
        kind.add_argument("--hours", type=float, default=hours, help="of recording")
        kind.add_argument("--json", type=pathlib.Path, help="write the figures here too")
    arguments = parser.parse_args()
    found = arguments.measure(arguments.hours)
    for name, value in found.items():
        print(f"{name:<52} {value:10,.2f}")
    if arguments.json:
        with appearing_file(arguments.json) as file:
            file.write_text(json.dumps(found, indent=1))


def bench_prepare(hours: float) -> dict[str, float]:
    """Hours per core-minute of both ways, their ratio, and of two processes to one; best of ``ROUNDS`` turns."""
    import resource

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
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
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


def bench_data(hours: float) -> dict[str, float]:
    """Rows a second and core of both ways, best of ``ROUNDS`` in turns."""
    from neurolm_jax.data import shards
    from neurolm_jax.data.eeg_rows import EEGRows
    from neurolm_jax.data.streams import Steps

    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        samples = list(_write_corpus(root, hours))
        rows = EEGRows([shards.open_shards(root / "eeg")], LENGTH, 64, seed=0)
        steps, batch = Steps({"eeg": (rows, 8)}, 10**9), 8
        fast, plain = [], []
        for turn in range(ROUNDS):
            begin = time.process_time()
            for step in range(turn * 20, turn * 20 + 20):
                eeg = steps[step]["eeg"]
            fast.append(20 * batch / (time.process_time() - begin))
            begin = time.process_time()
            for first in range(0, 40, batch):
                _plain_batch(samples[first : first + batch])
            plain.append(40 / (time.process_time() - begin))
        valid = float((eeg["segment"] > 0).mean())
        row_bytes = sum(array.nbytes for array in eeg.values()) / batch
    rate = max(fast)
    # Weights in matrices of B's frozen encoder and of its language model: 2 FLOP each and token forth, 4 back.
    flop = LENGTH * (2 * 85e6 + 6 * 124e6)
    wanted = 0.5 * V5P_PEAK / flop
    return {
        "a file for each sample, rows/second/core": max(plain),
        "rows/second/core": rate,
        "ratio": rate / max(plain),
        "EEG tokens/second/core": rate * LENGTH * valid,
        "MB/second/core": rate * row_bytes / 1e6,
        "valid tokens in a row": valid,
        "GFLOP a row, size B, encoder and language model": flop / 1e9,
        "rows/second of a v5p at 50%": wanted,
        "cores that feed it": wanted / rate,
    }


def bench_plan(hours: float) -> dict[str, float]:
    """Seconds and gigabytes of opening the manifest, planning and shuffling, and of the first batch."""
    import resource

    import numpy as np

    from neurolm_jax.data import shards
    from neurolm_jax.data.eeg_rows import EEGRows
    from neurolm_jax.data.streams import Steps
    from neurolm_jax.eeg.records import Record, encode

    @functools.cache
    def made(channels, samples):
        x = np.random.default_rng(0).standard_normal((channels, samples)).astype(np.float32)
        return encode(Record(x, tuple(range(channels)), "made", "made"))

    class Made:
        """Records of the right shape."""

        def __getitem__(self, number):
            return made(index["channels"][number], index["samples"][number])

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        shards.write_manifest(path, {"kind": "eeg", "split": "train"}, [], _made_index(hours), [])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.perf_counter()
        manifest = shards.read_manifest(path)
        index = manifest["index"]
        read = time.perf_counter()
        rows = EEGRows([shards.Shards(path, manifest, Made())], LENGTH, 64, seed=0)
        rows._plan.row(0)
        planned = time.perf_counter()
        Steps({"eeg": (rows, 480)}, 10)[0]
        end = time.perf_counter()
        tokens = sum(c * (n // 200) for c, n in zip(index["channels"], index["samples"]))
    return {
        "records": len(index["samples"]),
        "tokens, billions": tokens / 1e9,
        "rows in an epoch": len(rows),
        "rows filled": tokens / LENGTH / len(rows),
        "manifest read, seconds": read - begin,
        "planned and shuffled, seconds": planned - read,
        "first batch of 480 rows, seconds": end - planned,
        "peak memory of the process, GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "of which before, GB": before / 2**20,
    }


def _made_index(hours):
    """70,000 recordings of 16 to 36 channels, their lengths log-normal, in records as ``prepare`` cuts them."""
    import numpy as np

    from neurolm_jax.corpus.recording import PIECE

    rng, count = np.random.default_rng(0), 70_000
    seconds = rng.lognormal(0, 0.8, count)
    seconds = np.maximum(seconds * hours * 3600 / seconds.sum(), 10).astype(int)
    channels = rng.choice([16, 19, 21, 23, 27, 32, 36], count, p=[0.05, 0.15, 0.2, 0.35, 0.1, 0.1, 0.05])
    index = {"channels": [], "samples": [], "start": [], "montage": [], "recording": []}
    for number, (length, c) in enumerate(zip(seconds.tolist(), channels.tolist())):
        for start in range(0, length, PIECE):
            index["channels"].append(c)
            index["samples"].append(min(PIECE, length - start) * 200)
            index["start"].append(float(start))
            index["montage"].append(c)
            index["recording"].append(number)
    return index


def _write_corpus(root, hours):
    """Shards of 23 channels, and the same as a file for each sample of the usual loader, whose paths are returned."""
    import numpy as np

    from neurolm_jax.corpus.parts import entry
    from neurolm_jax.corpus.recording import PIECE
    from neurolm_jax.data import shards
    from neurolm_jax.eeg.records import Record, encode

    rng, seconds = np.random.default_rng(0), LENGTH // 23
    records = []
    for number in range(round(hours * 3600 / BLOCK)):
        x = rng.standard_normal((23, BLOCK * 200)).cumsum(axis=1).astype(np.float32)
        for start in range(0, BLOCK, PIECE):
            part = x[:, start * 200 : (start + PIECE) * 200]
            record = Record(part, tuple(range(23)), "made", f"{number}", start=float(start))
            records.append((encode(record), entry(record) | {"recording": number}))
        for start in range(0, BLOCK - seconds, seconds):
            file = root / f"{number}-{start}.npy"
            np.save(file, x[:, start * 200 : (start + seconds) * 200].astype(np.float64))
            yield file
    shards.write(root / "eeg", records, {"kind": "eeg", "split": "train", "recordings": []})


def _plain_batch(files):
    """Rows the usual way, each from a file of float64: z-scored spectra and patches as targets, an id looked up for
    each token, a dense mask; then put together."""
    import numpy as np

    from neurolm_jax.eeg.electrodes import VOCABULARY

    rows = []
    for file in files:
        x = np.load(file)
        channels, seconds = len(x), x.shape[1] // 200
        patches = np.float32(x / 100).reshape(channels, seconds, 200).swapaxes(0, 1).reshape(-1, 200)
        spectra = np.abs(np.fft.fft(patches, axis=-1))
        spectra, raw = ((a - a.mean()) / a.std(ddof=1) for a in (spectra, patches))
        padding = LENGTH - len(patches)
        names = list(VOCABULARY[:channels]) * seconds + ["pad"] * padding
        ids = np.array([VOCABULARY.index(name) for name in names])
        times = np.array([second for second in range(seconds) for _ in range(channels)] + [0] * padding)
        mask = np.tril(np.ones((LENGTH, LENGTH), np.float32))
        for second in range(seconds):
            here = slice(second * channels, (second + 1) * channels)
            mask[here, here] = 1
        mask[:, len(patches) :] = 0
        dense = [np.pad(a, ((0, padding), (0, 0))) for a in (patches, spectra[:, :100], raw)]
        rows.append((*dense, ids, times, mask.astype(bool)))
    return [np.stack(column) for column in zip(*rows)]


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


if __name__ == "__main__":
    run(main)
