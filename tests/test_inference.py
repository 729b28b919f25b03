import dataclasses
import functools
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.metrics import balanced_accuracy_score
from small_data import NAMES, config

from neurolm_jax import stages
from neurolm_jax.data import vocabulary
from neurolm_jax.data.dialogues import Dialogue, RowSize, answer_tokens, fill_dialogues
from neurolm_jax.data.shards import open_shards
from neurolm_jax.data.streams import stack
from neurolm_jax.eeg.tasks import load_task, prompts
from neurolm_jax.inference import baselines
from neurolm_jax.inference.features import encode_windows, pooling
from neurolm_jax.inference.generation import generate, read_answer, text_of
from neurolm_jax.inference.model import Trained
from neurolm_jax.inference.questions import QuestionRows, Size, row_size
from neurolm_jax.inference.scoring import answer_probabilities, answer_scores, question, question_size
from neurolm_jax.inference.windows import Windows, centre, crops, read_windows
from neurolm_jax.models.attention import staircase
from neurolm_jax.models.neurolm import NeuroLM
from neurolm_jax.training.mesh import make_mesh


class Few:
    """Some windows, in memory."""

    def __init__(self, task, records, labels, groups=None):
        self.task, self.records, self.labels = task, records, np.asarray(labels)
        self.channels, self.samples = np.array([r.samples.shape for r in records]).T
        self.montages = np.array([zlib.crc32(bytes(r.electrodes)) for r in records])
        self.groups = np.array(groups if groups is not None else range(len(records)), object)

    def __len__(self):
        return len(self.records)

    def __getitem__(self, number):
        return self.records[number]


def few(windows: Windows, numbers) -> Few:
    return Few(windows.task, [windows[i] for i in numbers], windows.labels[list(numbers)])


@pytest.fixture(scope="module")
def model(small_data, tmp_path_factory):
    """An instruct stage with random weights, its outputs made large enough to differ."""
    stage = stages.build(config("instruct", small_data, tmp_path_factory.mktemp("none")))
    weights = nn.unbox(jax.jit(stage.create)(jax.random.key(0)))
    weights = weights._replace(params=jax.tree.map(lambda x: 5 * x if x.ndim > 1 else x, weights.params))
    return Trained(stage, weights, make_mesh())


@pytest.fixture(scope="module")
def windows(small_data):
    found = read_windows((load_task(n), open_shards(small_data / n / "windows" / "test")) for n in NAMES)
    return [found[name] for name in NAMES]


def questions_of(windows):
    """The middle crops' questions, and their sizes."""
    task, prompt = windows.task, prompts.prompt(windows.task)
    found = [question(task, prompt, windows[i], centre(task, windows.samples[i])) for i in range(len(windows))]
    return found, [question_size(task, prompt, len(q.samples)) for q in found]


def logits_alone(model, q, tokens):
    """Logits [T, V] after each of the tokens that follow a question's EEG, computed alone in a row without padding, by
    the model that keeps no cache."""
    count = q.samples.size // 200
    size = RowSize(count, count + len(q.prompt), 1)
    eeg = stack([fill_dialogues([Dialogue(q.samples, q.electrodes, q.prompt, [])], size)["eeg"]])
    eeg_index = np.concatenate([np.arange(count), np.full(len(tokens), -1)])[None]
    text = np.concatenate([np.zeros(count, int), tokens])[None]
    position = np.concatenate([eeg["second"][0], eeg["second"][0, -1] + 1 + np.arange(len(tokens))])[None]
    return np.asarray(_alone(model.stage, model.weights, eeg, eeg_index, text, position))[count:]


@functools.partial(jax.jit, static_argnums=0)
def _alone(stage, weights, eeg, eeg_index, text, position):
    features, _ = stage.encode(weights.extra, eeg)
    intervals = staircase(jnp.ones_like(position), position, eeg_index < 0)
    mixed = {"eeg_index": eeg_index, "tokens": text, "position": position, "segment": jnp.ones_like(text)}
    mixed["separator"] = (eeg_index < 0) & (text == vocabulary.SEPARATOR)
    model = NeuroLM(stage.model_config)
    hidden = model.apply({"params": weights.params}, features, eeg, mixed, intervals, method="mixed_hidden")
    return hidden[0] @ weights.params["language"]["output"].T


def test_small_windows_share_rows_of_the_size_that_the_largest_want(model, windows):
    sizes = [question_size(w.task, prompts.prompt(w.task), int(c)) for w in windows for c in set(w.channels.tolist())]
    size = row_size(model.stage, sizes[:1], sizes)
    assert size == row_size(model.stage, sizes[-1:], sizes)
    found, own = questions_of(windows[1])
    alone = answer_scores(model, own, lambda i: found[i])
    shared = answer_scores(model, own, lambda i: found[i], among=sizes)
    np.testing.assert_allclose(alone, shared, rtol=1e-4)


def score_alone(model, q, answer):
    logits = logits_alone(model, q, q.prompt + answer).astype(np.float64)[-len(answer) - 1 : -1]
    return sum(line[token] - logsumexp(line) for line, token in zip(logits, answer))


