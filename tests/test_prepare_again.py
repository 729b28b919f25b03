"""The command ``prepare`` where a folder is there already: it is what was asked for, or it is refused."""

import shutil
import sys

import pytest

from neurolm_jax import prepare
from neurolm_jax.data import shards
from neurolm_jax.eeg.identity import recording_hash
from neurolm_jax.eeg.tasks.readers import read_raw
from neurolm_jax.errors import UserError


def test_a_folder_split_otherwise_is_not_taken_for_what_is_asked(trees, tmp_path, monkeypatch, capsys):
    def run(*arguments):
        line = ["prepare", "task", "workload", str(trees["workload"]), "--out", str(tmp_path / "out"), *arguments]
        monkeypatch.setattr(sys, "argv", line)
        prepare.main()
        return capsys.readouterr().out

    # The first 52 files are all that are here.
    assert "empty: there is nothing to read from the test part" in run("--split", "official")
    assert "already prepared" in run("--split", "official")
    for other in ("--split=subject", "--seed=1"):
        with pytest.raises(UserError, match="prepared with --split official; remove the folder"):
            run(other)
    # It draws nothing, so no seed is taken, nor told.
    with pytest.raises(UserError, match="--seed: --split official has no choice of subjects"):
        run("--split=official", "--seed=0")


@pytest.fixture
def command(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
        prepare.main()
        return capsys.readouterr().out

    return run


def test_a_corpus_of_other_inputs_or_options_is_not_taken_for_what_is_asked(trees, tmp_path, command, monkeypatch):
    hmc, out = trees["hmc"], ("--out", tmp_path / "eeg")
    command("eeg", hmc, *out, "--mains", 50, "--source", "sleep")
    for other, message in (
        ((hmc, "--mains", 60, "--source", "sleep"), "prepared with --mains 50; remove the folder, or give another"),
        ((hmc, "--mains", 50), "prepared with --source sleep; remove the folder"),
        ((hmc, trees["workload"], "--source", "sleep"), f"prepared from {hmc}; remove the folder"),
    ):
        with pytest.raises(UserError, match=message):
            command("eeg", *other, *out)
    monkeypatch.chdir(hmc.parent)  # the same inputs, told otherwise; and whatever mains were found
    for given in ((hmc.name, "--mains", 50), (hmc,)):
        assert "already prepared" in command("eeg", *given, *out, "--source", "sleep")


@pytest.mark.parametrize("flag", ["--skip_faulty", "--skip-faulty"])
def test_flags_are_written_with_underscores_and_one_also_as_it_was(trees, tmp_path, command, monkeypatch, flag):
    found = []
    monkeypatch.setattr(prepare, "prepare_task", lambda *_, **options: found.append(options["skip_faulty"]))
    command("task", "hmc", trees["hmc"], "--out", tmp_path / "out", flag)
    command("task", "hmc", trees["hmc"], "--out", tmp_path / "out")
    assert found == [True, False]


def used(folder):
    return {r["name"] for r in shards.read_manifest(folder)["recordings"] if r["outcome"] == "used"}


def test_what_is_there_is_not_taken_for_what_is_asked(trees, prepared, tmp_path, command):
    task = "task", "tusl", trees["tusl"], "--seed=7", "--out", tmp_path / "a" / "task"
    corpus = "eeg", trees["hmc"], "--out", tmp_path / "b" / "eeg"
    exclude = {task: f"tusl={prepared / 'tusl'}", corpus: f"hmc={prepared / 'hmc'}"}
    for arguments in (task, corpus):
        command(*arguments)
        with pytest.raises(
            UserError, match="prepared without regard to .*, (a recording of|subject .* is in) (tusl|hmc)"
        ):
            command(*arguments, "--exclude", exclude[arguments])
        shutil.rmtree(arguments[-1])
        command(*arguments, "--exclude", exclude[arguments])
        assert "already prepared" in command(*arguments, "--exclude", exclude[arguments])
        assert "already prepared" in command(*arguments)
    with pytest.raises(UserError, match="holds tusl, not hmc; remove the folder"):
        command("task", "hmc", trees["hmc"], "--out", tmp_path / "a" / "task")
    with pytest.raises(UserError, match="holds eeg, not hmc"):
        command("task", "hmc", trees["hmc"], "--out", tmp_path / "b" / "eeg")
    # A set that was prepared beside a corpus after it.
    command("eeg", trees["hmc"], "--out", tmp_path / "c" / "eeg")
    shutil.copytree(prepared / "hmc", tmp_path / "c" / "hmc")
    with pytest.raises(UserError, match="prepared without regard to"):
        command("eeg", trees["hmc"], "--out", tmp_path / "c" / "eeg")


def test_all_that_is_excluded_is_left_out(trees, prepared, tmp_path, command):
    """Named in one option or in several, with one name or with several, beside the corpus or elsewhere."""
    files = sorted(trees["hmc"].rglob("SN???.edf"))[:4] + sorted(trees["workload"].rglob("*_1.edf"))[:4]
    for place, file in enumerate(files):
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "in" / f"{place}.edf")
    parts = {}
    for name, place in (("hmc", 0), ("workload", 4)):  # one recording of each is tested on
        raw = read_raw(tmp_path / "in" / f"{place}.edf")
        manifest = {"kind": "task", "split": "test", "cohort": name, "recordings": [{"hash": recording_hash(raw)}]}
        parts[name] = tmp_path / "sets" / name
        shards.write(parts[name] / "windows" / "test", [], manifest)
    shards.write(tmp_path / "sets" / "text" / "validation", [], {"kind": "text", "split": "validation"})
    both = [f"{name}={folder}" for name, folder in parts.items()]
    ways = {
        "several": ["--exclude", *both],
        "again": [word for pair in both for word in ("--exclude", pair)],
        "alike": ["--exclude", f"x={parts['hmc']}", f"x={parts['workload']}"],
        "all": ["--exclude", f"x={tmp_path / 'sets'}"],  # text there is no matter
        "address": ["--exclude", f"x=file://{tmp_path / 'sets'}"],
    }
    for way, options in ways.items():
        command("eeg", tmp_path / "in", "--out", tmp_path / way / "eeg", *options)
        assert used(tmp_path / way / "eeg") == {"1.edf", "2.edf", "3.edf", "5.edf", "6.edf", "7.edf"}, way
    shutil.copytree(parts["hmc"], tmp_path / "beside" / "x")
    command("eeg", tmp_path / "in", "--out", tmp_path / "beside" / "eeg", "--exclude", f"x={parts['workload']}")
    assert len(used(tmp_path / "beside" / "eeg")) == 6
    with pytest.raises(UserError, match="x: no test or validation part of a task among"):
        command("eeg", tmp_path / "in", "--out", tmp_path / "z", "--exclude", f"x={tmp_path / 'sets' / 'text'}")
