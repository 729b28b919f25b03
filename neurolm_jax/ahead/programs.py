"""What a compiled program computes, moves and sends, read from its text: loops are counted as often as they run.

XLA's own cost analysis counts a loop's body once, and layers are a loop here.
"""

import dataclasses
import functools
import math
import re

import numpy as np

from neurolm_jax.ahead import hlo, traffic

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass
class Cost:
    """Of one device and one run.

    flops: of matrix products and convolutions outside of kernels. kernels: how often each Pallas kernel runs, by its
    name. moved: bytes to and from the device's large memory. sent: bytes that leave the device, by kind of collective
    (as rings send them); outside: those of them that leave its node, where devices stand in nodes. unknown_loops: loops
    whose number of rounds is not written down, taken as 1.
    """

    flops: float = 0.0
    kernels: dict[str, float] = dataclasses.field(default_factory=dict)
    moved: float = 0.0
    sent: dict[str, float] = dataclasses.field(default_factory=dict)
    outside: float = 0.0
    unknown_loops: int = 0

    def add(self, other: "Cost", times: float = 1) -> None:
        self.flops += times * other.flops
        self.moved += times * other.moved
        self.outside += times * other.outside
        self.unknown_loops += other.unknown_loops
        for mine, more in ((self.kernels, other.kernels), (self.sent, other.sent)):
            for key, value in more.items():
                mine[key] = mine.get(key, 0.0) + times * value


def cost(text: str, node: int | None = None) -> Cost:
    """Of a program's optimised HLO (``compiled.as_text()``), with so many devices in a node."""
    return _Program(text, node).of(hlo.entry(text))


