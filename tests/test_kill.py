"""All stages under SIGKILL, at least twenty times (launch/soak.sh goes on for as long as wanted)."""

import json
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.mark.slow
def test_stages_and_shards_survive_kills(tmp_path):
    done = subprocess.run(
        [sys.executable, HERE / "kills.py", tmp_path, "--kills", "25", "--steps", "30"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["killed"] >= 20 and min(found["kills"].values()) > 0 and not found["faults"]
    assert found["steps_lost_at_most"] <= 2 * found["interval"]
