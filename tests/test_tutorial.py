"""The tutorial, word for word: its blocks are saved and run in their order, in a folder of their own."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r'^```(\w+) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks():
    """(language, title, text) of every block of the tutorial; a block without a title would not be run."""
    text = (ROOT / "docs" / "tutorial.md").read_text()
    found = BLOCK.findall(text)
    assert len(found) == text.count("\n```") / 2, "a block of the tutorial has no title"
    return found


def test_every_file_of_the_tutorial_is_python_and_named_before_it_is_used():
    saved = set()
    for language, title, text in blocks():
        if language == "python":
            compile(text, title, "exec")
            saved.add(title)
        else:
            assert language == "bash"
            assert {file for file in re.findall(r"runs/tutorial/\w+\.py", text)} <= saved


@pytest.mark.slow
def test_the_tutorial_ends_in_answers(tmp_path, recordings):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "runs" / "tutorial").mkdir(parents=True)
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": f"{tmp_path}:{ROOT}", "XLA_FLAGS": ""}  # as users run it
    printed = {}
    for language, title, text in blocks():
        if language == "python":
            (tmp_path / title).write_text(text)
        elif title != "install":
            command = ["bash", "-euo", "pipefail", "-c", text]
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (title, done.stdout, done.stderr)
            printed[title] = done.stdout
    run = tmp_path / "runs" / "tutorial"
    assert len(list((run / "recordings").glob("*.edf"))) == 19
    found = json.loads((run / "instruct" / "evaluation.json").read_text())["tasks"]["blinks"]
    assert found["balanced_accuracy"] > 0.7, found["balanced_accuracy"]
    assert (run / "answers.png").stat().st_size and (run / "answers.edf").stat().st_size
    assert printed["asking"].split()[0] == "Long"
