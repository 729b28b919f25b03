"""A task of one's own, from a Python file."""

import pytest
from edited_sets import edf

from neurolm_jax import prepare
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.tasks import load_task
from neurolm_jax.errors import UserError


def test_a_file_of_ones_own_is_a_task(tmp_path):
    """The example of docs/tasks.md, as it stands there."""
    import pathlib

    text = (pathlib.Path(__file__).parents[1] / "docs" / "tasks.md").read_text()
    [example] = [block for block in text.split("```python\n")[1:] if "TASK = Task(" in block]
    example = example.split("```")[0]
    assert example.count("\n") <= 45
    (tmp_path / "nback.py").write_text(example)
    for i in range(6):
        for label in ("easy", "hard"):
            edf(["Fp1", "Cz"], 250, 9 + i)(tmp_path / "in" / f"S{i:02d}_{label}.edf")
    task = load_task(str(tmp_path / "nback.py"))
    # The same noise under two labels is a copy, which is left out.
    prepare.prepare_task(task, tmp_path / "in", tmp_path / "out")
    assert open_shards(tmp_path / "out" / "windows" / "train").manifest["records"] > 0
    (tmp_path / "none.py").write_text("x = 1\n")
    (tmp_path / "few.py").write_text("from neurolm_jax.eeg.tasks import Task\nTASK = Task(name='x')\n")
    (tmp_path / "torn.py").write_text("TASK = (\n")
    (tmp_path / "lost.py").write_text("x = 1\nopen('/nowhere')\n")
    later = "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int\n"
    (tmp_path / "later.py").write_text(later + example)
    assert load_task(str(tmp_path / "later.py")).name == task.name
    faults = {
        "none.py": "defines no TASK",
        "missing.py": "no such file",
        "few.py": "few.py:2: TypeError",
        "torn.py": "SyntaxError",
        "lost.py": "lost.py:2: FileNotFoundError",
    }
    for name, message in faults.items():
        with pytest.raises(UserError, match=message):
            load_task(str(tmp_path / name))
