"""Questions word for word as the released models know them, and other ways to ask."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from neurolm_jax.data.dialogues import DialogueRows, RowSize, answer_tokens, prompt_tokens
from neurolm_jax.data.shards import open_shards
from neurolm_jax.data.vocabulary import decode
from neurolm_jax.eeg.tasks import NAMES, load_task
from neurolm_jax.eeg.tasks.prompts import draw, prompt, variants
from neurolm_jax.inference.scoring import asked

# Of the released code: question, answers in the order of the classes there.
OFFICIAL = {
    "tuab": ("Question: Is this EEG segment abnormal? Answer:", [" Yes", " No"]),
    "tuev": (
        "Question: Which event type does this EEG segment belong to? Options: (A) spike and slow wave. "
        "(B) generalized periodic epileptiform discharge. (C) periodic lateralized epileptiform discharge. "
        "(D) eye movement. (E) artifact. (F) background. Answer:",
        [" (A)", " (B)", " (C)", " (D)", " (E)", " (F)"],
    ),
    "tusl": (
        "Question: Which type does this EEG segment belong to? "
        "Options: (A) background. (B) seizure. (C) slowing. Answer:",
        [" (A)", " (B)", " (C)"],
    ),
    "seed": (
        "Question: Which emotion type does this EEG segment belong to? Answer:",
        [" Positive", " Neutral", " Negative"],
    ),
    "hmc": (
        "Question: Which sleep type does this EEG segment belong to? Options: (A) Wake. (B) NREM-1. (C) NREM-2. "
        "(D) NREM-3. (E) REM. Answer:",
        [" (A)", " (B)", " (C)", " (D)", " (E)"],
    ),
    "workload": ("Question: Is this EEG segment of high workload? Answer:", [" Yes", " No"]),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_questions_are_the_released_models_own(name):
    found = prompt(load_task(name))
    assert (found.question, list(found.answers)) == OFFICIAL[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_question_has_a_frame_and_answers_that_differ(name):
    task = load_task(name)
    for asked_so in variants(task):
        assert asked_so.question.startswith("Question: ") and asked_so.question.endswith(" Answer:")
        assert len(set(asked_so.answers)) == len(task.answers)
        tokens, rest = asked(asked_so)
        assert len({answer[0] for answer in rest}) == len(rest)  # told apart by the next token
        for answer, tail in zip(asked_so.answers, rest):
            assert decode(tokens[1:] + tail[:-1]) == asked_so.question + answer + " "
    assert len({v.question for v in variants(task)}) == len(variants(task)) >= 2


def test_a_letter_stands_for_the_same_words_in_any_order():
    task = load_task("hmc")
    words = list(task.answers.values())
    for order in itertools.permutations(range(5)):
        found = prompt(task, 1, order)
        for word, letter in zip(words, found.answers):
            assert f"{letter} {word}." in found.question
        # Rows are planned with the length of one order.
        assert len(prompt_tokens(found.question)) == len(prompt_tokens(prompt(task, 1).question))


@pytest.mark.parametrize("name", ["tuev", "tusl", "seed_iv"])
def test_the_order_of_options_does_not_change_a_length(name):
    task, rng = load_task(name), np.random.default_rng(0)
    for wording in range(1 + len(task.wordings)):
        orders = [rng.permutation(len(task.answers)) for _ in range(50)]
        found = [prompt(task, wording, order) for order in orders]
        assert len({len(prompt_tokens(p.question)) for p in found}) == 1
        assert len({len(answer_tokens(a)) for p in found for a in p.answers}) == 1


def test_wordings_are_drawn_alike():
    task, rng = load_task("tusl"), np.random.default_rng(0)
    found = collections.Counter(draw(task, rng) for _ in range(3600))
    assert len(found) == 3 * 6  # wordings, orders of three options
    assert all(130 < count < 280 for count in found.values())


def test_rows_with_varied_questions_are_a_function_of_seed_and_index(small_data):
    parts = [(load_task("blink"), open_shards(small_data / "blink" / "windows" / "train"))]
    size = RowSize(64, 128, 12)
    rows, again = (DialogueRows(parts, size, 3, varied=True) for _ in range(2))
    questions = collections.Counter()
    for i in range(6 * len(rows)):
        row = rows[i]["mixed"]
        np.testing.assert_array_equal(row["tokens"], again[i]["mixed"]["tokens"])
        text = decode([t for t in row["tokens"].tolist() if 0 < t < 50257])
        questions.update(part.split("?")[0] for part in text.split("Question: ")[1:])
    assert len(questions) == 3
    plain = DialogueRows(parts, size, None, varied=True)  # validation asks as the released models are asked
    text = decode([t for t in plain[0]["mixed"]["tokens"].tolist() if 0 < t < 50257])
    assert {part.split("?")[0] for part in text.split("Question: ")[1:]} == {load_task("blink").question.rstrip("?")}


def test_shuffled_options_keep_the_wording_and_point_at_the_same_answers(small_data):
    shards = open_shards(small_data / "blink" / "windows" / "train")
    lettered = dataclasses.replace(load_task("blink"), lettered=True)
    rows = DialogueRows([(lettered, shards)], RowSize(64, 128, 12), 3, shuffled=True)
    seen = collections.Counter()
    for i in range(6 * len(rows)):
        text = decode([t for t in rows[i]["mixed"]["tokens"].tolist() if 0 < t < 50257])
        for part in text.split("Question: ")[1:]:
            stem, _, rest = part.partition(" Options: ")
            assert stem == lettered.question
            options, _, answer = rest.partition(" Answer: ")
            words = {"(A)": options[4:].split(".")[0], "(B)": options.split("(B) ")[1].split(".")[0]}
            seen[options, words[answer[:3]]] += 1
    # Both orders, and in each both answers, as often as their labels occur.
    assert len(seen) == 4 and {word for _, word in seen} == {"Short", "Long"}
    total = collections.Counter()
    for (_, word), count in seen.items():
        total[word] += count
    labels = collections.Counter(lettered.answers[label] for label in shards.manifest["index"]["label"])
    assert total == {word: 6 * count for word, count in labels.items()}