class _Program:
    def __init__(self, text, node):
        self._computations, self._node = dict(hlo.computations(text)), node

    @functools.cache  # noqa: B019 (of one text)
    def of(self, name: str, fused: bool = False) -> Cost:
        """Cost of a computation and of those that it calls; what is fused moves nothing between its instructions."""
        shapes = {i.name: i.result for i in self._computations[name]}
        total, gathered = Cost(), set()
        for i in self._computations[name]:
            if not fused:
                total.moved += traffic.moved(i, shapes, self._computations)
            kind = i.opcode.removesuffix("-start")
            if i.opcode == "while":
                rounds = _known_rounds(i) or self._rounds(i.called("condition"), i.called("body"))
                total.unknown_loops += rounds is None
                total.add(self.of(i.called("body"), fused), rounds or 1)
            elif i.opcode == "conditional":
                branches = [self.of(branch, fused) for branch in i.branches]
                total.add(max(branches, key=lambda branch: (branch.flops, branch.moved)))
            elif i.opcode in ("fusion", "call", "async-start") and (inner := i.called("calls", "to_apply")):
                total.add(self.of(inner, fused or i.opcode == "fusion"))
                if not fused and i.opcode == "fusion":
                    total.add(self._gathers(inner, gathered))
            elif i.opcode in ("dot", "convolution"):
                count = _dot if i.opcode == "dot" else _convolution
                total.add(Cost(flops=count(i, [shapes[name][0].dimensions for name in i.operands])))
            elif i.opcode == "custom-call" and (kernel := _kernel(i.rest)):
                total.add(Cost(kernels={kernel: 1.0}))
            elif kind in COLLECTIVES and not (fused and kind == "all-gather"):  # its caller counts those
                if kind == "all-reduce" and name.startswith("all-reduce-scatter"):  # as TPUs' compiler writes it
                    kind = "reduce-scatter"
                total.add(self._sent(kind, i, sum(s.bytes for name in i.operands for s in shapes[name])))
        return total

    def _gathers(self, name, counted):
        """All-gathers in a fusion but for those ``counted`` in others beside it: one that goes on beside other work
        stands, whole, in each of the fusions that it goes on beside, under one channel (1 is that of any)."""
        total, shapes = Cost(), {i.name: i.result for i in self._computations[name]}
        for i in self._computations[name]:
            if i.opcode.removesuffix("-start") == "all-gather":
                channel = re.search(r"channel_id=(\d+)", i.rest)
                given = tuple((s.dtype, s.dimensions) for operand in i.operands for s in shapes[operand])
                key = channel[1] if channel and channel[1] != "1" else f"{name} {i.name}", given
                if key not in counted:
                    counted.add(key)
                    total.add(self._sent("all-gather", i, sum(s.bytes for o in i.operands for s in shapes[o])))
            elif i.opcode in ("fusion", "call", "async-start") and (inner := i.called("calls", "to_apply")):
                total.add(self._gathers(inner, counted))
        return total

    def _sent(self, kind, instruction, given):
        """Bytes that leave a device, of a ring over its group; across nodes, all devices of a node share the way."""
        if kind == "collective-permute":
            pairs = re.findall(r"\{(\d+),(\d+)\}", instruction.rest.partition("source_target_pairs=")[2])
            crosses = self._node and any(int(a) // self._node != int(b) // self._node for a, b in pairs)
            return Cost(sent={kind: given}, outside=given if crosses else 0.0)
        group = _group(instruction.rest)
        whole = given * {"all-gather": len(group), "all-reduce": 2}.get(kind, 1)
        found = Cost(sent={kind: whole * (len(group) - 1) / len(group)})
        if self._node and (nodes := len(np.unique(group // self._node))) > 1:
            found.outside = whole * (nodes - 1) / len(group)
        return found

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
        if inner := new.called("calls", "to_apply"):
            return self._numbers(inner)
        numbers = [made[name] for name in new.operands if name in made]
        return {i.number for i in numbers if i.opcode == "constant"} if new.opcode == "add" else set()

    def _numbers(self, name):
        """Whole numbers that stand in a computation."""
        found = set()
        for i in self._computations[name]:
            if i.opcode == "constant" and i.result[0].dtype in ("s32", "u32", "s64") and not i.result[0].dimensions:
                found.add(i.number)
            elif inner := i.called("calls", "to_apply"):
                found |= self._numbers(inner)
        return found


def _kernel(rest):
    target = re.search(r'custom_call_target="([^"]+)"', rest)
    if not target or target[1] not in ("tpu_custom_call", "__gpu$xla.gpu.triton", "mosaic_gpu_v2"):
        return None
    name = re.search(r"(interval_attention_\w+)", rest)
    return name[1] if name else target[1]


def _dot(instruction, operands):
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)[1]
    size = math.prod(operands[0][int(axis)] for axis in contracted.split(",") if axis)
    return 2.0 * math.prod(instruction.result[0].dimensions) * size


def _convolution(instruction, operands):
    """Products that really take place: places of the window that lie in padding are none."""
    inputs, kernel, outputs = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest).groups()
    result = dict(zip(outputs, instruction.result[0].dimensions))
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


def _known_rounds(loop):
    """As some compilers write it down."""
    match = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest)
    return int(match[1]) if match else None


def _group(rest):
    """Numbers of the devices in the first group."""
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^{]*)\))? \{([^}]*)\}", rest):
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", match[1])}
        taken = re.findall(r"'(\w+)'", match[3])
        devices = _devices(match[2]) if match[2] else np.arange(math.prod(sizes.values()))
        return devices.reshape(tuple(sizes.values()))[tuple(slice(None) if a in taken else 0 for a in sizes)].ravel()
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", rest):
        return _devices(match[3]).reshape(int(match[1]), int(match[2]))[0]
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return np.array([int(number) for number in match[1].split(",")])
    if "replica_groups={}" in rest:
        raise ValueError(f"a group of all devices, whose number does not stand here: {rest[:200]}")
    raise ValueError(f"no group of devices in: {rest[:200]}")


def _devices(text):
    """Numbers written as a list, or as ``[4,2]T(1,0)``: those of 8 devices in rows of two, column by column."""
    if not text.startswith("["):
        return np.array([int(number) for number in text.split(",")])
    shape, _, order = text.partition("T")
    shape = [int(size) for size in re.findall(r"\d+", shape)]
    order = [int(axis) for axis in re.findall(r"\d+", order)] or range(len(shape))
    return np.arange(math.prod(shape)).reshape(shape).transpose(order).ravel()
