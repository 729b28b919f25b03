"""What helps with experiments: configs explained, suggestions, plans, comparisons, traces, sinks, one command."""

import importlib
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import yaml
from small_data import config
from test_command_line import ROOT, command, refused

from neurolm_jax import __main__ as console
from neurolm_jax import inspect, train
from neurolm_jax.configuration import STAGES, check_fields, flat
from neurolm_jax.eeg.tasks import base as tasks
from neurolm_jax.errors import UserError
from neurolm_jax.reporting import comparison, fields, results
from neurolm_jax.suggestions import did_you_mean
from neurolm_jax.training import checkpoint, metrics, sinks


def shipped(stage):
    return importlib.import_module(f"configs.{stage}").get_config("debug")


@pytest.mark.parametrize("stage", STAGES)
def test_every_field_is_documented_where_it_stands(stage):
    c, documented = shipped(stage), fields.documentation(stage)
    known = dict(flat(c))
    assert not [name for name in known if len(documented.get(name, "")) < 5]
    # And nothing is documented that is no field or section; of models, those that the stage has.
    sections = {name.rsplit(".", i)[0] for name in known for i in range(1, name.count(".") + 1)} | {"initial"}
    theirs = {"language.codes", "language.lora_rank", "language.lora_alpha"}  # follows from the tokenizer; instruct's
    without = tuple(f"{section}." for section in fields.SECTIONS if section not in sections) or ("-",)
    assert not {name for name in documented if not name.startswith(without)} - known.keys() - sections - theirs


def test_documentation_names_only_fields_that_there_are():
    known = {name for stage in STAGES for name, _ in flat(shipped(stage))}
    known |= {name.rsplit(".", i)[0] for name in known for i in range(1, name.count(".") + 1)} | {"initial"}
    found = 0
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for name in re.findall(r"--config\.([a-z_0-9.]*[a-z_0-9])", page.read_text()):
            found += 1
            assert name in known, (page.name, name)
    assert found > 10


def test_comments_are_found_by_hand():
    source = "def f():\n    c.a = 1  # one\n    # two\n    # lines\n    c.b.d = (\n        2\n    )\n    c.e = 3\n"
    source += "    x.y = 4  # no\n"
    assert fields.comments(source) == {"a": "one", "b.d": "two lines"}


@pytest.mark.parametrize("stage", STAGES)
def test_yaml_reads_back_as_the_config(stage):
    c = shipped(stage)
    text = fields.to_yaml(c, fields.documentation(stage))
    want = json.loads(json.dumps(c.to_dict()))  # tuples as lists
    assert yaml.safe_load(text) == want
    assert max(map(len, text.splitlines())) <= 120
    assert "# optimizer steps in all" in text


