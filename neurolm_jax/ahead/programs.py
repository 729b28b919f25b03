"""What a compiled program computes and sends, read from its text: loops are counted as often as they run.

XLA's own cost analysis counts a loop's body once, and layers are a loop here.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

BYTES = {"pred": 1, "bf16": 2, "f16": 2, "c64": 8, "c128": 16}  # others tell their bits
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """result: shapes as (type, dimensions), several of a tuple; operands: names; rest: the attributes' text."""

    name: str
    opcode: str
    result: tuple[tuple[str, tuple[int, ...]], ...]
    operands: tuple[str, ...]
    rest: str


@dataclasses.dataclass
class Cost:
    """Of one device and one run.

    flops: of matrix products and convolutions outside of kernels. kernels: how often each Pallas kernel runs, by its
    name. sent: bytes that leave the device, by kind of collective (as rings send them). unknown_loops: loops whose
    number of rounds is not written down, taken as 1.
    """

    flops: float = 0.0
    kernels: dict[str, float] = dataclasses.field(default_factory=dict)
    sent: dict[str, float] = dataclasses.field(default_factory=dict)
    unknown_loops: int = 0

    def add(self, other: "Cost", times: float = 1) -> None:
        self.flops += times * other.flops
        self.unknown_loops += other.unknown_loops
        for mine, more in ((self.kernels, other.kernels), (self.sent, other.sent)):
            for key, value in more.items():
                mine[key] = mine.get(key, 0.0) + times * value


def cost(text: str) -> Cost:
    """Of a program's optimised HLO (``compiled.as_text()``)."""
    return _Program(text).of(_entry(text))


class _Program:
    def __init__(self, text):
        self._computations = dict(_computations(text))
        self._counted: set[str] = set()

    @functools.cache  # noqa: B019 (of one text)
    def of(self, name: str) -> Cost:
        """Cost of a computation and of those that it calls."""
        shapes = {i.name: i.result for i in self._computations[name]}
        total = Cost()
        for i in self._computations[name]:
            kind = i.opcode.removesuffix("-start")
            if i.opcode == "while":
                rounds = self._rounds(_called(i.rest, "condition"), _called(i.rest, "body"))
                total.unknown_loops += rounds is None
                total.add(self.of(_called(i.rest, "body")), rounds or 1)
            elif i.opcode == "conditional":
                branches = [self.of(branch) for branch in _branches(i.rest)]
                total.add(max(branches, key=lambda branch: branch.flops))
            elif i.opcode in ("fusion", "call", "async-start") and (inner := _called(i.rest, "calls", "to_apply")):
                total.add(self.of(inner))
            elif i.opcode in ("dot", "convolution"):
                count = _dot if i.opcode == "dot" else _convolution
                total.add(Cost(flops=count(i, [shapes[name][0][1] for name in i.operands])))
            elif i.opcode == "custom-call" and (kernel := _kernel(i.rest)):
                total.add(Cost(kernels={kernel: 1.0}))
            elif kind in COLLECTIVES and self._first(i):
                total.add(Cost(sent={kind: _sent(kind, i, [s for name in i.operands for s in shapes[name]])}))
        return total

    def _first(self, instruction):
        """One collective may stand in several pieces that overlap with other work, under one channel."""
        channel = re.search(r"channel_id=(\d+)", instruction.rest)
        key = channel[1] if channel else instruction.name
        new = key not in self._counted
        self._counted.add(key)
        return new

    def _rounds(self, condition, body):
        """Of a loop that counts from 0: the one number that its condition compares with, over its step."""
        limits = self._numbers(condition)
        if len(limits) != 1:
            return None
        counters = {i.name: i for i in self._computations[condition] if i.opcode == "get-tuple-element"}
        places = {re.search(r"index=(\d+)", i.rest)[1] for i in counters.values()}
        root = self._computations[body][-1]
        steps = {1}
        if len(places) == 1 and root.opcode == "tuple":
            made = {i.name: i for i in self._computations[body]}
            new = made[root.operands[int(places.pop())]]
            steps = self._steps(new, made) or {1}
        return -(-limits.pop() // max(steps))

    def _steps(self, new, made):
        """What an addition, perhaps in a fusion, adds to a counter."""
        if inner := _called(new.rest, "calls", "to_apply"):
            return self._numbers(inner)
        numbers = [made[name] for name in new.operands if name in made]
        return {_number(i) for i in numbers if i.opcode == "constant"} if new.opcode == "add" else set()

    def _numbers(self, name):
        """Whole numbers that stand in a computation."""
        found = set()
        for i in self._computations[name]:
            if i.opcode == "constant" and i.result[0][0] in ("s32", "u32", "s64") and not i.result[0][1]:
                found.add(_number(i))
            elif inner := _called(i.rest, "calls", "to_apply"):
                found |= self._numbers(inner)
        return found


def _number(constant):
    return int(re.match(r"-?\d+", constant.rest)[0])


def _entry(text):
    return re.search(r"^ENTRY %?([\w.\-]+)", text, re.MULTILINE)[1]


def _computations(text) -> Iterator[tuple[str, list[Instruction]]]:
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
        match[1], opcode, _shapes(shapes), tuple(operands), rest if opcode == "constant" else rest[stop:]
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
    text = re.sub(r"\{[^{}]*\}", "", text)  # layouts
    return tuple(
        (dtype, tuple(int(n) for n in numbers.replace("<=", "").split(",") if n))
        for dtype, numbers in re.findall(r"(\w+)\[([\d,<=]*)\]", text)
    )


def _called(rest, *keys):
    for key in keys:
        if match := re.search(rf"\b{key}=%?([\w.\-]+)", rest):
            return match[1]
    return None


def _branches(rest):
    if match := re.search(r"branch_computations=\{([^}]*)\}", rest):
        return re.findall(r"%?([\w.\-]+)", match[1])
    return [_called(rest, key) for key in ("true_computation", "false_computation")]


def _kernel(rest):
    target = re.search(r'custom_call_target="([^"]+)"', rest)
    if not target or target[1] not in ("tpu_custom_call", "__gpu$xla.gpu.triton", "mosaic_gpu_v2"):
        return None
    name = re.search(r"(interval_attention_\w+)", rest)
    return name[1] if name else target[1]


def _dot(instruction, operands):
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)[1]
    size = math.prod(operands[0][int(axis)] for axis in contracted.split(",") if axis)
    return 2.0 * math.prod(instruction.result[0][1]) * size


