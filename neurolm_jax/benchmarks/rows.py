"""Shards into rows, against a loader with a file for each sample; and the start of a large corpus."""

import functools
import itertools
import pathlib
import tempfile
import time

from neurolm_jax.benchmarks import ROUNDS, peak_memory

LENGTH = 1024  # tokens in a row of size B
BLOCK = 320  # seconds of one made recording


def bench_data(hours: float) -> dict[str, float]:
    """Rows a second and core of both ways, best of ``ROUNDS`` in turns."""
    from neurolm_jax.ahead.chips import CHIPS
    from neurolm_jax.data import shards
    from neurolm_jax.data.eeg_rows import EEGRows
    from neurolm_jax.data.streams import Steps

    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        samples = itertools.islice(itertools.cycle(list(_write_corpus(root, hours))), ROUNDS * 40)
        rows = EEGRows([shards.open_shards(root / "eeg")], LENGTH, 64, seed=0)
        steps, batch = Steps({"eeg": (rows, 8)}, 10**9), 8
        fast, plain = [], []
        for turn in range(ROUNDS):
            begin = time.process_time()
            for step in range(turn * 20, turn * 20 + 20):
                eeg = steps[step]["eeg"]
            fast.append(20 * batch / (time.process_time() - begin))
            begin = time.process_time()
            for _ in range(0, 40, batch):
                _plain_batch(itertools.islice(samples, batch))
            plain.append(40 / (time.process_time() - begin))
        valid = float((eeg["segment"] > 0).mean())
        row_bytes = sum(array.nbytes for array in eeg.values()) / batch
    rate = max(fast)
    # Weights in matrices of B's frozen encoder and of its language model: 2 FLOP each and token forth, 4 back.
    flop = LENGTH * (2 * 85e6 + 6 * 124e6)
    wanted = 0.5 * CHIPS["v5p"].flops / flop
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
            return made(int(index["channels"][number]), int(index["samples"][number]))

        def __getitems__(self, numbers):
            return [self[number] for number in numbers]

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        shards.write_manifest(path, {"kind": "eeg", "split": "train"}, [], _made_index(hours), [])
        before = peak_memory()
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
        "peak memory of the process, GB": peak_memory(),
        "of which before, GB": before,
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