def test_scores_of_one_pass_equal_each_answer_alone(model, windows):
    pairs = [pair for w in windows for pair in zip(*questions_of(few(w, range(3))))]
    got = answer_scores(model, [size for _, size in pairs], lambda i: pairs[i][0])
    for (q, _), scores in zip(pairs, got):
        np.testing.assert_allclose(scores, [score_alone(model, q, answer) for answer in q.answers], rtol=1e-4)
    assert len(set(np.round(np.concatenate(got), 3))) > len(got)  # they do differ


def test_answers_of_several_tokens_and_shared_beginnings_are_scored_whole(model, windows):
    [q], [size] = questions_of(few(windows[2], [0]))
    answers = tuple(answer_tokens(text) for text in (" (A)", " (B)", " very long answers", " very long", " Yes"))
    q = dataclasses.replace(q, answers=answers)
    size = dataclasses.replace(size, answers=tuple(map(len, answers)))
    [got] = answer_scores(model, [size], lambda _: q)
    np.testing.assert_allclose(got, [score_alone(model, q, answer) for answer in answers], rtol=1e-4)


def test_probabilities_average_the_crops(model, windows):
    scp1 = few(windows[1], range(2))
    got = answer_probabilities(model, scp1)
    np.testing.assert_allclose(got.sum(1), 1)
    for record, p in zip(scp1.records, got):
        begins = crops(scp1.task, record.samples.shape[1])
        assert begins.tolist() == [0, 25, 50, 75, 100]
        each = []
        for begin in begins:
            q = question(scp1.task, prompts.prompt(scp1.task), record, begin)
            score = np.exp([score_alone(model, q, answer) for answer in q.answers])
            each.append(score / score.sum())
        np.testing.assert_allclose(p, np.mean(each, axis=0), rtol=1e-4)


def test_generation_equals_the_model_without_cache_position_by_position(model, windows):
    pairs = [pair for w in windows for pair in zip(*questions_of(few(w, range(2))))]
    pairs = [(dataclasses.replace(q, answers=()), dataclasses.replace(size, answers=(1,))) for q, size in pairs]
    got = generate(model, [size for _, size in pairs], lambda i: pairs[i][0], tokens=4)
    said = set()
    for (q, _), text in zip(pairs, got):
        tokens = q.prompt + [0] * 4  # what follows a token does not matter to it
        for place in range(len(q.prompt), len(tokens)):
            logits = logits_alone(model, q, tokens)[place - 1, : vocabulary.END_OF_TEXT + 1]
            tokens[place] = int(logits.argmax())
        assert text == text_of(tokens[len(q.prompt) :])
        said.add(text)
    assert len(said) > 1


def test_answers_are_read_exactly_or_not_at_all():
    prompt = prompts.prompt(load_task("blink"))
    assert read_answer(prompt, " Short") == 0 and read_answer(prompt, "Long ") == 1
    for text in ("", "short", "Shorter", "Short Long", "Yes", "\ufffd"):
        assert read_answer(prompt, text) is None
    end = vocabulary.END_OF_TEXT
    assert text_of([*vocabulary.encode(" Long "), end, *vocabulary.encode(" Short")]) == " Long "


def test_baselines_find_a_planted_rhythm_and_a_planted_shift(windows):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 80)
    time = np.arange(400) / 200
    record = windows[0][0]
    rhythms = [rng.standard_normal((4, 400)) + 2 * k * np.sin(2 * np.pi * 10 * time) for k in labels]
    shifts = [rng.standard_normal((4, 400)) + 3 * k for k in labels]
    for kind, signals in (("band_power", rhythms), ("slow_wave", shifts)):
        records = [dataclasses.replace(record, samples=x) for x in signals]
        # Every other test window misses an electrode.
        for i in range(41, 80, 2):
            records[i] = dataclasses.replace(record, samples=signals[i][1:], electrodes=record.electrodes[1:])
        halves = [Few(windows[0].task, records[s], labels[s]) for s in (slice(40), slice(40, 80))]
        train, test = (getattr(baselines.simple_features(half, sorted(record.electrodes)), kind) for half in halves)
        assert np.isnan(test).sum() == 20 * test.shape[1] // 4
        p = baselines.probe(train, labels[:40], np.arange(40), test, 2)
        assert balanced_accuracy_score(labels[40:], p.argmax(1)) > 0.95


def test_what_electrodes_share_is_read():
    """The matrix logarithm is SciPy's; a source that two electrodes share is found, where power tells nothing."""
    from scipy.linalg import logm

    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, 800)) * np.arange(1, 6)[:, None]
    x[1] += x[0]
    found = baselines.log_covariance(x)
    spectrum, frequency = np.fft.rfft(x * np.hanning(800)), np.arange(401) / 4
    for band, (low, high) in enumerate(baselines.BANDS):
        want = np.zeros((5, 5))
        for k in np.flatnonzero((frequency >= low) & (frequency < high)):
            want += np.outer(spectrum[:, k], spectrum[:, k].conj()).real
        want = logm(want / np.trace(want) * 5 + baselines.SHRINKAGE * np.eye(5))
        np.testing.assert_allclose(np.diag(found[band]), np.diag(want), atol=1e-8)
        np.testing.assert_allclose(found[band][np.triu_indices(5, 1)], want[np.triu_indices(5, 1)] * 2**0.5, atol=1e-8)