def test_train_prints_its_config_without_devices(tmp_path):
    code = (
        "import runpy, sys; sys.argv = ['train', '--config', 'configs/quickstart.py:pretrain', '--config.steps=7',"
        " '--print']\n"
        "runpy.run_module('neurolm_jax.train', run_name='__main__', alter_sys=True)\n"
        "sys.exit(any(m in sys.modules for m in ('jax', 'mne', 'orbax')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    assert found["steps"] == 7 and found["stage"] == "pretrain" and found["initial"]["language"]
    refused("neurolm_jax.train", "--config", "configs/tokenizer.py:b", "--config.steps=-2", "--print", names="steps")


def test_near_names_are_suggested():
    names = ("steps", "batch_size", "tokenizer.codes", "tokenizer.encoder.layers")
    assert did_you_mean("batchsize", names, "config.") == "; did you mean config.batch_size?"
    assert did_you_mean("code", names) == "; did you mean tokenizer.codes?"
    assert did_you_mean("layer", names) == "; did you mean tokenizer.encoder.layers?"
    assert did_you_mean("nothing_like_it", names) == ""


def test_unknown_fields_are_refused_with_the_nearest(tmp_path):
    line = ("neurolm_jax.train", "--config", "configs/tokenizer.py:b", "--print")
    refused(*line, "--config.batchsize=3", names="config.batchsize: no such field; did you mean config.batch_size?")
    own = tmp_path / "own.py"
    body = "from configs import tokenizer as t\ndef get_config():\n  c = t.get_config('debug')\n  {}\n  return c\n"
    own.write_text(body.format("c.learning_rat = 0.1"))
    want = "config.learning_rat: no such field of the stage tokenizer; did you mean config.learning_rate?"
    refused("neurolm_jax.train", "--config", own, "--print", names=want)
    own.write_text(body.format("c.learning_rate = 0.125"))
    done = command("neurolm_jax.train", "--config", own, "--print")
    assert yaml.safe_load(done.stdout)["learning_rate"] == 0.125, done.stderr
    c = shipped("language")
    del c.initial.gpt2
    with pytest.raises(UserError, match="config.initial.gpt2: missing"):
        check_fields(c)


@pytest.mark.parametrize(
    ("field", "value", "want"),
    [
        ("batch_size", None, "want a whole number, such as 512, not None"),
        ("data.train", (3,), r"want a tuple, such as \('eeg',\), not \(3,\)"),
    ],
)
def test_values_of_another_type_in_a_file_are_refused(field, value, want):
    c = shipped("tokenizer")
    c.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f"config.{field}: {want}"):
        check_fields(c)