def _convolution(instruction, operands):
    """Products that really take place: places of the window that lie in padding are none."""
    inputs, kernel, outputs = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest).groups()
    result = dict(zip(outputs, instruction.result[0][1]))
    left, right = dict(zip(inputs, operands[0])), dict(zip(kernel, operands[1]))
    window = dict(re.findall(r"(\w+)=([\dx_\-]+)", (re.search(r"window=\{([^}]*)\}", instruction.rest) or ["", ""])[1]))
    places = 1
    for number, axis in enumerate(sorted(k for k in kernel if k.isdigit())):
        fields = {key: value.split("x")[number] for key, value in window.items()}
        low = int(fields.get("pad", "0_0").split("_")[0])
        stride, dilation, base = (int(fields.get(key, 1)) for key in ("stride", "rhs_dilate", "lhs_dilate"))
        last = (left[axis] - 1) * base
        at = (o * stride + k * dilation - low for o in range(result[axis]) for k in range(right[axis]))
        places *= sum(1 for place in at if 0 <= place <= last and place % base == 0)
    return 2.0 * places * result["b"] * result["f"] * right["i"]


def _sent(kind, instruction, operands):
    """Bytes that leave a device, of a ring over its group."""
    group = _group(instruction.rest)
    given = sum(map(_size, operands))
    if kind == "collective-permute":
        return float(given)
    share = (group - 1) / group
    whole = {"all-gather": group * given, "all-reduce": 2 * given, "reduce-scatter": given, "all-to-all": given}
    return float(whole[kind] * share)


def _size(shape):
    dtype, dimensions = shape
    bits = re.search(r"\d+", dtype)
    width = BYTES.get(dtype) or (int(bits[0]) / 8 if bits else 0)
    return width * math.prod(dimensions)


def _group(rest):
    """Devices in a group."""
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", rest):
        return int(match[2])
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return match[1].count(",") + 1
    return 1