def test_baselines_find_what_is_planted_between_electrodes(windows):
    rng = np.random.default_rng(0)
    labels, record = rng.integers(0, 2, 80), windows[0][0]
    signals = []
    for label in labels:
        x = rng.standard_normal((4, 400))
        x[1 - label] = (x[1 - label] + x[2]) / 2**0.5  # of the same power, whichever electrode it is
        signals.append(x)
    records = [dataclasses.replace(record, samples=x) for x in signals]
    records[41] = dataclasses.replace(record, samples=signals[41][1:], electrodes=record.electrodes[1:])
    halves = [Few(windows[0].task, records[s], labels[s]) for s in (slice(40), slice(40, 80))]
    train, test = (baselines.simple_features(half, sorted(record.electrodes)) for half in halves)
    assert train.covariance.shape == (40, 4 * 5 + 5 * 10)
    assert np.isnan(test.covariance).sum(axis=1).tolist() == [0, 5 + 5 * 4] + [0] * 38
    accuracy = {}
    for kind in ("band_power", "covariance"):
        p = baselines.probe(getattr(train, kind), labels[:40], np.arange(40), getattr(test, kind), 2)
        accuracy[kind] = balanced_accuracy_score(labels[40:], p.argmax(1))
    assert accuracy["covariance"] > 0.95 and accuracy["band_power"] < 0.75


def test_a_probe_of_classes_that_are_not_all_there():
    x, groups = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) // 5
    x[10:] += 5
    labels = np.repeat([0, 2], 10)
    p = baselines.probe(x, labels, groups, x, 4)
    assert p.shape == (20, 4) and not p[:, [1, 3]].any() and (p.argmax(1) == labels).all()
    np.testing.assert_array_equal(baselines.probe(x, labels * 0 + 1, groups, x, 3), np.tile([0.0, 1, 0], (20, 1)))


def test_features_do_not_depend_on_the_company(model, windows):
    features, counts = encode_windows(model, windows[1], "none")
    feature, count = encode_windows(model, few(windows[1], [2]), "none")
    np.testing.assert_allclose(features[2], feature[0], rtol=1e-4, atol=1e-5)
    assert features.shape == (12, 3 * 32) and counts.sum() == 12 * 3 and count.sum() == 3
    assert (counts >= count).all()


def test_features_may_be_averaged(model, windows):
    """Over all tokens, or over the seconds of each electrode."""
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    for part, electrodes, seconds in ((windows[0], 4, 2), (windows[2], 14, 1)):
        whole, of_window, of_electrodes = (
            encode_windows(model, part, pool)[0] for pool in ("none", "window", "channel")
        )
        tokens = whole.reshape(len(whole), seconds, electrodes, 32)
        close(of_window, np.concatenate([tokens.mean((1, 2)), tokens.std((1, 2))], 1))
        close(of_electrodes, tokens.mean(1).reshape(len(whole), -1))


def test_windows_are_alike_if_their_electrodes_are(model, windows, monkeypatch):
    from neurolm_jax.inference import pooling as limits

    one = few(windows[0], range(3))
    fewer, other = (
        [dataclasses.replace(r, **change(r)) for r in one.records]
        for change in (
            lambda r: {"samples": r.samples[:3], "electrodes": r.electrodes[:3]},
            lambda r: {"electrodes": r.electrodes[::-1]},
        )
    )
    assert pooling(model, one, windows[0]) == "none"
    for records in (fewer, other):
        assert pooling(model, one, Few(one.task, records, one.labels)) == "window"
    tokens = 32 * one.task.seconds * len(one.records[0].electrodes)
    monkeypatch.setattr(limits, "MAX_FROM_TOKENS", tokens)
    assert pooling(model, one) == "none"
    monkeypatch.setattr(limits, "MAX_FROM_TOKENS", tokens - 1)
    assert pooling(model, one) == "channel"
    monkeypatch.setattr(limits, "MAX_FROM_CHANNELS", 10)
    assert pooling(model, one) == "window"


def test_rows_hold_several_small_questions_beside_a_large_one(model):
    large, small = Size(240, 20, (2, 2)), Size(4, 10, (1, 1, 1))
    size = row_size(model.stage, [small], [large])
    assert size == RowSize(480, 2 * 259, 8 * 3, 8)
    rows = QuestionRows([small] * 20, lambda i: None, size)
    assert [len(rows.questions(i)) for i in range(len(rows))] == [8, 8, 4]
    assert row_size(model.stage, [large]) == RowSize(480, 2 * 259, 2 * 4, 2)
