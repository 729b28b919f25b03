"""The device mesh, and the one table that maps parameters' logical axes to it."""

import math

import flax.linen as nn
import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from neurolm_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
RULES = {
    "vocabulary": "tensor",
    "heads": "tensor",
    "mlp": "tensor",
    "embed": "fsdp",
    "norm": None,
    "layers": None,
}
BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh of all devices; one axis may be -1, which takes what the others leave.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    devices = jax.device_count()
    shape = [data, fsdp, tensor]
    if shape.count(-1) == 1 and devices % -math.prod(shape) == 0:
        shape[shape.index(-1)] = devices // -math.prod(shape)
    if min(shape) < 1 or math.prod(shape) != devices:
        raise UserError(f"mesh: {dict(zip(AXES, shape))} does not match {devices} devices; one axis may be -1")
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def shardings(mesh: Mesh, abstract):
    """Shardings of an abstract tree whose leaves may be boxed with logical axis names.

    A dimension that its mesh axis does not divide is not split.
    """
    specs = nn.get_partition_spec(abstract)

    def sharding(spec, leaf):
        if not isinstance(spec, PartitionSpec):
            return NamedSharding(mesh, PartitionSpec())
        axes = [RULES[name] if name else None for name in spec]
        fits = [axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, leaf.shape)]
        return NamedSharding(mesh, PartitionSpec(*fits))

    return jax.tree.map(
        sharding, specs, nn.unbox(abstract), is_leaf=lambda x: isinstance(x, PartitionSpec) or x is None
    )


def put_batch(mesh: Mesh, batch):
    """This process's part of a batch (a tree of arrays [b, ...]) -> global arrays split over data and fsdp."""
    sharding = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def batch_parts(mesh: Mesh) -> int:
    """Into how many parts a batch is split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]
