"""What comes from strangers is data: nothing of it is run, and no name in it leads out of its folder."""

import ast
import json
import pathlib
import re
import shutil

import pytest

import neurolm_jax
from neurolm_jax.data import remote, shards
from neurolm_jax.errors import UserError
from neurolm_jax.inference.evaluation import Options, evaluate
from neurolm_jax.training import checkpoint

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = sorted(path for name in ("neurolm_jax", "configs", "launch") for path in (ROOT / name).rglob("*.py"))

MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "joblib",
    "tarfile",
    "zipfile",
    "yaml",
    "ctypes",
}
BUILTINS = {"eval", "exec", "compile", "__import__", "input"}
METHODS = {"extractall", "unpack_archive", "system", "popen", "load_module", "read_pickle"}
LOADERS = {"spec_from_file_location", "exec_module", "import_module"}
# Code of the user's own: a task file that he names, one of our modules by a name from a fixed list, git's state.
ALLOWED = {
    ("neurolm_jax/eeg/tasks/__init__.py", "spec_from_file_location"),
    ("neurolm_jax/eeg/tasks/__init__.py", "exec_module"),
    ("neurolm_jax/eeg/tasks/__init__.py", "import_module"),
    ("neurolm_jax/eeg/tasks/described.py", "yaml"),  # of texts, lists and mappings alone: BaseLoader makes nothing else
    ("configs/quickstart.py", "import_module"),
    ("neurolm_jax/benchmarks/steps.py", "import_module"),
    ("neurolm_jax/configuration.py", "import_module"),
    ("neurolm_jax/open_data/fetching.py", "zipfile"),  # archives, of which nothing gets outside of their folder
    ("neurolm_jax/training/provenance.py", "subprocess"),
    ("neurolm_jax/benchmarks/starts.py", "subprocess"),  # Python, on code of its own
    ("neurolm_jax/studies/execution.py", "subprocess"),  # train and evaluate, as lists of arguments
    ("neurolm_jax/weights/files.py", "pickle"),  # the name of the error that torch raises instead of running anything
}


def calls(text):
    """What a source does that could run foreign content, by name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (
                alias.name.split(".")[0] for alias in node.names if alias.name.split(".")[0] in MODULES | {"subprocess"}
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES | {"subprocess"}:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "id", None) or getattr(function, "attr", None)
            words = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            if isinstance(function, ast.Name) and name in BUILTINS:
                yield name
            if name in METHODS | LOADERS:
                yield name
            if words.get("shell") or words.get("allow_pickle") or words.get("trust_remote_code"):
                yield name
            owner = getattr(getattr(function, "value", None), "id", None)
            if (owner, name) == ("torch", "load") and words.get("weights_only") is not True:
                yield "torch.load"


def test_no_source_runs_foreign_content():
    assert len(SOURCES) > 100
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        for found in calls(path.read_text()):
            assert (name, found) in ALLOWED, (name, found)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "eval(x)",
        "os.system(x)",
        "np.load(f, allow_pickle=True)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "subprocess.run(x, shell=True)",
        "archive.extractall(to)",
        "importlib.import_module(name)",
    ],
)
def test_what_the_walk_finds(text):
    assert list(calls(text))


def test_what_it_does_not():
    assert not list(
        calls("model.eval()\nre.compile(x)\nnp.load(f)\ntorch.load(f, weights_only=True)\ncompiled = f.compile()")
    )


def test_a_manifests_names_do_not_lead_out_of_its_folder(small_data, tmp_path):
    path = tmp_path / "in" / "train"
    shutil.copytree(small_data / "scp1" / "recordings" / "train", path)
    manifest = json.loads((path / "manifest.json").read_text())
    shutil.move(path / manifest["shards"][0]["file"], tmp_path / "outside.array_record")
    for name in ("../../outside.array_record", str(tmp_path / "outside.array_record")):
        manifest["shards"][0]["file"] = name
        (path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(UserError, match="in/train/outside.array_record: the shard is missing"):
            shards.open_shards(path)


def test_a_listings_names_do_not_lead_out_of_the_copy(monkeypatch):
    class Strange:
        def ls(self, url, detail):
            return [{"name": f"x/{name}", "size": 1, "type": "file"} for name in ("manifest.json", "..")]

    monkeypatch.setattr(remote, "_open", lambda url: Strange())
    with pytest.raises(UserError, match="holds what is no file: .."):
        remote.localise("strange://x")


@pytest.mark.parametrize("text", ["[]", '{"format": 1}', '{"format": 1, "kind": "eeg", "shards": 3}', "{", "\xff"])
def test_a_strange_manifest_is_refused_in_a_line(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="manifest.json"):
        shards.open_shards(tmp_path)


def test_code_that_a_checkpoint_names_is_not_run_unasked(runs, tmp_path):
    workdir, ran = tmp_path / "w", tmp_path / "ran"
    shutil.copytree(runs / "instruct", workdir)
    evil = tmp_path / "evil.py"
    evil.write_text(
        f"import pathlib; pathlib.Path({str(ran)!r}).touch()\nfrom neurolm_jax.eeg.tasks.blink import TASK\n"
    )
    [file] = (workdir / "checkpoints" / "4" / "meta").rglob("metadata")
    text = file.read_text()
    file.write_text(re.sub(r'"tasks": \[[^\]]*\]', f'"tasks": ["{evil}"]', text))
    from neurolm_jax.training import integrity

    integrity.write_digests(workdir / "checkpoints" / "4")  # the stranger's own
    shutil.rmtree(workdir / "checkpoints" / "2")
    assert list(checkpoint.read_config(workdir).data.tasks) == [str(evil)]
    for run in (lambda: neurolm_jax.load(workdir), lambda: evaluate(workdir, options=Options(quick=True))):
        with pytest.raises(UserError, match="was trained on tasks that are defined by code, .*evil.py; .*--trust_code"):
            run()
        assert not ran.exists()
    assert neurolm_jax.load(workdir, trust_code=True).questions and ran.exists()


def test_requirements_are_pinned():
    """Each line a version, of some Pythons perhaps, or another such file."""
    pin = r"[\w.-]+(\[\w+\])?==[\w.]+(; python_version (<|>=) \"3\.12\")?|-r requirements-\w+\.txt"
    files = [*ROOT.glob("requirements*.txt"), ROOT / "docs" / "requirements.txt"]
    assert len(files) == 7
    for file in files:
        for line in file.read_text().splitlines():
            assert line.startswith("#") or re.fullmatch(pin, line), (file, line)
