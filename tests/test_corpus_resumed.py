"""A corpus whose making was stopped, or spread over workers, loses and repeats no recording."""

import os
import pathlib
import signal
import subprocess

import pytest
from small_corpora import SETTINGS, noise, outcomes, write_edf

from neurolm_jax.corpus import build, parts, recording
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.errors import UserError


def test_a_stopped_run_goes_on_and_ends_the_same(folder, tmp_path, monkeypatch):
    whole = build.build([folder], tmp_path / "whole", SETTINGS, "corpus")
    made, make = [], parts.make

    def counted(source, **rest):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(source.name)
        return make(source, **rest)

    monkeypatch.setattr(parts, "make", counted)
    with pytest.raises(KeyboardInterrupt):
        build.build([folder], tmp_path / "out", SETTINGS, "corpus")
    assert not (tmp_path / "out").exists()
    before, made[:] = list(made), []
    with pytest.raises(UserError, match="unfinished work with other settings"):
        build.build([folder], tmp_path / "out", Preprocessing(mains=60.0), "corpus")
    monkeypatch.setattr(parts, "make", lambda source, **rest: made.append(source.name) or make(source, **rest))
    again = build.build([folder], tmp_path / "out", SETTINGS, "corpus")
    assert len(before) == 4 and not set(before) & set(made) and len(before + made) == 9
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in whole.items() if k != "seconds"}


def stopped_before_the_end(monkeypatch, inputs, out, settings=SETTINGS):
    """A run all of whose recordings are done, but no shard."""
    with monkeypatch.context() as patch:
        patch.setattr(build, "_merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build.build(inputs, out, settings, "corpus")


def test_what_a_mended_sidecar_tells_is_heeded_when_a_run_goes_on(tmp_path, monkeypatch):
    root, place = tmp_path / "in", tmp_path / "in" / "sub-01" / "eeg"
    for run in ("1", "2"):
        write_edf(place / f"sub-01_run-{run}_eeg.edf", noise(int(run)), names=("Fp1", "C3", "T3", "O1"))
    (root / "dataset_description.json").write_text("{}")
    (place / "sub-01_run-1_eeg.json").write_text("{")
    stopped_before_the_end(monkeypatch, [root], tmp_path / "out", Preprocessing())
    (place / "sub-01_run-1_eeg.json").write_text('{"PowerLineFrequency": 60}')
    (place / "sub-01_run-2_channels.tsv").write_text("name\tstatus\nC3\tbad\n")
    found = build.build([root], tmp_path / "out", Preprocessing(), "corpus")["recordings"]
    assert [(r["outcome"], r["mains"]) for r in found] == [("used", 60.0), ("used", None)]
    assert found[1]["left_out"] == {"C3": "marked bad"}


def test_a_recording_that_was_replaced_by_one_of_its_size_is_read_again(tmp_path, monkeypatch):
    """And one that is written to while others are read is no other than it was when it was found."""
    files = [write_edf(tmp_path / "in" / name, noise(0)) for name in ("a.edf", "b.edf")]
    files[0].write_bytes(b"0" * files[0].stat().st_size)
    stopped_before_the_end(monkeypatch, [tmp_path / "in"], tmp_path / "out")
    size = files[0].stat().st_size
    write_edf(files[0], noise(1))
    assert files[0].stat().st_size == size
    make = parts.make
    monkeypatch.setattr(parts, "make", lambda source, **rest: (make(source, **rest), os.utime(source.path))[0])
    manifest = build.build([tmp_path / "in"], tmp_path / "out", SETTINGS, "corpus")
    assert outcomes(manifest) == {"a.edf": None, "b.edf": None}


@pytest.mark.parametrize(
    ("error", "raised"), [(MemoryError(), UserError), (OSError(28, "No space left on device"), OSError)]
)
def test_no_room_says_nothing_about_a_recording(folder, tmp_path, monkeypatch, error, raised):
    def failing(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        if raised is OSError:
            patch.setattr(parts.shards.Writer, "write", failing)
        else:
            patch.setattr(recording, "read", failing)
        with pytest.raises(raised, match=f"{'0.edf: not enough memory' if raised is UserError else 'No space'}"):
            build.build([folder], tmp_path / "out", SETTINGS, "corpus")
    found = outcomes(build.build([folder], tmp_path / "out", SETTINGS, "corpus"))
    assert [name for name, reason in found.items() if reason is None] == [f"{i}.edf" for i in range(6)]


def test_the_job_for_slurm_says_what_it_wants():
    script = pathlib.Path(__file__).parents[1] / "launch" / "prepare.sbatch"
    done = subprocess.run(["bash", script], capture_output=True, text=True)
    assert done.returncode == 2 and "sbatch launch/prepare.sbatch RECORDINGS OUT" in done.stderr
    assert done.stderr.count("\n") == 1


def make_and_die_once(source, folder, settings, corpus, marker):
    """A worker's process that is killed in the middle of its first recording."""
    if source.name == "3.edf" and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return parts.make(source, settings=settings, corpus=corpus, folder=folder)


@pytest.mark.slow
def test_workers_give_the_same_and_a_killed_one_loses_nothing(folder, tmp_path, monkeypatch):
    import functools

    alone = build.build([folder], tmp_path / "alone", SETTINGS, "corpus")
    monkeypatch.setattr(parts, "make", functools.partial(make_and_die_once, marker=tmp_path / "died"))
    spread = build.build([folder], tmp_path / "spread", SETTINGS, "corpus", worker_count=2)
    assert (tmp_path / "died").exists()
    assert {k: v for k, v in spread.items() if k != "seconds"} == {k: v for k, v in alone.items() if k != "seconds"}
