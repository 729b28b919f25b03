"""Many shards by few open files; what the operating system refuses is never called damage."""

import os
import resource
import subprocess
import sys
import threading

import numpy as np
import pytest

from neurolm_jax.data import readers, shards
from neurolm_jax.data.readers import DamagedRecord, Unreachable
from neurolm_jax.data.shares import Chosen
from neurolm_jax.errors import UserError


@pytest.fixture
def many(tmp_path, monkeypatch):
    """90 records in 30 shards."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 2000)
    monkeypatch.setattr(readers, "PAUSES", (0.01, 0.02))
    records = [(os.urandom(1000) + bytes([i]), {}) for i in range(90)]
    manifest = shards.write(tmp_path / "many", records, {"kind": "text"})
    assert len(manifest["shards"]) == 45
    return tmp_path / "many", [data for data, _ in records]


def open_files(folder):
    targets = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return sum(os.readlink(target).startswith(str(folder)) for target in targets if os.path.islink(target))


def few(monkeypatch, count):
    """Keep so many readers open."""
    import functools

    monkeypatch.setattr(readers, "_reader", functools.lru_cache(count)(readers._reader.__wrapped__))


def test_few_files_are_open_and_all_records_are_read(many, monkeypatch):
    folder, data = many
    few(monkeypatch, 5)
    source = shards.open_shards(folder).source
    assert open_files(folder) == 0  # none before it is read
    order = np.random.default_rng(0).permutation(90).tolist()
    assert [source[i] for i in order] == [data[i] for i in order]
    assert source.__getitems__(order) == [data[i] for i in order]
    assert 0 < open_files(folder) <= 5
    found = {}
    threads = [threading.Thread(target=lambda k=k: found.update({i: source[i] for i in order[k::4]})) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(90)] == data and open_files(folder) <= 5
    chosen = Chosen(source, np.array([7, 3, 80]))
    assert chosen.__getitems__([2, 0]) == [data[80], data[7]] == [chosen[2], chosen[0]]
    with pytest.raises(IndexError):
        source[90]


LIMITED = """
import os, pathlib, resource, sys
from neurolm_jax.data import readers, shards
soft, hard = 256, 4096
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
source = shards.open_shards(sys.argv[1]).source
source[0]
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""


def test_the_limit_of_open_files_is_raised(many):
    subprocess.run([sys.executable, "-c", LIMITED, str(many[0])], check=True, timeout=120)


def test_too_many_open_files_are_no_damage(many, monkeypatch, caplog):
    folder, data = many
    source = shards.open_shards(folder).source
    assert source[0] == data[0]
    readers.allow_open_files()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        # Our own readers are closed, and the next try has a place.
        assert source[0] == data[0] and source[40] == data[40] and source[80] == data[80]
        readers._reader.cache_clear()
        held.append(os.open("/dev/null", os.O_RDONLY))
        while len(held) < 50:
            held.append(os.dup(held[0]))
    except OSError:
        with pytest.raises(Unreachable, match=r"array_record: cannot be read \(Too many open files\), tried 3 times"):
            source[3]
    finally:
        for number in held:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "another try in 0.01 s" in caplog.text and source[3] == data[3]


def test_a_shard_that_comes_back_is_read(many, monkeypatch):
    folder, data = many
    source = shards.open_shards(folder).source
    file = folder / shards.shard_name(1)
    file.rename(file.with_suffix(".away"))
    with pytest.raises(Unreachable, match=r"shard-00001.array_record: cannot be read \(No such file or directory\)"):
        source[2]
    monkeypatch.setattr(readers.time, "sleep", lambda seconds: file.with_suffix(".away").rename(file))
    assert source[2] == data[2]


@pytest.mark.parametrize(
    "error", ["pread() failed: Input/output error; reading x; at byte 9", OSError(116, "Stale file")]
)
def test_an_error_of_the_system_is_tried_again_and_named(many, monkeypatch, error):
    folder, data = many
    source, failures = shards.open_shards(folder).source, [3]

    class Failing:
        def read(self, numbers):
            failures[0] -= 1
            if failures[0] >= 0:
                raise error if isinstance(error, OSError) else RuntimeError(error)
            return [data[4 + number] for number in numbers]

    few(monkeypatch, 5)
    monkeypatch.setattr(readers, "_reader", lambda *_: Failing())
    readers._reader.cache_clear = lambda: None
    with pytest.raises(Unreachable, match="Input/output error|Stale file"):
        source[4]
    assert source[5] == data[5]


def test_damage_is_that_of_a_record_and_no_other(many):
    folder, data = many
    file = folder / shards.shard_name(2)
    whole = file.read_bytes()
    place = whole.index(data[5][:50])
    file.write_bytes(whole[:place] + bytes(100) + whole[place + 100 :])
    found = shards.open_shards(folder).source.__getitems__([4, 5, 6])
    assert found[0] == data[4] and found[2] == data[6]
    assert isinstance(found[1], DamagedRecord) and str(found[1]).startswith(
        f"{file}: record 5 is unreadable (Corrupted"
    )
    with pytest.raises(DamagedRecord, match="record 5 is unreadable"):
        shards.open_shards(folder).source[5]


def test_of_many_shards_sizes_are_looked_at_when_they_are_read(many, monkeypatch):
    folder, data = many
    file = folder / shards.shard_name(3)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{file.name}: .* bytes instead of .*, the shard is damaged; prepare it again"):
        shards.open_shards(folder)
    monkeypatch.setattr(shards, "FEW", 44)
    source = shards.open_shards(folder).source
    assert source[5] == data[5]
    for record in (6, 7):  # each is told of, so that a run which may leave out some records knows their number
        with pytest.raises(DamagedRecord, match=f"record {record} is unreadable .*bytes instead of"):
            source[record]
    file.unlink()
    with pytest.raises(UserError, match=f"{file.name}: the shard is missing"):
        shards.open_shards(folder)
