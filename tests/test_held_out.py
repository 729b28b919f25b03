"""Validation reads the same rows whatever the batch size, and some of every task."""

import numpy as np
import pytest
from small_data import NAMES
from test_streams import SIZE, eeg_rows, equal, tasks

from neurolm_jax.data.dialogues import DialogueRows, fill_dialogues
from neurolm_jax.data.eeg_rows import empty_shard_row
from neurolm_jax.data.held_out import HeldOut, held_out_steps
from neurolm_jax.data.shards import open_shards
from neurolm_jax.data.text import NO_TEXT, TextRows, empty_text
from neurolm_jax.stages.restore import restore_stage
from neurolm_jax.training import metrics
from neurolm_jax.training.gradients import weighted
from neurolm_jax.training.mesh import make_mesh, put_batch
from neurolm_jax.training.state import make_validation_step


def steps_of(small_data, size, text_size, rows=12, text_rows=7, local_rows=None):
    dialogues = DialogueRows(tasks(small_data, "validation"), SIZE, None)
    text = TextRows(open_shards(small_data / "text" / "validation"), 16, None)
    empty = {"dialogues": (fill_dialogues([], SIZE), size), "text": (empty_text(16), text_size)}
    sources = {"dialogues": (dialogues, size), "text": (text, text_size)}
    return held_out_steps(sources, empty, rows, text_rows, local_rows)


def read(steps):
    """Bytes of the rows with EEG by task, and of those with text."""
    eeg, text = {}, []
    for task, batches in steps:
        for i in range(len(batches)):
            batch = batches[i]
            for row in range(len(batch["text"])):
                if (batch["text"][row] != NO_TEXT).any():
                    text.append(batch["text"][row].tobytes())
            for row in range(len(batch["dialogues"]["mixed"]["tokens"])):
                if batch["dialogues"]["mixed"]["segment"][row].any():
                    eeg.setdefault(task, []).append(batch["dialogues"]["eeg"]["patches"][row].tobytes())
    return {task: sorted(rows) for task, rows in eeg.items()}, sorted(text)


def test_the_same_rows_in_batches_of_any_size(small_data):
    one = read(steps_of(small_data, 1, 1))
    assert set(one[0]) == set(NAMES) and all(1 <= len(rows) <= 4 for rows in one[0].values()) and len(one[1]) == 7
    for sizes in ((2, 2), (4, 1), (2, 8), (16, 4)):
        assert read(steps_of(small_data, *sizes)) == one
    shares = {"dialogues": (0, 1), "text": (0,)}, {"dialogues": (2, 3), "text": (1,)}
    both = [read(steps_of(small_data, 4, 2, local_rows=share)) for share in shares]
    assert sorted(both[0][1] + both[1][1]) == one[1]
    assert {task: sorted(sum((part[0].get(task, []) for part in both), [])) for task in NAMES} == one[0]


def test_rows_are_drawn_from_everywhere_and_text_alone_is_a_validation_too(small_data):
    text = TextRows(open_shards(small_data / "text" / "validation"), 16, None)
    [(task, steps)] = held_out_steps({"text": (text, 4)}, {"text": (empty_text(16), 4)}, 9, 10)
    assert task == "" and len(steps) == 3
    found = np.concatenate([steps[i]["text"] for i in range(3)])
    assert (found[10:] == NO_TEXT).all() and (found[:10] != NO_TEXT).all()
    rows = eeg_rows(small_data, None)
    held = HeldOut(rows, 6, empty_shard_row(64))
    numbers = np.random.default_rng(0).permutation(len(rows))[:6].tolist()
    assert len(held) == 6 and max(numbers) > len(rows) // 2  # not those of a beginning, which are sorted by their size
    for i, number in enumerate(numbers):
        equal(held[i], rows[number])
        assert held.origins(i) == rows.origins(number)
    equal(held[6], empty_shard_row(64))
    few = HeldOut(rows, 10**6, empty_shard_row(64))
    assert len(few) == len(rows)


@pytest.mark.parametrize("name", ["language", "tokenizer", "pretrain", "instruct"])
def test_a_validation_is_the_same_whatever_the_batch_size(runs, small_data, name):
    """Padding counts for nothing in any loss of any stage."""
    mesh = make_mesh()
    stage, weights = restore_stage(runs / name, mesh)
    step, found = make_validation_step(stage, mesh), []
    held_out = stage.sources(train=False)
    for size in (1, 3):
        sources = {key: (rows, size) for key, (rows, _) in held_out.items()}
        empty = {key: (row, size) for key, (row, _) in stage.empty_rows().items()}
        terms = [
            step(weights, put_batch(mesh, steps[i]))
            for _, steps in held_out_steps(sources, empty, 7, 4)
            for i in range(len(steps))
        ]
        losses, others = metrics.total(terms)
        found.append(metrics.scalars(losses | others | {"loss": weighted(stage, losses)}))
    assert found[0].keys() == found[1].keys() and "loss" in found[0]
    for key, value in found[0].items():
        assert np.isfinite(value) and value == pytest.approx(found[1][key], rel=2e-4), key


def test_each_task_has_its_metrics(runs):
    line = [line for line in metrics.read(runs / "instruct") if "validation_loss" in line][-1]
    of_tasks = {f"validation_answer_{metric}_{task}" for metric in ("loss", "accuracy") for task in NAMES}
    assert of_tasks <= line.keys() and all(np.isfinite(line[key]) for key in of_tasks)
    assert not [key for key in line if key.startswith("validation_text_loss_")]
    answers = [line[f"validation_answer_loss_{task}"] for task in NAMES]
    assert min(answers) <= line["validation_answer_loss"] <= max(answers)
