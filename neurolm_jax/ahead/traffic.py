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
    if opcode == "fusion" and (inner := computations.get(instruction.called("calls"))):
        return _fusion(instruction, operands, inner)
    return sum(map(_far, operands)) + _far(instruction.result)


def _far(shapes):
    return sum(shape.bytes for shape in shapes if shape.far)


def _fusion(instruction, operands, inner):
    made = {i.name: i for i in inner}
    users: dict[str, list[Instruction]] = {}
    for i in inner:
        for name in i.operands:
            users.setdefault(name, []).append(i)
    places = {i.number: i for i in inner if i.opcode == "parameter"}
    total = 0.0
    for place, shapes in enumerate(operands):
        if place in places and len(shapes) == 1 and shapes[0].far:
            total += min(shapes[0].bytes, _read(places[place].name, users, made))
    root = inner[-1]
    results = [made[name] for name in root.operands] if root.opcode == "tuple" else [root]
    for shape, result in zip(instruction.result, results):
        source = _behind(result, made)
        written = (
            made[source.operands[UPDATE[source.opcode]]].result[0].bytes if source.opcode in UPDATE else shape.bytes
        )
        total += min(written, shape.bytes) if shape.far else 0.0
    return total


def _read(name, users, made):
    """Bytes that the users of a fusion's parameter read of it."""
    total = 0.0
    for i in users.get(name, ()):
        if i.opcode in SLICES and i.operands[0] == name:
            total += i.result[0].bytes
        elif i.opcode in UPDATE and i.operands[0] == name:
            continue  # it stays where it is
        elif i.opcode in ALIASES:
            total += _read(i.name, users, made)
        else:
            return float("inf")
    return total


def _behind(instruction, made):
    """What an instruction is but another name or type for."""
    while instruction.opcode in ALIASES and instruction.operands[0] in made:
        instruction = made[instruction.operands[0]]
    return instruction
