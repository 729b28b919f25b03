"""Move tensors between flat named files and our parameter trees, by a table of names.

A table is a list of ``Entry``. A name with ``{}`` stands for one tensor a layer; ours are stacked on a leading axis.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from neurolm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one foreign tensor becomes ours, and back."""

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda x: x, lambda x: x)
TRANSPOSED = Layout(np.transpose, np.transpose)  # torch Linear [out, in] <-> ours [in, out]


def _conv_read(x: np.ndarray) -> np.ndarray:
    return x[:, :, 0].transpose(2, 1, 0).reshape(-1, x.shape[0])


def _conv_write(inputs: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: x.reshape(-1, inputs, x.shape[1]).transpose(2, 1, 0)[:, :, None]


def convolution(inputs: int) -> Layout:
    """torch [out, in, 1, kernel] <-> ours [kernel * in, out]."""
    return Layout(_conv_read, _conv_write(inputs))


@dataclasses.dataclass(frozen=True)
class Entry:
    name: str
    path: str  # our place, "/" between keys
    layout: Layout = SAME


def read_tree(table: list[Entry], tensors: Mapping[str, np.ndarray], like: dict, source: str) -> dict:
    """Our parameters from foreign tensors, checked against the shapes of ``like`` (a tree of arrays or shapes).

    Raises:
      UserError: naming every tensor that is missing or has another shape.
    """
    tree: dict = {}
    problems = []
    for entry in table:
        want = tuple(get(like, entry.path).shape)
        names = [entry.name.format(i) for i in range(want[0])] if "{}" in entry.name else [entry.name]
        absent = [name for name in names if name not in tensors]
        problems += [f"{name} is missing" for name in absent]
        if absent:
            continue
        arrays = [np.asarray(tensors[name]) for name in names]
        one = want[1:] if "{}" in entry.name else want
        try:
            ours = [entry.layout.read(array) for array in arrays]
        except (IndexError, ValueError):  # another rank than the layout knows
            ours = arrays
        wrong = [
            f"{name} has shape {a.shape}, which does not give {one}"
            for name, a, o in zip(names, arrays, ours)
            if o.shape != one
        ]
        problems += wrong
        if not wrong:
            put(tree, entry.path, np.stack(ours) if "{}" in entry.name else ours[0])
    if problems:
        raise UserError(f"{source}: {'; '.join(problems)}")
    return tree


def write_tensors(table: list[Entry], tree: dict) -> dict[str, np.ndarray]:
    """The foreign tensors of our parameters; the inverse of ``read_tree``."""
    tensors = {}
    for entry in table:
        ours = np.asarray(get(tree, entry.path))
        if "{}" in entry.name:
            tensors |= {entry.name.format(i): entry.layout.write(layer) for i, layer in enumerate(ours)}
        else:
            tensors[entry.name] = entry.layout.write(ours)
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def get(tree: dict, path: str):
    for key in path.split("/"):
        tree = tree[key]
    return tree


def put(tree: dict, path: str, value) -> None:
    *parents, last = path.split("/")
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value
