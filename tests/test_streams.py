import os
import pathlib
import threading

import jax
import numpy as np
import pytest
from small_data import NAMES

from neurolm_jax.corpus.parts import entry
from neurolm_jax.data import shards, vocabulary
from neurolm_jax.data.dialogues import Augmentation, DialogueRows, RowSize
from neurolm_jax.data.eeg_rows import EEGRows, find_runs, float_patches
from neurolm_jax.data.mixture import Mixture
from neurolm_jax.data.shards import open_shards
from neurolm_jax.data.streams import Damaged, Steps, iterate, prefetch
from neurolm_jax.data.text import TextRows
from neurolm_jax.eeg.records import Record, decode, encode
from neurolm_jax.eeg.tasks import load_task
from neurolm_jax.errors import UserError

SIZE = RowSize(eeg=64, tokens=128, answers=12)


def eeg_rows(data, seed=0):
    return EEGRows([open_shards(data / name / "recordings" / "train") for name in NAMES], 64, 64, seed)


def tasks(data, split="train"):
    return [(load_task(name), open_shards(data / name / "windows" / split)) for name in NAMES]


def equal(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            equal(a[key], b[key])
    else:
        np.testing.assert_array_equal(a, b)


def test_rows_hold_every_whole_second_once_an_epoch(small_data):
    rows = eeg_rows(small_data, seed=None)
    patches = np.concatenate([float_patches(rows[i])[rows[i]["segment"] > 0] for i in range(len(rows))])
    want = []
    for name in NAMES:
        shards = open_shards(small_data / name / "recordings" / "train")
        for i in range(len(shards.source)):
            samples = decode(shards.source[i]).samples
            whole = samples[:, : samples.shape[1] // 200 * 200] / 100
            want.append(whole.reshape(-1, 200))
    want = np.concatenate(want)
    assert patches.shape == want.shape
    np.testing.assert_allclose(np.sort(patches.sum(1)), np.sort(want.sum(1)), rtol=1e-4, atol=1e-3)


@pytest.fixture
def clock(tmp_path):
    """A recording of 150 s in three records and one of 30.5 s; samples tell the second, in microvolts."""
    records = []
    for recording, (lengths, last) in enumerate((((64, 64, 22), 0), ((30,), 100))):
        start = 0
        for i, seconds in enumerate(lengths):
            samples = seconds * 200 + last * (i == len(lengths) - 1)
            x = np.tile((start * 200 + np.arange(samples)) / 200, (4, 1)).astype(np.float32)
            record = Record(x, (1, 2, 3, 4), "clock", f"{recording}", start=float(start))
            records.append((encode(record), entry(record) | {"recording": recording}))
            start += seconds
    shards.write(tmp_path / "clock", records, {"kind": "eeg", "split": "train", "recordings": []})
    return open_shards(tmp_path / "clock")


def windows(rows, index):
    """Start and seconds of each segment of a row, told by its samples."""
    row = rows[index]
    patches = float_patches(row) * 100
    for segment in range(1, row["segment"].max() + 1):
        here = row["segment"] == segment
        times, second = patches[here], row["second"][here]
        expected = times[0, 0] + second[:, None] + np.arange(200) / 200
        np.testing.assert_allclose(times, expected, atol=0.01)
        np.testing.assert_array_equal(second, np.arange(len(second)) // 4)
        assert (np.diff(times[::4, 0]) > 0.9).all()
        yield float(times[0, 0]), len(second) // 4


def test_windows_go_over_from_record_to_record(clock):
    runs = find_runs(clock.manifest["index"])
    assert (runs.first.tolist(), runs.records.tolist(), runs.samples.tolist()) == ([0, 3], [3, 1], [30000, 6100])
    rows = EEGRows([clock], 200, 64, None)
    found = [(round(start), seconds) for i in range(len(rows)) for start, seconds in windows(rows, i)]
    assert sorted(found) == [(0, 30), (0, 50), (50, 50), (100, 50)]


def test_a_run_ends_where_other_electrodes_begin():
    index = {"channels": [4] * 3, "samples": [3200] * 3, "start": [0.0, 16.0, 32.0], "recording": [0] * 3}
    assert find_runs(index | {"montage": [7, 7, 7]}).records.tolist() == [3]
    assert find_runs(index | {"montage": [7, 8, 8]}).records.tolist() == [1, 2]
    assert find_runs(index | {"montage": [7, 7, 7], "start": [0.0, 16.0, 33.0]}).records.tolist() == [2, 1]


@pytest.mark.parametrize("shape", [(4, 30 * 200), (4, 40 * 200), (3, 32 * 200), (4, 200)])
def test_a_record_of_another_size_than_the_index_tells_is_damaged(tmp_path, shape):
    """Shorter ones were waited for without end."""
    records = []
    for i, size in enumerate(((4, 32 * 200), shape, (4, 32 * 200))):
        made = Record(np.ones(size, np.float32), tuple(range(size[0])), "s", "r", start=32.0 * i)
        told = {"channels": 4, "samples": 32 * 200, "start": 32.0 * i, "montage": 7, "recording": 0}
        records.append((encode(made), told))
    shards.write(tmp_path / "x", records, {"kind": "eeg", "split": "train", "recordings": []})
    rows = EEGRows([open_shards(tmp_path / "x")], 4 * 48, 48, None)
    found = [rows[i] for i in range(len(rows))]
    damaged = [row for row in found if isinstance(row, Damaged)]
    size = " x ".join(map(str, shape))
    assert len(found) == len(damaged) == 2
    assert damaged[0].faults == [
        f"{tmp_path / 'x'}: record 1 has {size} samples, the manifest tells 4 x 6400; prepare the folder again"
    ]


def test_random_starts_are_anywhere_in_the_run_and_the_same_again(clock):
    rows, again = (EEGRows([clock], 200, 64, 3, random_start=True) for _ in range(2))
    found = {0: [], 1: []}
    for i in range(40 * len(rows)):
        here = list(windows(rows, i))
        assert here == list(windows(again, i))
        for start, seconds in here:
            found[int(seconds == 30)].append(start)
    assert len(found[0]) == 120 and len(found[1]) == 40
    long, short = np.array(found[0]), np.array(found[1])
    assert long.min() < 5 and long.max() > 95 and len(set(long.round().tolist())) > 60
    assert 0 <= short.min() and short.max() <= 0.5 + 1e-3 and len(set(short.tolist())) > 20


def test_tokens_are_time_major_with_their_coordinates(small_data):
    row = eeg_rows(small_data)[0]
    for segment in range(1, row["segment"].max() + 1):
        here = row["segment"] == segment
        channels = len(np.unique(row["channel"][here]))
        second = row["second"][here]
        np.testing.assert_array_equal(second, np.arange(len(second)) // channels)
        np.testing.assert_array_equal(row["channel"][here].reshape(-1, channels)[0], row["channel"][here][-channels:])
    assert (row["patches"][row["segment"] == 0] == 0).all()


@pytest.mark.parametrize("processes", [2, 4])
def test_the_global_batch_is_the_same_for_any_number_of_processes(small_data, processes):
    sources = {
        "eeg": (eeg_rows(small_data), 4),
        "text": (TextRows(open_shards(small_data / "text" / "train"), 16, 0), 8),
        "dialogues": (DialogueRows(tasks(small_data), SIZE, 0, Augmentation(0.1, 5.0)), 4),
    }
    one = Steps(sources, 10)
    shares = [
        {name: range(size * p // processes, size * (p + 1) // processes) for name, (_, size) in sources.items()}
        for p in range(processes)
    ]
    parts = [Steps(sources, 10, share) for share in shares]
    for step in (0, 7):
        equal(one[step], jax.tree.map(lambda *each: np.concatenate(each), *(part[step] for part in parts)))


def test_a_stream_goes_on_where_it_was(small_data):
    steps = Steps({"eeg": (eeg_rows(small_data), 2)}, 12)
    whole = list(iterate(steps, 0, threads=3))
    assert len(whole) == 12
    for a, b in zip(whole[5:], iterate(steps, 5, threads=1)):
        equal(a, b)
    equal(whole[3], steps[3])


def test_text_pieces_follow_the_tokens(small_data):
    rows = TextRows(open_shards(small_data / "text" / "train"), 16, None)
    first, second = rows[0], rows[1]
    assert first.shape == (17,) and first[-1] == second[0]
    again = TextRows(open_shards(small_data / "text" / "train"), 16, 1)
    epoch = np.array([again[i][0] for i in range(len(again))])
    plain = np.array([rows[i][0] for i in range(len(rows))])
    assert (epoch != plain).any()
    np.testing.assert_array_equal(np.sort(epoch), np.sort(plain))
    assert "numpy" in vocabulary.decode(np.concatenate([rows[i][:-1] for i in range(500)]).tolist()).lower()


def test_dialogues(small_data):
    rows = DialogueRows(tasks(small_data), SIZE, seed=0)
    seen = []
    for i in range(len(rows)):
        row = rows[i]
        eeg, mixed = row["eeg"], row["mixed"]
        for segment in range(1, mixed["segment"].max() + 1):
            here = np.flatnonzero(mixed["segment"] == segment)
            is_eeg = mixed["eeg_index"][here] >= 0
            count = is_eeg.sum()
            assert is_eeg[:count].all()  # text follows its EEG
            np.testing.assert_array_equal(eeg["segment"][mixed["eeg_index"][here[:count]]], segment)
            seconds = eeg["second"][mixed["eeg_index"][here[:count]]]
            np.testing.assert_array_equal(mixed["position"][here[:count]], seconds)
            text = here[count:]
            last = eeg["second"][mixed["eeg_index"][here[count - 1]]]
            np.testing.assert_array_equal(mixed["position"][text], last + 1 + np.arange(len(text)))
            tokens = mixed["tokens"][text].tolist()
            assert tokens[0] == vocabulary.SEPARATOR and tokens[-1] == vocabulary.END_OF_TEXT
            seen.append(vocabulary.decode(tokens[1:-1]))
            for place, target in zip(mixed["answer_index"], mixed["answer_target"]):
                if target >= 0 and place in text:
                    assert mixed["tokens"][place + 1] == target
    labelled = [(t, label) for t, s in tasks(small_data) for label in s.manifest["index"]["label"]]
    want = [f"Question: {t.question} Answer: {t.answers[label]} " for t, label in labelled]
    assert sorted(seen) == sorted(want)


def test_what_is_learnt_are_the_answers_only(small_data):
    rows = DialogueRows(tasks(small_data), SIZE, seed=0)
    targets = [rows[i]["mixed"]["answer_target"] for i in range(len(rows))]
    learnt = vocabulary.decode([int(t) for x in targets for t in x if t >= 0])
    assert set(learnt.replace("<|endoftext|>", " ").split()) <= {"Short", "Long", "Negative", "Positive", "Yes", "No"}


def test_shuffled_labels_keep_their_number(small_data):
    def answers(shuffle, seed):
        rows = DialogueRows(tasks(small_data), SIZE, seed, shuffle_labels=shuffle)
        return [label for _, _, label in rows._samples]

    plain, shuffled = answers(False, 0), answers(True, 0)
    assert sorted(plain) == sorted(shuffled) and plain != shuffled
    assert shuffled == answers(True, 0) != answers(True, 1)


def test_a_label_outside_the_list_is_named(small_data):
    import dataclasses

    [(task, shards), *_] = tasks(small_data)
    other = dataclasses.replace(task, answers={"ShortBlink": "Short", "Blink": "Long"}, positive=None)
    with pytest.raises(UserError, match="label 'LongBlink' is not one of task blink"):
        DialogueRows([(other, shards)], SIZE, 0)


def test_a_sample_too_large_for_a_row_is_refused(small_data):
    with pytest.raises(UserError, match="a row has"):
        DialogueRows(tasks(small_data), RowSize(8, 128, 12), 0)
    with pytest.raises(UserError, match="14 channels, a row only 8 tokens"):
        EEGRows([open_shards(small_data / "eyes" / "recordings" / "train")], 8, 64, 0)


WORKERS = """
import sys
import numpy as np
from absl import app
from neurolm_jax.data.eeg_rows import EEGRows
from neurolm_jax.data.shards import open_shards
from neurolm_jax.data.streams import Steps, iterate


def main(argv):
    rows = EEGRows([open_shards(argv[1])], 64, 64, 0)
    batches = iterate(Steps({"eeg": (rows, 2)}, 8), 3, threads=2, workers=int(argv[2]))
    np.save(argv[3], np.concatenate([batch["eeg"]["patches"] for batch in batches]))


if __name__ == "__main__":
    app.run(main)
"""


@pytest.mark.slow
def test_batches_are_the_same_with_any_number_of_worker_processes(small_data, tmp_path):
    import subprocess
    import sys

    (tmp_path / "script.py").write_text(WORKERS)
    found = []
    for workers in ("0", "1", "2"):
        out = tmp_path / f"{workers}.npy"
        data = small_data / "blink" / "recordings" / "train"
        line = [sys.executable, str(tmp_path / "script.py"), str(data), workers, str(out)]
        environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
        subprocess.run(line, check=True, env=environment, timeout=240)
        found.append(np.load(out))
    assert len(found[0]) == 10
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_prefetching_is_ahead_and_changes_nothing():
    made = []
    batches = prefetch((made.append(i) or i for i in range(6)), ahead=2)
    assert next(batches) == 0 and made == [0, 1, 2]
    assert list(batches) == [1, 2, 3, 4, 5]


def test_rows_read_together_are_those_read_alone(small_data):
    data = [open_shards(small_data / name / "recordings" / "train") for name in NAMES]
    dialogues = DialogueRows(tasks(small_data), SIZE, 0, Augmentation(0.1, 5.0))
    mixture = Mixture([EEGRows([part], 64, 64, 0) for part in data], (1.0, 2.0, 1.0), 0)
    for rows in (EEGRows(data, 64, 64, 0, random_start=True), dialogues, mixture):
        order = [5, 0, 2 * len(rows) + 1, 5, 3]
        for one, index in zip(rows.__getitems__(order), order):
            equal(one, rows[index])
    # A record that several rows want is read once.
    rows, asked = eeg_rows(small_data), []
    for source in rows._sources:
        source._read = lambda file, numbers, read=source._read: asked.extend(numbers) or read(file, numbers)
    rows.__getitems__(range(len(rows)))
    assert len(asked) == sum(len(part.source) for part in data)


@pytest.mark.parametrize("threads", [1, 8])
def test_as_many_threads_read_as_are_asked_for(threads):
    """Grain keeps no more at work than batches are read ahead."""
    together, barrier = [0], threading.Barrier(threads)

    class Slow:
        def __len__(self):
            return 64

        def __getitem__(self, step):
            together[0] = max(together[0], barrier.n_waiting + 1)
            barrier.wait(timeout=20)  # passes when so many are here at once
            return {"n": np.int32(step)}

    found = [int(batch["n"]) for batch in iterate(Slow(), 0, threads)]
    assert found == list(range(64)) and together[0] >= threads - 1
