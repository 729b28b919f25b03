import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from small_data import config

from neurolm_jax import train
from neurolm_jax.data import vocabulary
from neurolm_jax.data.dialogues import RowSize, dialogue, fill_dialogues
from neurolm_jax.data.shards import open_shards
from neurolm_jax.data.streams import stack
from neurolm_jax.eeg.tasks import NAMES, load_task
from neurolm_jax.inference import baselines
from neurolm_jax.inference.features import encode_windows
from neurolm_jax.inference.generation import generate, read_answer, text_of
from neurolm_jax.inference.measures import measure, measure_words
from neurolm_jax.inference.scoring import answer_log_probabilities, answer_probabilities, dialogue_size
from neurolm_jax.inference.windows import LabelledWindows, centred, crops, read_windows
from neurolm_jax.models.attention import staircase
from neurolm_jax.models.neurolm import NeuroLM


@pytest.fixture(scope="module")
def model(small_data, tmp_path_factory):
    """An instruct stage with random weights, its outputs made large enough to differ."""
    stage = train.build(config("instruct", small_data, tmp_path_factory.mktemp("none")))
    weights = nn.unbox(jax.jit(stage.create)(jax.random.key(0)))
    return stage, weights._replace(params=jax.tree.map(lambda x: 5 * x if x.ndim > 1 else x, weights.params))


@pytest.fixture(scope="module")
def windows(small_data):
    found = read_windows((load_task(n), open_shards(small_data / n / "windows" / "test")) for n in NAMES)
    return [found[name] for name in NAMES]


def logits_alone(stage, weights, d, tokens):
    """Logits [T, V] after each of the tokens that follow a dialogue's EEG, computed alone in a row without padding."""
    count = d.samples.size // 200
    eeg = stack(
        [fill_dialogues([d], RowSize(count, count + len(d.prompt) + len(d.answer), max(1, len(d.answer))))["eeg"]]
    )
    eeg_index = np.concatenate([np.arange(count), np.full(len(tokens), -1)])[None]
    text = np.concatenate([np.zeros(count, int), tokens])[None]
    position = np.concatenate([eeg["second"][0], eeg["second"][0, -1] + 1 + np.arange(len(tokens))])[None]
    return np.asarray(_alone(stage, weights, eeg, eeg_index, text, position))[count:]


@functools.partial(jax.jit, static_argnums=0)
def _alone(stage, weights, eeg, eeg_index, text, position):
    features, _ = stage.encode(weights.extra, eeg)
    intervals = staircase(jnp.ones_like(position), position, eeg_index < 0)
    places = eeg["channel"], eeg["second"], eeg_index, text, position
    model = NeuroLM(stage.model_config)
    hidden = model.apply({"params": weights.params}, features, *places, intervals, method="mixed_hidden")
    return hidden[0] @ weights.params["language"]["output"].T


def test_packed_scores_equal_each_dialogue_alone(model, windows):
    stage, weights = model
    dialogues = [centred(w.task, w.records[i], label) for i in range(2) for w in windows for label in w.task.answers]
    got = answer_log_probabilities(stage, weights, dialogues)
    for d, score in zip(dialogues, got):
        logits = logits_alone(stage, weights, d, d.prompt + d.answer).astype(np.float64)[-len(d.answer) - 1 : -1]
        want = sum(line[token] - logsumexp(line) for line, token in zip(logits, d.answer))
        np.testing.assert_allclose(score, want, rtol=1e-4)
    assert len(set(np.round(got, 3))) > len(got) / 2  # they do differ


def test_probabilities_average_the_crops(model, windows):
    stage, weights = model
    scp1 = LabelledWindows(windows[1].task, windows[1].records[:2], windows[1].labels[:2])
    got = answer_probabilities(stage, weights, scp1)
    np.testing.assert_allclose(got.sum(1), 1)
    for record, p in zip(scp1.records, got):
        begins = crops(scp1.task, record)
        assert begins.tolist() == [0, 25, 50, 75, 100]
        each = []
        for begin in begins:
            pair = [dialogue(scp1.task, record, begin, label) for label in scp1.task.answers]
            score = np.exp(answer_log_probabilities(stage, weights, pair))
            each.append(score / score.sum())
        np.testing.assert_allclose(p, np.mean(each, axis=0), rtol=1e-4)


