"""Where arrays lie on a mesh: the one table from logical axes to mesh axes, and what the models say by it.

Functions here look at the mesh that the surrounding program is traced for (``training/mesh.py:on_mesh``); without one,
or on a mesh of one device, they change nothing.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

Names = tuple[str | None, ...]
GATHERED = "gathered"  # parameters that were brought together, for rules of rematerialisation

AXES = ("data", "fsdp", "tensor", "sequence")
RULES: dict[str, tuple[str, ...]] = {
    # of activations
    "batch": ("data", "fsdp"),
    "length": ("sequence",),
    # of parameters, and of what is computed with them
    "embed": ("fsdp",),
    # Rows of a kernel whose columns are queries, keys and values: no run of columns is that of some heads.
    "embed_heads": ("fsdp", "tensor"),
    "codes": ("fsdp",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocabulary": ("tensor",),
    "norm": (),
    "layers": (),
}


def spec(names: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """How an array of a shape is split whose axes have these logical names, None for an axis that never is.

    A name may tell of how many whole units its axis is made, as in ``heads/25``. What the mesh axes do not divide is
    split over the first of them alone, or not at all.
    """
    parts = []
    for name, size in zip(names, shape, strict=True):
        rule, _, units = (name or "").partition("/")
        axes = RULES[rule] if rule else ()
        while axes and (int(units) if units else size) % math.prod(mesh.shape[axis] for axis in axes):
            axes = axes[:-1]
        split = math.prod(mesh.shape[axis] for axis in axes) > 1
        parts.append((axes if len(axes) > 1 else axes[0]) if split else None)
    return PartitionSpec(*parts)


def mesh_around() -> AbstractMesh | None:
    """The mesh that is traced for, None for a single device."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 else mesh


def platform() -> str:
    """Of the devices that are traced for: cpu, tpu or gpu."""
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    name = device.platform if device else jax.default_backend()
    return "gpu" if name in ("cuda", "rocm") else name


def loops_unrolled() -> bool:
    """Whether loops whose steps have collectives are written out, step after step.

    XLA's CPU client starts a program's collectives in the same order on all devices, but what does not depend on a loop
    may start while the loop still runs. Between processes, messages then meet those of another collective.
    """
    return platform() == "cpu" and jax.process_count() > 1


def scan(step: Callable, carry: Any, xs: Any) -> tuple[Any, Any]:
    """``jax.lax.scan`` for steps that may have collectives, see ``loops_unrolled``."""
    return jax.lax.scan(step, carry, xs, unroll=loops_unrolled())


def map_steps(function: Callable, xs: Any) -> Any:
    """``jax.lax.map`` for functions that may have collectives, see ``loops_unrolled``."""
    return scan(lambda _, x: (None, function(x)), None, xs)[1]


def is_split(name: str) -> bool:
    """Whether the mesh splits a logical axis at all."""
    mesh = mesh_around()
    return mesh is not None and any(mesh.shape[axis] > 1 for axis in RULES[name])


def is_split_evenly(name: str, size: int) -> bool:
    """Whether the mesh splits an axis of this name and size."""
    mesh = mesh_around()
    return mesh is not None and spec((name,), (size,), mesh)[0] is not None


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """The same array, split as its axes' names say."""
    mesh = mesh_around()
    return x if mesh is None else jax.lax.with_sharding_constraint(x, spec(names, x.shape, mesh))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def gather(parameter: jax.Array, names: Names, dtype: Any) -> jax.Array:
    """A parameter as it is computed with: in ``dtype``, and on every device whole but for its tensor axis.

    Sent in ``dtype``; its gradient goes back to where the parameter lies.
    """
    kept = [None if name and "fsdp" in RULES[name.partition("/")[0]] else name for name in names]
    return checkpoint_name(constrain(parameter.astype(dtype), *kept), GATHERED)


def _gathered(parameter, names, dtype):
    return gather(parameter, names, dtype), None


def _scattered(names, dtype, _, gradient):
    return (constrain(gradient.astype(jnp.float32), *names),)


gather.defvjp(_gathered, _scattered)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def gather_by_heads(parameter: jax.Array, rows: str | None, groups: int, heads: int, dtype: Any) -> jax.Array:
    """A kernel [W, groups N H] as it is computed with, [W, groups, N, H]: in ``dtype``, its heads over the tensor axis.

    ``rows`` names its first axis, which says how it lies: "embed_heads", or None where it is on every device.
    """
    by_heads = parameter.astype(dtype).reshape(len(parameter), groups, heads, -1)
    for split in (rows and "embed", None):  # first from rows to heads among a few devices, then all rows
        by_heads = constrain(by_heads, split, None, "heads", None)
    return checkpoint_name(by_heads, GATHERED)


