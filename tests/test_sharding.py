"""The same numbers on eight simulated devices, however rows, parameters, heads and lengths are split over them."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from eight_devices import MESHES


def test_heads_over_devices_send_no_queries_keys_or_values():
    """Kernels change from rows to heads; of activations only sums are sent."""
    import tensor_devices as t

    here = pathlib.Path(__file__).parent
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PJRT_NPROC": "128",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2",
        "PYTHONPATH": f"{here.parent}:{here}",
    }
    line = [sys.executable, str(here / "tensor_devices.py")]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["difference"] < 1e-4, found
    kernels = 4 * t.WIDTH**2  # of the MLP, the largest
    for kind in ("all-gather", "all-to-all", "collective-permute"):
        assert found["largest"].get(kind, 0) <= 2 * kernels < t.BATCH * t.LENGTH * t.WIDTH / 2, found
    assert found["largest"]["all-reduce"] >= t.BATCH * t.LENGTH * t.WIDTH


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "accumulation"), [("language", 1), ("tokenizer", 1), ("pretrain", 1), ("pretrain", 2), ("instruct", 1)]
)
def test_steps_equal_those_of_one_device(small_data, runs, name, accumulation):
    here = pathlib.Path(__file__).parent
    line = [sys.executable, str(here / "eight_devices.py"), name, str(runs / "data"), str(runs), str(accumulation)]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PJRT_NPROC": "128",  # threads: a device that waits for others keeps one or more
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 "
        "--xla_cpu_collective_call_terminate_timeout_seconds=300",
        "PYTHONPATH": f"{here.parent}:{here}",
    }
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for mesh, sizes in MESHES.items():
        said = found[mesh]["collectives"]
        # Sums in another order; Adam divides small gradients by small moments.
        assert found[mesh]["figures"] < 1e-4, (mesh, found)
        assert found[mesh]["state"] < 2e-3, (mesh, found)
        assert said["all-reduce"] + said["reduce-scatter"] > 0
        # Parameters come one at a time, where they are split at all.
        split = sizes.get("fsdp", 1) > 1 or sizes.get("tensor", 1) > 1
        assert (said["largest_gathered"] > 1000) == split  # the number of valid patches of each device is a few bytes
        assert said["largest_gathered"] <= found["largest_parameter"]