def test_a_dry_run_tells_the_plan_and_writes_nothing(small_data, runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    c = config("language", small_data, runs, steps=10, compilation_cache=str(tmp_path / "cache"))
    c.language.update(vocabulary=256, layers=1)  # compiled the sooner
    train.plan_only(c)
    printed = capsys.readouterr().out
    assert "32 places a step, 320 in all" in printed  # 2 rows of 16 tokens
    rows = len(train.plan(config("language", small_data, runs))[2]["text"][0])
    assert f"2 a step of {rows:,}, {20 / rows:,.2f} epochs in 10 steps" in printed
    assert "fits" in printed and "at least" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:builtin type event_stats:DeprecationWarning")  # of jaxlib 0.12, on Python 3.12
def test_a_trace_has_the_steps(small_data, runs, tmp_path, capsys):
    c = config("language", small_data, runs, evaluate_every=0, checkpoint_every=4)
    with pytest.raises(UserError, match="--profile 3: 4 steps are left"):
        train.train(c, tmp_path / "w", profiled=3)
    assert not (tmp_path / "w").exists()
    train.train(c, tmp_path / "w", profiled=2)
    assert "a trace of steps 3 to 4" in capsys.readouterr().out
    [file] = (tmp_path / "w" / "profile" / "plugins" / "profile").glob("*/*.xplane.pb")
    events = [e for p in jax.profiler.ProfileData.from_file(str(file)).planes for line in p.lines for e in line.events]
    steps = [dict(e.stats)["step_num"] for e in events if e.name == "train"]
    assert steps == [3, 4]
    assert any("dot" in e.name for e in events)  # what XLA ran


class FakeRun:
    """What Weights & Biases has of a run, as its documentation of init, log and finish describes them."""

    def __init__(self, name):
        self.id, self.logged, self.finished = name, [], False

    def log(self, scalars, step):
        self.logged.append(step)

    def finish(self):
        self.finished = True


def test_steps_taken_again_are_sent_once(tmp_path, monkeypatch):
    made, asked = [], []

    def init(**options):
        asked.append(options)
        made.append(FakeRun(options.get("id", "run1")))
        return made[-1]

    fake = types.SimpleNamespace(init=init, Settings=lambda **options: options, Error=OSError)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    c = shipped("language")
    c.wandb = "eeg"
    for start, stop in ((0, 13), (10, 12), (10, 15)):  # stopped twice since the checkpoint of step 10
        writer = sinks.Writer(tmp_path, c, start)
        for step in range(start + 1, stop + 1):
            writer.write(step, {"loss": 1.0, "seconds": 1.0, "bad": float("nan")})
        writer.close()
    assert [run.logged for run in made] == [list(range(1, 14)), [], [14, 15]]
    assert [o.get("id") for o in asked] == [None, "run1", "run1"] and asked[1]["resume"] == "allow"
    assert asked[0]["project"] == "eeg" and asked[0]["config"] == c.to_dict() and all(run.finished for run in made)
    assert [line["step"] for line in metrics.read(tmp_path)] == list(range(1, 16))


def test_a_missing_package_is_told(monkeypatch, small_data, runs, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="config.wandb: .* pip install wandb"):
        train.train(config("language", small_data, runs, wandb="eeg"), tmp_path / "w")
    assert not (tmp_path / "w").exists()


def leveldb_log(data):
    """Records of LevelDB's log format, behind 7 bytes of a header of W&B's: blocks of 32 KiB, in which each piece has
    a checksum, a length and whether it is whole (1), the last (4) or another piece of its record."""
    place, record = 7, b""
    while place + 7 <= len(data):
        if (left := 2**15 - place % 2**15) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


@pytest.mark.slow  # and in need of requirements-extras.txt
def test_weights_and_biases_keeps_a_run_offline(small_data, runs, tmp_path, monkeypatch):
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    for steps in (3, 5):
        train.train(config("language", small_data, runs, wandb="eeg", log_every=1, steps=steps), tmp_path / "w")
    files = sorted((tmp_path / "w" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1  # one run
    steps = []
    for file in files:
        for data in leveldb_log(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                steps.append(record.history.step.num)
    assert steps == [1, 2, 3, 4, 5]


def test_names_tell_runs_apart():
    def found(*paths):
        return comparison.names([pathlib.Path(path) for path in paths])

    assert found("/r/a/tokenizer", "/r/b/tokenizer") == ["a", "b"]
    assert found("/r/a", "/r/b/c") == ["a", "b/c"]
    assert found("/r/a", "/r/a/b") == ["a", "b"]
    with pytest.raises(UserError, match="twice"):
        found("/r/a", "/r/../r/a")


def test_runs_are_compared_on_a_page(small_data, runs, tmp_path, capsys, monkeypatch):
    from neurolm_jax import report

    other = tmp_path / "other"
    train.train(config("language", small_data, runs, seed=78125), other / "language")
    report.compare([runs / "language", other / "language"], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "78125" in page
    assert not re.search(r"<(script|img|link)\b[^>]*\b(src|href)=['\"]?(https?:)?//", page)  # it needs nothing else
    for folder in (runs, other):
        last = metrics.read(folder / "language")[-1]["validation_loss"]
        assert f"{last:.4g}" in page
    [one, two] = comparison.read([runs / "language", other / "language"])
    differ = {row[0]: row[1:] for row in comparison.tables([one, two])[0].rows}
    assert differ["seed"] == ("0", "78125") and "steps" not in differ
    axes = comparison_axes({run.name: run.lines["language"] for run in (one, two)})
    drawn = axes["loss"].lines[0].get_ydata()
    np.testing.assert_array_equal(drawn, [line["loss"] for line in one.lines["language"]])
    assert len({line.get_color() for line in axes["loss"].lines}) == 2
    refused("neurolm_jax.report", runs / "language", tmp_path, names="no metrics.jsonl in it")


def evaluated(name, **figures):
    """A run that got as far as its evaluation, which found such figures of one multiclass set and one small one."""
    lines = [{"step": 4, "stage": "instruct", "loss": 1.0}]
    found = {"sleep": figures | {"scored": True}, "toy": figures | {"scored": False}}
    return comparison.Run(name, {"instruct": lines}, {}, found)


def test_every_published_figure_is_compared(capsys):
    assert set(tasks.FIGURES) <= set(results.FIGURES)
    figures = {name: 0.5 + i / 16 for i, name in enumerate(tasks.FIGURES)}
    found = comparison.tables([evaluated("a", **figures), evaluated("b")])
    rows = {row[0]: row[1:] for row in found[-1].rows}
    for name, value in figures.items():
        for task in ("sleep", "toy*"):
            assert rows[f"{task}: {results.FIGURES[name]}"] == (f"{value:.4g}", "")
    assert found[-1].note.startswith("* toy: too small")
    comparison.print_tables(found)
    printed = capsys.readouterr().out.splitlines()
    assert "answers to held-out EEG" in printed and "instruct: fields that differ" in printed  # each on a line
    assert found[-1].note in printed


def test_what_cannot_be_compared_is_told():
    one, two = evaluated("a"), comparison.Run("b", {"language": [{"step": 1, "stage": "language"}]}, {}, {})
    found = {table.title: table for table in comparison.tables([one, two])}
    [row] = found["instruct: fields that differ"].rows
    assert row[1:] == ("no checkpoint", "no such stage")
    alike = [run._replace(configs={"instruct": shipped("instruct")}) for run in (one, one)]
    table = comparison.tables(alike)[0]
    assert not table.rows and table.note == "The configs have the same fields."


def test_inspect_tells_sizes_in_megabytes(runs, capsys):
    inspect.inspect_checkpoint(runs / "language")
    printed = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    table = checkpoint.read_arrays(runs / "language")["params/token_embedding/table"]
    count, size, unit = printed["params/token_embedding/table"]
    assert (count, unit) == (f"{table.size:,}", "MB") and float(size) == round(4 * 50304 * 32 / 1e6, 1)


def comparison_axes(lines):
    from neurolm_jax.reporting import figures

    return {axes.get_title(): axes for axes in figures.curves(lines).axes}


def test_neurolm_lists_its_verbs_at_once():
    code = "import sys; from neurolm_jax import __main__ as m; m.main(); sys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[-len(console.VERBS) :]] == list(console.VERBS)
    verbs = {file.stem for file in (ROOT / "neurolm_jax").glob("*.py") if "\nif __name__ ==" in file.read_text()}
    assert verbs - {"__main__"} == set(console.VERBS)  # none is forgotten


def test_neurolm_does_what_the_modules_do(tmp_path):
    for line in (("inspect", tmp_path / "none"), ("train", "--nonsense"), ("evaluate",), ("report", tmp_path)):
        one, two = command("neurolm_jax", *line), command(f"neurolm_jax.{line[0]}", *line[1:])
        assert (one.returncode, one.stdout, one.stderr) == (two.returncode, two.stdout, two.stderr)
        assert one.returncode == 2
    refused("neurolm_jax", "trian", names="did you mean train?")
    found = command("neurolm_jax", "train", "--help")
    assert found.returncode == 0 and "--workdir" in found.stdout and "--config.FIELD=VALUE" in found.stdout
    assert "alsologtostderr" not in found.stdout and "pdb" not in found.stdout


@pytest.mark.slow  # it builds a wheel in an environment of its own
def test_an_installation_finds_its_configs_from_anywhere(tmp_path):
    """The wheel, unpacked beside nothing of this repository."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path / "site", ROOT],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(tmp_path / "site")
    (tmp_path / "elsewhere" / "configs").mkdir(parents=True)
    own = "from configs import sizes, tokenizer\n\n\ndef get_config():\n    return tokenizer.get_config('debug')\n"
    (tmp_path / "elsewhere" / "configs" / "mine.py").write_text(own)
    for name in ("configs/mine.py", "configs/pretrain.py:xl"):
        line = [tmp_path / "site" / "bin" / "neurolm", "train", f"--config={name}", "--print"]
        done = subprocess.run(
            [sys.executable, *line], cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert yaml.safe_load(done.stdout)["stage"] in ("tokenizer", "pretrain")
