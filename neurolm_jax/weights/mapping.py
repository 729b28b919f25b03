"""Move tensors between flat named files and our parameter trees, by a table of names.

A table is a list of ``Entry``. A name with ``{}`` stands for one tensor a layer; ours are stacked on a leading axis.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from neurolm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one foreign tensor becomes ours, and back."""

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda x: x, lambda x: x)
FLAG = Layout(lambda x: x.reshape(()) > 0, lambda x: np.float32(x).reshape(1))  # [1] <-> bool []
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
    """Where a tensor lies there and here, and how the one becomes the other."""

    name: str  # there; "{}" in it stands for the number of a layer
    path: str  # our place, "/" between keys
    layout: Layout = SAME


def under(path: str, table: list[Entry]) -> list[Entry]:
    """The same table for a tree that lies under ``path`` of a larger one."""
    return [dataclasses.replace(entry, path=f"{path}/{entry.path}") for entry in table]


def read_tree(
    table: list[Entry], tensors: Mapping[str, np.ndarray], like: dict, source: str, unread: Collection[str] = ()
) -> dict:
    """Our parameters from foreign tensors, checked against the shapes of ``like`` (a tree of arrays or shapes).

    Args:
      unread: regular expressions of names that may be there beside the table's.

    Raises:
      UserError: naming every tensor that is missing, has another shape, or has no place.
    """
    tree: dict = {}
    problems = []
    placed = set()
    for entry in table:
        want = tuple(get(like, entry.path).shape)
        names = [entry.name.format(i) for i in range(want[0])] if "{}" in entry.name else [entry.name]
        placed |= set(names)
        one = want[1:] if "{}" in entry.name else want
        ours = []
        for name in names:
            if name not in tensors:
                problems.append(f"{name} is missing")
                continue
            array = np.asarray(tensors[name])
            try:
                read = entry.layout.read(array)
            except (IndexError, ValueError):  # another rank than the layout knows
                read = None
            if read is None or read.shape != one:
                problems.append(f"{name} has shape {array.shape}, which does not give {one}")
            else:
                ours.append(read)
        if len(ours) == len(names):
            put(tree, entry.path, np.stack(ours) if "{}" in entry.name else ours[0])
    surplus = [name for name in tensors if name not in placed and not any(re.fullmatch(u, name) for u in unread)]
    problems += [f"{name} has no place" for name in surplus]
    if problems:
        raise UserError(f"{source}: {'; '.join(problems)}")
    return tree


def dimension(tensors: Mapping[str, np.ndarray], *places: tuple[str, int], default: int) -> int:
    """The size that most of some places (name, axis) have, so that one ill-shaped tensor does not speak for all."""
    sizes = [tensors[name].shape[axis] for name, axis in places if name in tensors and tensors[name].ndim > axis]
    return collections.Counter(sizes).most_common(1)[0][0] if sizes else default


def count_layers(tensors: Collection[str], prefix: str) -> int:
    """Layers named ``{prefix}{number}.``: one more than the highest number."""
    numbers = [re.match(re.escape(prefix) + r"(\d+)\.", name) for name in tensors]
    return max((int(found[1]) + 1 for found in numbers if found), default=0)


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


def get(tree: dict, path: str) -> Any:
    """What lies at ``path``, keys with "/" between them, of nested dicts: a leaf or a subtree."""
    for key in path.split("/"):
        tree = tree[key]
    return tree


def put(tree: dict, path: str, value: Any) -> None:
    """Set what lies at ``path``, keys with "/" between them, of nested dicts; those that lack are made."""
    *parents, last = path.split("/")
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value
