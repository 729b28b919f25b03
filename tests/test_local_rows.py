"""Which rows of a batch a process reads: those that its own devices hold, on pretended meshes of several processes."""

import itertools
import math

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding

from neurolm_jax.data.streams import Steps
from neurolm_jax.models.placement import AXES
from neurolm_jax.training import mesh as meshes


class Device:
    """What a sharding looks at of a device."""

    platform = device_kind = "pretended"

    def __init__(self, number, process):
        self.id, self.process_index = number, process


def pretended(shape, processes, order=None):
    """A mesh of devices in an order, of which each process has an equal run of numbers."""
    count = math.prod(shape)
    devices = [Device(i, i * processes // count) for i in range(count)]
    placed = np.empty(count, object)
    placed[:] = [devices[i] for i in order or range(count)]
    return Mesh(placed.reshape(shape), AXES)


def rows_by_a_plain_loop(mesh, size, process):
    """Part d * fsdp + f of the batch lies on all devices of one place along data and fsdp."""
    data, fsdp, tensor, sequence = mesh.devices.shape
    each, found = size // (data * fsdp), set()
    for d, f, t, s in itertools.product(range(data), range(fsdp), range(tensor), range(sequence)):
        if mesh.devices[d, f, t, s].process_index == process:
            first = (d * fsdp + f) * each
            found |= set(range(first, first + each))
    return tuple(sorted(found))


MESHES = {
    "rows split over processes": ((4, 2, 1, 1), 4, None),
    "tensor across two processes": ((1, 1, 2, 1), 2, None),
    "sequence across four processes": ((2, 1, 1, 4), 4, None),
    "tensor and sequence across processes": ((2, 1, 2, 2), 4, None),
    "a process holds parts that are no run": ((4, 1, 1, 1), 2, [2, 0, 3, 1]),
    "processes share some of their parts": ((4, 1, 2, 1), 4, [0, 1, 2, 4, 3, 6, 5, 7]),
    "two hosts on a shard, as on v5p:4x4x4 with tensor 8": ((2, 4, 8, 1), 16, None),
}


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize("each", [1, 3])
def test_a_process_reads_what_its_devices_hold(name, each):
    shape, processes, order = MESHES[name]
    mesh = pretended(shape, processes, order)
    size = each * meshes.batch_parts(mesh)
    mine = [meshes.local_rows(mesh, size, process) for process in range(processes)]
    assert mine == [rows_by_a_plain_loop(mesh, size, process) for process in range(processes)]
    assert set().union(*mine) == set(range(size))  # nothing is left out


def test_processes_that_share_a_shard_read_the_same_rows():
    """Hosts that share a shard used to read different rows, of which each device took its own host's."""
    mesh = pretended((1, 1, 2, 1), 2)
    assert meshes.local_rows(mesh, 8, 0) == meshes.local_rows(mesh, 8, 1) == tuple(range(8))
    mesh = pretended((2, 4, 8, 1), 16)
    shared = [meshes.local_rows(mesh, 64, process) for process in range(16)]
    assert shared[0] == shared[1] == tuple(range(8)) and shared[2] == tuple(range(8, 16))


def test_on_real_devices_they_are_those_of_the_sharding():
    mesh = meshes.make_mesh()
    size = 4 * meshes.batch_parts(mesh)
    indices = NamedSharding(mesh, meshes.BATCH).addressable_devices_indices_map((size,))
    want = {row for (part,) in indices.values() for row in range(size)[part]}
    assert meshes.local_rows(mesh, size) == tuple(sorted(want))
    assert meshes.rows_per_local_row(mesh) == 1
    batch = {"eeg": {"x": np.arange(2 * size).reshape(size, 2)}}
    placed = meshes.put_batch(mesh, batch)["eeg"]["x"]
    np.testing.assert_array_equal(jax.device_get(placed), batch["eeg"]["x"])


@pytest.mark.parametrize("name", MESHES)
def test_shards_are_cut_from_the_rows_that_were_read(name, monkeypatch):
    """What every device is given, in every process, is its part of the global batch."""
    shape, processes, order = MESHES[name]
    mesh = pretended(shape, processes, order)
    size = 2 * meshes.batch_parts(mesh)
    whole = np.arange(3 * size).reshape(size, 3)
    given = {}

    def make(shape, sharding, shard):
        assert shape == whole.shape
        for device, index in sharding.devices_indices_map(shape).items():
            if device.process_index == process:
                given[device.id] = shard(index), index

    monkeypatch.setattr(jax, "make_array_from_callback", make)
    for process in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        meshes.put_batch(mesh, whole[list(meshes.local_rows(mesh, size))])
    assert len(given) == mesh.size
    for shard, index in given.values():
        np.testing.assert_array_equal(shard, whole[index])


def test_steps_read_the_rows_that_they_are_told():
    class Rows:
        content = ""

        def __len__(self):
            return 10

        def __getitem__(self, index):
            return np.array([index])

        def origins(self, index):
            return []

    steps = Steps({"eeg": (Rows(), 4)}, 3, {"eeg": (1, 3)})
    assert steps[2]["eeg"].tolist() == [[9], [11]]
