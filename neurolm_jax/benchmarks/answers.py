"""Answers about EEG, against the way of the released code."""

import dataclasses
import time

import numpy as np

from neurolm_jax.benchmarks import ROUNDS, in_float32

CHANNELS, SECONDS, QUESTION, NEW = 23, 5, 64, 5  # tokens of the question; new tokens
PADDED_EEG = 276  # tokens, whatever the sample has
SAMPLES = 8


def bench_answer(size: str = "b") -> dict[str, float]:
    """Samples a second of scoring six answers and of generating words, and of the released code's way; best of
    ``ROUNDS`` in turns. Random weights, float32."""
    import flax.linen as nn
    import jax

    from neurolm_jax.inference import generation, scoring
    from neurolm_jax.inference.model import Trained
    from neurolm_jax.inference.questions import Question, QuestionRows, Size, fill_questions, row_size
    from neurolm_jax.training.mesh import make_mesh

    stage = _stage(size)
    weights = nn.unbox(jax.jit(stage.create)(jax.random.key(0)))
    model = Trained(stage, weights, make_mesh())
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((SAMPLES, CHANNELS, SECONDS * 200)).astype(np.float32) * 30
    prompt = [50257, *rng.integers(0, 50000, QUESTION - 1).tolist()]
    answers = tuple([32 + k, 8, 220, 50256] for k in range(6))  # "A) <|endoftext|>" and so on, the bracket given
    sizes = [Size(CHANNELS * SECONDS, QUESTION, tuple(map(len, answers)))] * SAMPLES
    open_sizes = [Size(CHANNELS * SECONDS, QUESTION)] * SAMPLES

    def question(i):
        return Question(samples[i], tuple(range(CHANNELS)), prompt, answers)

    def open_question(i):
        return Question(samples[i], tuple(range(CHANNELS)), prompt)

    usual = _usual(stage)
    ways = {
        "released code's way": lambda: usual(weights, samples, prompt),
        "scoring six answers": lambda: scoring.answer_scores(model, sizes, question),
        "generating words": lambda: generation.generate(model, open_sizes, open_question, NEW),
    }
    seconds = {name: [] for name in ways}
    for way in ways.values():
        way()  # compiled here
    for _ in range(ROUNDS):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begin)
    rate = {name: SAMPLES / min(times) for name, times in seconds.items()}
    plain = rate["released code's way"]
    rows = QuestionRows(sizes, question, row_size(stage, sizes))
    filled = fill_questions([question(i) for i in rows.questions(0)], rows.size)["mixed"]["segment"] > 0
    return (
        {f"{name}, samples/second": value for name, value in rate.items()}
        | {f"{name}, ratio": value / plain for name, value in rate.items() if value != plain}
        | {"tokens of a row in use": float(filled.mean())}
    )


def _stage(size):
    from configs import instruct
    from neurolm_jax import stages

    return stages.build(in_float32(instruct.get_config(size)))


def _usual(stage):
    """One sample a row, its EEG padded; the whole language model over the whole row for every new token."""
    import jax
    import jax.numpy as jnp

    from neurolm_jax.data.dialogues import Dialogue, RowSize, fill_dialogues
    from neurolm_jax.data.streams import stack
    from neurolm_jax.models.attention import staircase
    from neurolm_jax.models.config import SummaryConfig
    from neurolm_jax.models.neurolm import NeuroLM

    count, model = CHANNELS * SECONDS, NeuroLM(dataclasses.replace(stage.model_config, summary=SummaryConfig()))

    @jax.jit
    def encode(weights, eeg):
        return stage.encode(weights.extra, eeg)[0]

    @jax.jit
    def next_token(weights, features, eeg, tokens):
        length = PADDED_EEG + tokens.shape[1]
        index = jnp.arange(length)
        text = index >= PADDED_EEG
        second = jnp.pad(eeg["second"], ((0, 0), (0, tokens.shape[1])))
        second = jnp.where(text, SECONDS + index - PADDED_EEG, second)
        segment = jnp.where(text, 1, jnp.pad(eeg["segment"], ((0, 0), (0, tokens.shape[1]))))
        eeg_index = jnp.broadcast_to(jnp.where(text, -1, index), segment.shape)
        words = jnp.pad(tokens, ((0, 0), (PADDED_EEG, 0)))
        intervals = staircase(segment, second, eeg_index < 0)
        mixed = {"eeg_index": eeg_index, "tokens": words, "position": second}
        hidden = model.apply({"params": weights.params}, features, eeg, mixed, intervals, method="mixed_hidden")
        classes = weights.params["language"]["output"][:50257]
        return (hidden[:, -1] @ classes.T).argmax(-1)

    def run(weights, samples, prompt):
        size = RowSize(PADDED_EEG, PADDED_EEG + len(prompt), 1)
        dialogues = [Dialogue(x, tuple(range(CHANNELS)), prompt, []) for x in samples]
        eeg = stack([fill_dialogues([d], size)["eeg"] for d in dialogues])
        assert (eeg["segment"] > 0).sum() == len(samples) * count
        features = encode(weights, eeg)
        tokens = jnp.tile(jnp.array(prompt), (len(samples), 1))
        for _ in range(NEW):
            chosen = next_token(weights, features, eeg, tokens)
            tokens = jnp.concatenate([tokens, chosen[:, None]], axis=1)
        return np.asarray(tokens)

    return run
