"""Shards in object storage: written there, and copied before they are read."""

import concurrent.futures
import threading
import time

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from ml_collections import ConfigDict

from neurolm_jax.data import remote, shards
from neurolm_jax.errors import UserError
from neurolm_jax.stages import corpora


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROLM_CACHE", str(tmp_path / "cache"))
    shards.write(tmp_path / "x", [(bytes([i]) * 9, {"n": i}) for i in range(5)], {"kind": "eeg", "split": "train"})
    remote.upload(tmp_path / "x", "memory://bucket/x")
    yield "memory://bucket/x"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_shards_are_copied_once_and_that_is_said(url, capsys):
    opened = shards.open_shards(url)
    assert [opened.source[i] for i in range(5)] == [bytes([i]) * 9 for i in range(5)]
    assert "ArrayRecord reads no such address; copied to" in capsys.readouterr().out
    shards.open_shards(url)
    assert capsys.readouterr().out == ""


def write_other(tmp_path, name, number=0):
    """Samples of another preparation, in files of the same sizes."""
    records = [(bytes([i + 100 + number]) * 9, {"n": i}) for i in range(5)]
    shards.write(tmp_path / name, records, {"kind": "eeg", "split": "train"})
    remote.upload(tmp_path / name, "memory://bucket/x")
    return [data for data, _ in records]


def read(url):
    opened = shards.open_shards(url)
    return [opened.source[i] for i in range(len(opened.source))]


def test_other_samples_in_files_of_the_same_sizes_are_copied(url, tmp_path):
    before = read(url)
    sizes = [file.stat().st_size for file in sorted((tmp_path / "x").glob("*.array_record"))]
    other = write_other(tmp_path, "y")
    assert sizes == [file.stat().st_size for file in sorted((tmp_path / "y").glob("*.array_record"))]
    assert read(url) == other != before


def test_a_copy_that_was_stopped_goes_on_but_not_with_other_samples(url, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 9)  # a record each
    write_other(tmp_path, "y")
    copied, get_file = [], MemoryFileSystem.get_file

    def stopped_at_the_third(self, rpath, lpath, **options):
        copied.append(rpath)
        if len(copied) == 3:
            raise KeyboardInterrupt
        get_file(self, rpath, lpath, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", stopped_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        read(url)
    [copy] = [folder for folder in (tmp_path / "cache").iterdir()]
    assert not (copy / "manifest.json").exists() and len(list(copy.glob("*.array_record"))) == 2
    read(url)
    assert len(copied) == 6 and len(set(copied)) == 5  # the third again, and the other two
    copied.clear()
    write_other(tmp_path, "z", number=1)
    with pytest.raises(KeyboardInterrupt):
        read(url)
    third = write_other(tmp_path, "z", number=2)
    assert read(url) == third


def test_of_several_processes_one_copies(url, monkeypatch):
    now, most, copied, lock, get_file = [], [], [], threading.Lock(), MemoryFileSystem.get_file

    def slow(self, rpath, lpath, **options):
        with lock:
            now.append(rpath)
            copied.append(rpath)
            most.append(len(now))
        time.sleep(0.1)
        get_file(self, rpath, lpath, **options)
        now.remove(rpath)

    monkeypatch.setattr(MemoryFileSystem, "get_file", slow)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, [url] * 4))
    assert found == [[bytes([i]) * 9 for i in range(5)]] * 4
    assert max(most) == 1 and len(copied) == 1


@pytest.mark.parametrize(
    "error", [OSError("connection\nreset"), PermissionError(13, "Forbidden"), ValueError("bucket")]
)
def test_what_storage_complains_of_is_told_in_a_line(url, tmp_path, monkeypatch, error):
    def failing(*_, **__):
        raise error

    calls = {
        "put_file": ("cannot be written", lambda: remote.upload(tmp_path / "x", "memory://bucket/y")),
        "glob": ("memory://bucket: cannot be read", lambda: remote.find("memory://bucket", "*")),
        "cat_file": ("cannot be read", lambda: shards.open_shards(url)),
        "get_file": ("shard-00000.array_record: cannot be copied to", lambda: shards.open_shards(url)),
    }
    for name, (message, call) in calls.items():
        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem, name, failing)
            with pytest.raises(UserError, match=message) as told:
                call()
        assert "\n" not in str(told.value)
    shards.open_shards(url)  # nothing is left half-copied


def test_test_parts_are_known_by_their_manifests_alone(url, tmp_path):
    """The guard looks at every test part under the root, which may be large: no shard of one is copied."""
    told = [{"name": "a", "hash": "h", "outcome": "used"}]
    for name, split in (("set/windows/test", "test"), ("twin", "train")):
        shards.write(tmp_path / name, [(b"x", {})], {"kind": "task", "split": split, "recordings": told})
        remote.upload(tmp_path / name, f"memory://bucket/{name}")
    fsspec.filesystem("memory").rm("/bucket/set/windows/test/shard-00000.array_record")
    config = ConfigDict({"data": {"root": "memory://bucket", "train": ("x",), "share": 1.0}})
    [part] = corpora.training(config)
    assert part.manifest["records"] == 5 and len(list((tmp_path / "cache").iterdir())) == 1
    config.data.train = ("twin",)
    with pytest.raises(
        UserError, match="^memory://bucket/twin: recording a is, .* part memory:.*bucket/set/windows/test;"
    ):
        corpora.training(config)


def test_manifests_are_found_and_come_last(url):
    [address] = remote.find("memory://bucket", "**/manifest.json")
    assert shards.open_shards(address.removesuffix("/manifest.json")).manifest["records"] == 5
    assert remote.find("memory://bucket/y", "manifest.json") == []


@pytest.mark.parametrize(
    ("address", "message"),
    [("memory://bucket/none", "memory://bucket/none"), ("nonsense://x/y", "nonsense"), ("memory://bucket", "no such")],
)
def test_bad_addresses_are_named(url, address, message):
    with pytest.raises(UserError, match=message):
        shards.open_shards(address)


def test_prepare_writes_to_an_address(url, tmp_path, monkeypatch, capsys):
    import sys

    from neurolm_jax import prepare

    (tmp_path / "a.txt").write_text("The alpha rhythm. " * 20_000)
    line = ["prepare", "text", str(tmp_path / "a.txt"), "--out", "memory://bucket/text"]
    for said in ("memory://bucket/text: copied there", "memory://bucket/text: already prepared"):
        monkeypatch.setattr(sys, "argv", line)
        prepare.main()
        assert said in capsys.readouterr().out
    assert shards.open_shards("memory://bucket/text/train").manifest["kind"] == "text"
    assert not list((tmp_path / "cache" / "staging").iterdir())


def test_test_parts_in_linked_folders_are_known(tmp_path):
    told = [{"name": "a", "hash": "h", "outcome": "used"}]
    for name, split in (("far/away/elsewhere/set/windows/test", "test"), ("root/twin", "train")):
        shards.write(tmp_path / name, [(b"x", {})], {"kind": "task", "split": split, "recordings": told})
    config = ConfigDict({"data": {"root": str(tmp_path / "root"), "train": ("twin",), "share": 1.0}})
    corpora.training(config)
    (tmp_path / "root" / "set").symlink_to(tmp_path / "far" / "away" / "elsewhere" / "set")
    with pytest.raises(UserError, match="twin: recording a is, .*set/windows/test"):
        corpora.training(config)
