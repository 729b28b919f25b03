"""Bytes that one instruction of a compiled program moves to and from a device's large memory.

Of a fusion, its operands and results; of an operand that is only sliced inside of it, the slices, and of a result that
is an update in place, the update: layers in a loop read and write their own part of what all layers have.
"""

from collections.abc import Mapping, Sequence

from neurolm_jax.ahead.hlo import Instruction, Shape

# Names for what is there already, and instructions whose parts are counted by themselves.
FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id")
FREE += ("while", "conditional", "call", "iota", "opt-barrier", "domain", "async-start", "async-update")
SLICES = ("dynamic-slice", "slice", "gather")
UPDATE = {"dynamic-update-slice": 1, "scatter": 2}  # which operand is written into the first, in place
ALIASES = ("bitcast", "copy", "convert", "reshape")


def moved(
    instruction: Instruction, shapes: Mapping[str, Sequence[Shape]], computations: Mapping[str, Sequence[Instruction]]
) -> float:
    """Bytes; ``shapes`` are those of all instructions beside it."""
    opcode = instruction.opcode
    operands = [shapes[name] for name in instruction.operands if name in shapes]
    if opcode in FREE or opcode.endswith("-done"):
        return 0.0
    if opcode == "copy-start":
        return _far(instruction.result)
    if opcode == "slice-start" or opcode in SLICES:
        *_, sliced = [s for s in instruction.result if s.dimensions] or instruction.result
        reads = sliced.bytes if operands and operands[0][0].far else 0.0
        return reads + (sliced.bytes if sliced.far else 0.0)
    if opcode in UPDATE:
        update = operands[UPDATE[opcode]]
        return 2 * sum(s.bytes for s in update) if instruction.result[0].far else _far(update)
    if opcode.endswith("-start"):  # of collectives, whose results may name their operands too
        return _far(instruction.result)
    if opcode == "fusion":
        return _fusion(instruction, operands, computations)
    return sum(map(_far, operands)) + _far(instruction.result)


def _far(shapes):
    return sum(shape.bytes for shape in shapes if shape.far)


def _fusion(instruction, operands, computations):
    inner = computations[instruction.called("calls")]
    made = {i.name: i for i in inner}
    total = 0.0
    for parameter in (i for i in inner if i.opcode == "parameter"):
        shapes = operands[parameter.number]
        if len(shapes) == 1 and shapes[0].far:
            total += min(shapes[0].bytes, _read(parameter.name, inner, computations))
    root = inner[-1]
    results = [made[name] for name in root.operands] if root.opcode == "tuple" else [root]
    for shape, result in zip(instruction.result, results):
        total += min(shape.bytes, _written(result, made, computations)) if shape.far else 0.0
    return total


def _read(name, inner, computations):
    """Bytes that a fused computation reads of its parameter, or of another name for it."""
    total = 0.0
    for i in inner:
        if name not in i.operands:
            continue
        if i.opcode in SLICES and i.operands[0] == name:
            total += i.result[0].bytes
        elif i.opcode in UPDATE and i.operands[0] == name:
            continue  # it stays where it is
        elif i.opcode in ALIASES:
            total += _read(i.name, inner, computations)
        elif i.opcode == "fusion":
            nested = computations[i.called("calls")]
            for parameter in (n for n in nested if n.opcode == "parameter" and i.operands[n.number] == name):
                total += _read(parameter.name, nested, computations)
        else:
            return float("inf")
    return total


def _written(result, made, computations):
    """Bytes that are written of a fused computation's result: of an update in place, what is new."""
    source = _behind(result, made)
    if source.opcode in UPDATE:
        return made[source.operands[UPDATE[source.opcode]]].result[0].bytes
    if source.opcode == "fusion" and len(source.result) == 1:
        nested = computations[source.called("calls")]
        return _written(nested[-1], {i.name: i for i in nested}, computations)
    return float("inf")


def _behind(instruction, made):
    """What an instruction is but another name or type for."""
    while instruction.opcode in ALIASES and instruction.operands[0] in made:
        instruction = made[instruction.operands[0]]
    return instruction
