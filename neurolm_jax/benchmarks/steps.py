"""Full training steps (forward, backward, optimizer) at a size of the model, float32, on this machine's CPU.

Each stage runs in a process of its own, so that its memory is told too; EEG is random numbers, which take as long.
"""

import concurrent.futures
import multiprocessing
import statistics
import time

import numpy as np

from neurolm_jax.benchmarks import in_float32, peak_memory

STAGES = ("tokenizer", "pretrain", "instruct")
CHANNELS, SECONDS, TEXT = 23, 44, 1024  # of a row of EEG; tokens of the row of text
SAMPLES, SAMPLE_SECONDS, QUESTION, ANSWER = 4, 5, 80, 6  # of the instruct stage; QUESTION holds the answer's tokens
STEPS = 5


def bench_train(size: str = "b", stages=STAGES, twin: bool = False) -> dict[str, float]:
    """Valid EEG tokens a second, share of the machine's best matrix product, seconds and peak memory of each stage;
    with ``twin`` the same of plain PyTorch in a process of its own, and the ratio."""
    found = {}
    for stage in stages:
        ours = _alone(_measure, stage, size)
        found |= {f"{stage}: {name}": value for name, value in ours.items()}
        if twin:
            from neurolm_jax.benchmarks import twins

            theirs = _alone(twins.measure, stage, size)
            found |= {f"{stage}, plain PyTorch: {name}": value for name, value in theirs.items()}
            found[f"{stage}: ratio"] = ours["valid EEG tokens/second"] / theirs["valid EEG tokens/second"]
    return found


def _alone(function, *arguments):
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *arguments).result()


def _measure(name, size):
    import jax

    from neurolm_jax.ahead import arithmetic
    from neurolm_jax.ahead.product import best_product
    from neurolm_jax.training.mesh import make_mesh, put_batch
    from neurolm_jax.training.state import create_state, make_train_step

    stage, mesh = build_stage(name, size), make_mesh()
    state, rng = create_state(stage, mesh), jax.random.key(0)
    batch, valid = make_batch(stage)
    batch, step = put_batch(mesh, batch), make_train_step(stage, mesh)
    needed = arithmetic.work(stage, state.weights).total
    begin = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, batch, rng))
    first = time.perf_counter() - begin
    state, _ = jax.block_until_ready(step(state, batch, rng))
    times, products = [], []
    for _ in range(STEPS):
        begin = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch, rng))
        times.append(time.perf_counter() - begin)
        products.append(best_product())
    seconds = statistics.median(times)
    return {
        "valid EEG tokens/second": valid / seconds,
        "seconds a step": seconds,
        "GFLOP a step": needed / 1e9,
        "GFLOP/second": needed / seconds / 1e9,
        "of the best matrix product": needed / seconds / statistics.median(products),
        "peak memory, GB": peak_memory(),
        "seconds of the first step": first,
    }


def build_stage(name: str, size: str):
    """A stage of the benchmark's rows, float32, without rematerialisation."""
    import importlib

    from neurolm_jax import stages
    from neurolm_jax.training import schedule

    c = in_float32(importlib.import_module(f"configs.{name}").get_config(size))
    c.update(batch_size=2, text_batch_size=1, text_length=TEXT)
    if name == "instruct":
        eeg = SAMPLES * CHANNELS * SAMPLE_SECONDS
        c.update(batch_size=1, eeg_length=eeg, row_length=eeg + SAMPLES * QUESTION, answer_length=SAMPLES * ANSWER)
    else:
        c.row_length = CHANNELS * SECONDS
    return stages.build(schedule.resolved(c))


def make_batch(stage) -> tuple[dict, int]:
    """A batch of the stage's rows without padding, and its EEG tokens."""
    from neurolm_jax.data.dialogues import Dialogue, fill_dialogues
    from neurolm_jax.data.streams import stack

    rng, c = np.random.default_rng(0), stage.config
    text = rng.integers(0, 50000, (c.text_batch_size, c.text_length + 1)).astype(np.int32)
    if c.stage == "instruct":
        shape = CHANNELS, SAMPLE_SECONDS * 200
        words = rng.integers(0, 50000, (SAMPLES, QUESTION)).tolist()
        dialogues = [
            Dialogue(rng.standard_normal(shape), tuple(range(CHANNELS)), w[:-ANSWER], w[-ANSWER:]) for w in words
        ]
        rows = stack([fill_dialogues(dialogues, stage.row_size)])
        batch = {"dialogues": rows, "text": text}
    else:
        rows = eeg_batch(c, CHANNELS, SECONDS, rng)
        batch = {"eeg": rows, "text": text}
    eeg = rows["eeg"] if c.stage == "instruct" else rows
    return batch, int((eeg["segment"] > 0).sum())


def eeg_batch(config, channels: int, seconds: int, rng: np.random.Generator) -> dict:
    """Rows of EEG of one segment each."""
    from neurolm_jax.data.eeg_rows import empty_shard_row, fill_row
    from neurolm_jax.data.streams import stack

    filled = []
    for _ in range(config.batch_size):
        row = empty_shard_row(config.row_length)
        samples = rng.integers(-30000, 30000, (channels, seconds * 200)).astype(np.int16)
        fill_row(row, 0, 1, samples, range(channels))
        filled.append(row | {"scale": np.full(config.row_length, 1e-4, np.float32)})
    return stack(filled)