def test_generation_equals_the_model_without_padding(model, windows):
    stage, weights = model
    dialogues = [centred(w.task, w.records[0]) for w in windows]
    got = generate(stage, weights, dialogues, tokens=3, batch=2)
    for d, text in zip(dialogues, got):
        tokens = d.prompt + [0, 0, 0]  # what follows a token does not matter to it
        for place in range(len(d.prompt), len(tokens)):
            logits = logits_alone(stage, weights, d, tokens)[place - 1, : vocabulary.END_OF_TEXT + 1]
            tokens[place] = int(logits.argmax())
        assert text == text_of(tokens[len(d.prompt) :])


def test_answers_are_read_exactly_or_not_at_all():
    task = load_task("blink")
    assert read_answer(task, " Short") == 0 and read_answer(task, "Long ") == 1
    for text in ("", "short", "Shorter", "Short Long", "Yes", "\ufffd"):
        assert read_answer(task, text) is None
    end = vocabulary.END_OF_TEXT
    assert text_of([*vocabulary.encode(" Long "), end, *vocabulary.encode(" Short")]) == " Long "


def test_measures_equal_scikit_learn():
    rng = np.random.default_rng(0)
    labels, p = rng.integers(0, 2, 60), rng.random(60).round(1)
    found = measure(labels, np.stack([1 - p, p], 1), ["a", "b"])
    answered = np.stack([1 - p, p], 1).argmax(1)
    assert found["balanced_accuracy"] == balanced_accuracy_score(labels, answered)
    assert found["auroc"] == roc_auc_score(labels, p)
    assert np.sum(found["confusion"]) == found["n_test"] == 60
    assert found["confusion"][0][1] == ((labels == 0) & (answered == 1)).sum()


def test_measures_of_three_classes_and_of_missing_ones():
    rng = np.random.default_rng(0)
    labels, p = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3), 60)
    found = measure(labels, p, ["a", "b", "c"])
    np.testing.assert_allclose(found["auroc"], roc_auc_score(labels, p, multi_class="ovr"))
    np.testing.assert_allclose(found["balanced_accuracy"], balanced_accuracy_score(labels, p.argmax(1)))
    two = measure(labels % 2, p, ["a", "b", "c"])  # no c
    areas = [roc_auc_score(labels % 2 == k, p[:, k]) for k in (0, 1)]
    np.testing.assert_allclose(two["auroc"], np.mean(areas))
    assert two["recall"]["c"] == 0 and two["balanced_accuracy"] == (two["recall"]["a"] + two["recall"]["b"]) / 2
    assert measure(labels * 0, p, ["a", "b", "c"])["auroc"] is None


def test_an_unreadable_answer_is_no_class():
    found = measure_words(np.array([0, 0, 1, 1]), [0, None, 1, None], 2)
    assert found == {"balanced_accuracy": 0.5, "unreadable": 0.5}
    assert measure_words(np.array([0, 1]), [None, None], 2)["balanced_accuracy"] == 0


def test_baselines_find_a_planted_rhythm(windows):
    import dataclasses

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 80)
    time = np.arange(400) / 200
    record = windows[0].records[0]
    records = [
        dataclasses.replace(record, samples=rng.standard_normal((4, 400)) + 2 * k * np.sin(2 * np.pi * 10 * time))
        for k in labels
    ]
    half = [LabelledWindows(windows[0].task, records[s], labels[s]) for s in (slice(40), slice(40, 80))]
    p = baselines.probe(baselines.band_power(half[0]), half[0].labels, baselines.band_power(half[1]))
    assert balanced_accuracy_score(half[1].labels, p.argmax(1)) > 0.95
    shifted = [dataclasses.replace(r, samples=rng.standard_normal((4, 400)) + 3 * k) for r, k in zip(records, labels)]
    half = [LabelledWindows(windows[0].task, shifted[s], labels[s]) for s in (slice(40), slice(40, 80))]
    p = baselines.probe(baselines.slow_wave(half[0]), half[0].labels, baselines.slow_wave(half[1]))
    assert balanced_accuracy_score(half[1].labels, p.argmax(1)) > 0.95


def test_features_do_not_depend_on_the_batch(model, windows):
    stage, weights = model
    features, codes = encode_windows(windows[1], stage, weights)
    alone = LabelledWindows(windows[1].task, windows[1].records[2:3], windows[1].labels[2:3])
    feature, code = encode_windows(alone, stage, weights)
    np.testing.assert_allclose(features[2], feature[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(codes[2], code[0])
    assert features.shape == (12, 3 * 32) and codes.shape == (12, 3)
    assert dialogue_size(centred(alone.task, alone.records[0]))[0] == 3