def _gathered_by_heads(parameter, rows, groups, heads, dtype):
    return gather_by_heads(parameter, rows, groups, heads, dtype), None


def _scattered_by_heads(rows, groups, heads, dtype, _, gradient):
    gradient = constrain(gradient.astype(jnp.float32), rows and "embed", None, "heads", None)
    return (constrain(gradient, rows, None, None, None).reshape(len(gradient), -1),)


gather_by_heads.defvjp(_gathered_by_heads, _scattered_by_heads)


def over_devices(function: Callable, inputs: Sequence[Names], outputs: Sequence[Callable], *arrays: jax.Array) -> Any:
    """``function(axes, *local)`` on every device's part of the arrays, whose axes are named by ``inputs``.

    axes: for each input the mesh axes that split it, dimension by dimension, for collectives; outputs: a spec for each
    result from the inputs' specs.
    """
    mesh = mesh_around()
    if mesh is None:
        return function([((),) * x.ndim for x in arrays], *arrays)
    specs = [spec(names, x.shape, mesh) for names, x in zip(inputs, arrays, strict=True)]
    axes = [tuple(_flat(part) for part in one) for one in specs]
    results = tuple(make(*specs) for make in outputs)
    results = results if len(results) > 1 else results[0]
    mapped = jax.shard_map(functools.partial(function, axes), in_specs=tuple(specs), out_specs=results, check_vma=False)
    return mapped(*arrays)


def on_every_device(*_: PartitionSpec) -> PartitionSpec:
    """The spec of a result of ``over_devices`` that is the same on all of them."""
    return PartitionSpec()


def _flat(part):
    return () if part is None else (part,) if isinstance(part, str) else tuple(part)


def sum_over(x: jax.Array, *axes: Any) -> jax.Array:
    """Inside of ``over_devices``: the sum over mesh axes, in any nesting."""
    axes = tuple(jax.tree.leaves(axes))
    return jax.lax.psum(x, axes) if axes else x


def sum_table_over(x: jax.Array, axes: Any) -> jax.Array:
    """The same of x [V, W], its second axis then split over fsdp where that is possible; see ``kept_table``."""
    axes = jax.tree.leaves(axes)
    if "fsdp" in axes and x.shape[1] % jax.lax.axis_size("fsdp") == 0:
        axes.remove("fsdp")
        x = jax.lax.psum_scatter(x, "fsdp", scatter_dimension=1, tiled=True)
    return sum_over(x, axes)


def kept_table(table: PartitionSpec, places: PartitionSpec, width: int) -> PartitionSpec:
    """The spec of what ``sum_table_over`` gives, where its rows are split as ``table`` says and it is summed over the
    axes of ``places``."""
    axes = [axis for part in places for axis in _flat(part)]
    return PartitionSpec(table[0], "fsdp" if "fsdp" in axes and width % mesh_around().shape["fsdp"] == 0 else None)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def lookup(table: jax.Array, ids: jax.Array, rows: str | None = None) -> jax.Array:
    """Rows of a table [V, W] whose axes are (``rows``, "embed"): ids [B, T] -> [B, T, W].

    Every device looks up its own places among its own rows; the gradient is summed up where the table lies.
    """

    def local(axes, table, ids):
        split, _ = axes[0]
        if not split:
            return table[ids]
        place = ids - jax.lax.axis_index(split) * len(table)
        here = (place >= 0) & (place < len(table))
        return sum_over(jnp.where(here[..., None], table[jnp.clip(place, 0, len(table) - 1)], 0), split)

    outputs = [lambda table, ids: PartitionSpec(*ids, None)]
    return over_devices(local, [(rows, None), ("batch", "length")], outputs, table, ids)


def _looked_up(table, ids, rows):
    return lookup(table, ids, rows), (ids, table)


def _added_up(rows, kept, gradient):
    ids, table = kept

    def local(axes, table, ids, gradient):
        (split, _), places, _ = axes
        place = ids - (jax.lax.axis_index(split) * len(table) if split else 0)
        # Negative places would count from the end; beyond it, nothing is added.
        place = jnp.where(place < 0, len(table), place)
        sums = jnp.zeros(table.shape, jnp.float32).at[place].add(gradient.astype(jnp.float32), mode="drop")
        return sum_table_over(sums, places)

    width = table.shape[1]
    names = (rows, None), ("batch", "length"), ("batch", "length", None)
    return over_devices(local, names, [lambda t, i, g: kept_table(t, i, width)], table, ids, gradient), None


lookup.defvjp(_looked_up, _added_up)
