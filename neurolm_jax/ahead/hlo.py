"""The text of a compiled program (XLA's HLO), taken apart."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BYTES = {"pred": 1, "bf16": 2, "f16": 2, "c64": 8, "c128": 16}  # others tell their bits


class Shape(NamedTuple):
    """far: whether it lies in the device's large memory; what a compiler puts into a fast one is marked so."""

    dtype: str
    dimensions: tuple[int, ...]
    far: bool = True

    @property
    def bytes(self) -> float:
        bits = re.search(r"\d+", self.dtype)
        width = BYTES.get(self.dtype) or (int(bits[0]) / 8 if bits else 0)
        return width * math.prod(self.dimensions)


class Instruction(NamedTuple):
    """result: several shapes of a tuple; operands: names; rest: the attributes' text, of a constant its value, of a
    parameter its number."""

    name: str
    opcode: str
    result: tuple[Shape, ...]
    operands: tuple[str, ...]
    rest: str

    def called(self, *keys: str) -> str | None:
        """The computation that one of these attributes names."""
        for key in keys:
            if match := re.search(rf"\b{key}=%?([\w.\-]+)", self.rest):
                return match[1]
        return None

    @property
    def branches(self) -> list[str]:
        if match := re.search(r"branch_computations=\{([^}]*)\}", self.rest):
            return re.findall(r"%?([\w.\-]+)", match[1])
        return [self.called("true_computation"), self.called("false_computation")]

    @property
    def number(self) -> int:
        """Of a whole constant."""
        return int(re.match(r"-?\d+", self.rest)[0])


def entry(text: str) -> str:
    """The name of the computation that is the program."""
    return re.search(r"^ENTRY %?([\w.\-]+)", text, re.MULTILINE)[1]


def computations(text: str) -> Iterator[tuple[str, list[Instruction]]]:
    """Name and instructions of each computation of a program's text."""
    name, found = None, []
    for line in text.splitlines():
        if line.startswith("}"):
            yield name, found
            name, found = None, []
        elif name is None and line.endswith("{") and (head := re.match(r"(?:ENTRY )?%?([\w.\-]+) ", line)):
            name = head[1]
        elif name is not None and (instruction := _instruction(line)):
            found.append(instruction)


def _instruction(line):
    match = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)
    if not match:
        return None
    rest = line[match.end() :]
    stop = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    shapes, rest = rest[:stop], rest[stop:].lstrip()
    opcode, _, rest = rest.partition("(")
    stop = _closing("(" + rest) - 1
    operands = re.findall(r"%([\w.\-]+)", rest[:stop])
    # Of constants, what stands in the brackets is their value.
    return Instruction(
        match[1], opcode, _shapes(shapes), tuple(operands), rest if opcode in ("constant", "parameter") else rest[stop:]
    )


def _closing(text):
    """The place of the bracket that closes the one at the beginning."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place
    raise ValueError(text[:80])


def _shapes(text):
    return tuple(
        Shape(dtype, tuple(int(n) for n in numbers.replace("<=", "").split(",") if n), "S(" not in layout)
        for dtype, numbers, layout in re.findall(r"(\w+)\[([\d,<=]*)\](\{[^{}]*\})?", text)
    )
