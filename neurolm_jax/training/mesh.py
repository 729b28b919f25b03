"""The device mesh, and arrays placed on it by the table of ``models/placement.py``."""

import contextlib
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from neurolm_jax.errors import UserError
from neurolm_jax.models.placement import AXES, RULES, spec

BATCH = PartitionSpec(RULES["batch"])


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, sequence: int = 1, devices=None) -> Mesh:
    """A mesh of all devices (or of those given); one axis may be -1, which takes what the others leave.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    count = jax.device_count() if devices is None else len(devices)
    shape = [data, fsdp, tensor, sequence]
    known = math.prod(size for size in shape if size != -1)
    if shape.count(-1) == 1 and known > 0 and count % known == 0:
        shape[shape.index(-1)] = count // known
    if min(shape) < 1 or math.prod(shape) != count:
        raise UserError(f"mesh: {dict(zip(AXES, shape))} does not match {count} devices; one axis may be -1")
    # An axis need not be one of the machine's own: 64 of 16 x 16 chips are four of its rows.
    placed = mesh_utils.create_device_mesh(shape, devices or jax.devices(), allow_split_physical_axes=True)
    return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def shardings(mesh: Mesh, abstract):
    """Shardings of an abstract tree whose leaves may be boxed with logical axis names; others are on every device."""

    def sharding(names, leaf):
        named = isinstance(names, PartitionSpec) and len(names) == leaf.ndim
        return NamedSharding(mesh, spec(names, leaf.shape, mesh) if named else PartitionSpec())

    specs = nn.get_partition_spec(abstract)
    return jax.tree.map(
        sharding, specs, nn.unbox(abstract), is_leaf=lambda x: isinstance(x, PartitionSpec) or x is None
    )


def on_mesh(mesh: Mesh, function: Callable, config: ConfigDict) -> Callable:
    """The function, to be jitted, traced for the mesh, which the models' placements refer to, and for the precision of
    matrix products that a stage's config says."""

    @functools.wraps(function)
    def traced(*arguments):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), matmul_precision(config):
            return function(*arguments)

    return traced


def matmul_precision(config: ConfigDict) -> contextlib.AbstractContextManager:
    """A context in which float32 matrix products have the precision that a stage's config says, where none is said."""
    precision = config.get("matmul_precision", "default")  # older checkpoints have no such field
    return contextlib.nullcontext() if precision == "default" else jax.default_matmul_precision(precision)


def local_rows(mesh: Mesh, size: int, process: int | None = None) -> tuple[int, ...]:
    """Return the rows of a global batch of ``size`` that the devices of a process hold, in ascending order.

    Processes whose devices share a part of the batch, where ``tensor`` or ``sequence`` is split across them, get the
    same rows. ``process`` is this one by default.
    """
    return _rows_of(mesh, size, jax.process_index() if process is None else process)


@functools.lru_cache(maxsize=64)
def _rows_of(mesh, size, process):
    indices = NamedSharding(mesh, BATCH).devices_indices_map((size,))
    rows = {row for device, (part,) in indices.items() if device.process_index == process for row in range(size)[part]}
    return tuple(sorted(rows))


def rows_to_read(mesh: Mesh, sources: Mapping[str, tuple[Any, int]]) -> dict[str, tuple[int, ...]]:
    """Return ``local_rows`` of this process for each source, given as (rows, global batch size)."""
    return {name: local_rows(mesh, size) for name, (_, size) in sources.items()}


def put_batch(mesh: Mesh, batch):
    """Place a batch on the mesh: a tree of arrays of this process's ``local_rows`` [b, ...] -> global arrays.

    Rows are split over data and fsdp, and repeated over tensor and sequence.
    """
    sharding, repeated = NamedSharding(mesh, BATCH), rows_per_local_row(mesh)

    def put(x):
        size = round(len(x) * repeated)
        rows = np.array(local_rows(mesh, size))

        def shard(index):
            first = np.searchsorted(rows, index[0].start or 0)
            return x[first : first + len(range(size)[index[0]])]

        return jax.make_array_from_callback((size, *x.shape[1:]), sharding, shard)

    return jax.tree.map(put, batch)


def rows_per_local_row(mesh: Mesh) -> float:
    """Return how many rows the global batch has for each row that this process reads."""
    parts = batch_parts(mesh)
    return parts / len(local_rows(mesh, parts))


def batch_parts(mesh: Mesh) -> int:
    """Into how many parts a batch is split."""
    return math.prod(mesh.shape[axis] for axis in RULES["batch"])


def check_batches(mesh: Mesh, sizes: Mapping[str, int], accumulation: int) -> None:
    """Raises UserError where a global batch, given by its name and rows, does not split evenly."""
    parts = batch_parts(mesh) * accumulation
    for name, size in sizes.items():
        if size % parts:
            field = "text_batch_size" if name == "text" else "batch_size"
            raise UserError(
                f"config.{field}: a batch of {size} rows does not split into {parts} parts (config.mesh's data x fsdp,"
                " times config.accumulation)"
            )
