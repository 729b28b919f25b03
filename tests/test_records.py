import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurolm_jax.data import guard, shards
from neurolm_jax.eeg.records import Record, decode, encode
from neurolm_jax.errors import UserError


def record(seed=0, peak=300.0, samples=400):
    x = peak * np.random.default_rng(seed).standard_normal((3, samples)).astype(np.float32)
    return Record(x, (1, 2, 3), "source", "recording", subject="s", start=2.0, label="a")


@given(st.integers(0, 99), st.floats(0.01, 1500))
def test_a_record_is_kept_to_0_05_microvolt(seed, deviation):
    before = record(seed, deviation / 4)
    after = decode(encode(before))
    np.testing.assert_allclose(after.samples, before.samples, atol=0.05)
    assert dataclasses.replace(after, samples=None) == dataclasses.replace(before, samples=None)


def test_a_flat_channel_is_kept():
    flat = np.zeros((1, 200), np.float32)
    np.testing.assert_array_equal(decode(encode(Record(flat, (0,), "s", "r"))).samples, flat)


def test_records_take_little_more_than_half_of_float32():
    long = record(samples=200 * 100)
    assert len(encode(long)) < 0.52 * long.samples.nbytes


@pytest.fixture
def folder(tmp_path):
    records = [(encode(record(i)), {"channels": 3, "samples": 400, "label": "a"}) for i in range(5)]
    outcome = {"name": "r", "hash": "h", "outcome": "used", "reason": None}
    shards.write(tmp_path / "x", records, {"kind": "task", "split": "train", "recordings": [outcome]})
    return tmp_path / "x"


def test_shards_return_what_was_written(folder):
    opened = shards.open_shards(folder)
    assert opened.manifest["records"] == len(opened.source) == 5
    for i in (4, 0, 2):
        np.testing.assert_allclose(decode(opened.source[i]).samples, record(i).samples, atol=0.05)


def test_many_shards(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(shards, "SHARD_BYTES", 20)
    records = [(bytes([i]) * 10, {}) for i in range(5)]
    manifest = shards.write(tmp_path / "y", records, {"kind": "text"})
    assert [shard["records"] for shard in manifest["shards"]] == [2, 2, 1]
    source = shards.open_shards(tmp_path / "y").source
    assert [source[i] for i in range(5)] == [data for data, _ in records]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def broken():
        yield b"x", {}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        shards.write(tmp_path / "z", broken(), {})
    assert list(tmp_path.iterdir()) == []


def test_damage_is_named(folder):
    [file] = folder.glob("*.array_record")
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=f"{file.name}: .* bytes instead of"):
        shards.open_shards(folder)
    # Of the right size but with other bytes: found when a record is read, or before.
    file.write_bytes(data[:40] + bytes(b ^ 255 for b in data[40:]))
    with pytest.raises(UserError, match=str(folder)):
        [shards.open_shards(folder).source[i] for i in range(5)]
    file.unlink()
    with pytest.raises(UserError, match="the shard is missing"):
        shards.open_shards(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}'])
def test_a_bad_manifest_is_named(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(UserError, match="manifest.json: not"):
        shards.open_shards(folder)


def opened(split, *hashes, outcome="used"):
    recordings = [{"name": f"{split}-{h}", "hash": h, "outcome": outcome} for h in hashes]
    return f"folder/{split}", {"split": split, "recordings": recordings}


def test_guard():
    guard.check_disjoint([opened("train", "a", "b")], [opened("test", "c")])
    guard.check_disjoint([opened("train", "a")], [opened("test", "a", outcome="skipped")])
    with pytest.raises(UserError, match="recording train-b is, or shares samples with, test-b of the test"):
        guard.check_disjoint([opened("train", "a", "b")], [opened("test", "c", "b")])
    with pytest.raises(UserError, match="is a test part"):
        guard.check_disjoint([opened("test", "a")], [])


def test_guard_knows_a_file_and_its_stretches():
    def stretch(split, digest):
        found = opened(split, digest)
        found[1]["recordings"][0]["file_hashes"] = ["other", "whole"]
        return found

    guard.check_disjoint([stretch("train", "a")], [stretch("test", "b")])  # trials of one session
    file = opened("train", "whole"), opened("test", "whole")
    for training, test in ((file[0], stretch("test", "b")), (stretch("train", "a"), file[1])):
        with pytest.raises(UserError, match="shares samples"):
            guard.check_disjoint([training], [test])
    # What has no hash is nothing's twin.
    guard.check_disjoint([stretch("train", "a"), opened("train", "")], [opened("test", "")])
