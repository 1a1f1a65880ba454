"""Programs as XLA prints them: what they are made of, which instructions run, and how often."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

# Instructions that run other computations as they are. A fusion's computation is one kernel instead, and what
# a reduction or a sort applies is part of it.
_CALLS = {"call": "to_apply", "async-start": "calls"}
# What hands on the value of its operand.
_SAME_VALUE = ("copy", "copy-start", "copy-done", "bitcast", "convert", "reshape")


@dataclass(frozen=True)
class Instruction:
    """One line: its name, its result's type, what it does, to what, and all that is said of it besides."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    @cached_property
    def op_name(self) -> str:
        """The path of modules and primitives that it comes from, or nothing."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return found[1] if found else ""

    def called(self, attribute: str) -> str | None:
        """The computation that an attribute names."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else None

    def number(self, field: str) -> int | None:
        """A whole number from what the compiler notes in JSON behind it."""
        found = re.search(rf'"{field}":"?(\d+)', self.attributes)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order they are printed; the root is what it returns."""

    instructions: dict[str, Instruction]
    root: Instruction


@dataclass(frozen=True)
class Module:
    """A program: its computations, and the one that it starts with."""

    computations: dict[str, Computation]
    entry: str

    def everything(self) -> dict[str, Instruction]:
        """All instructions by their names, which no two share."""
        bodies = self.computations.values()
        return {name: one for body in bodies for name, one in body.instructions.items()}

    def inside(self, instruction: Instruction) -> Iterator[Instruction]:
        """An instruction, or all that a fusion is made of, fusions in it taken apart."""
        name = instruction.called("calls") if instruction.opcode == "fusion" else None
        if name is None:
            yield instruction
            return
        for inner in self.computations[name].instructions.values():
            yield from self.inside(inner)


def parse(text: str) -> Module:
    """Read a compiled program's text, what `compiled.as_text()` gives."""
    computations: dict[str, Computation] = {}
    entry = ""
    name, root = "", None
    instructions: dict[str, Instruction] = {}
    for line in text.splitlines():
        if line and not line[0].isspace() and line.endswith("{") and "(" in line:
            name = line.removeprefix("ENTRY ").split("(")[0].split()[0].lstrip("%")
            entry = name if line.startswith("ENTRY ") else entry
            instructions, root = {}, None
        elif line.startswith("}") and name:
            last = list(instructions.values())[-1]
            computations[name] = Computation(instructions, root or last)
            name = ""
        elif name and " = " in line:
            instruction = _instruction(line.strip().removeprefix("ROOT "))
            instructions[instruction.name] = instruction
            root = instruction if line.lstrip().startswith("ROOT ") else root
    if not entry:
        raise ValueError("this is no program of XLA's: a line that begins with ENTRY is missing")
    return Module(computations, entry)


def _instruction(line: str) -> Instruction:
    name, _, right = line.partition(" = ")
    end = _end(right, " ")
    shape, right = right[:end], right[end + 1 :]
    opcode, _, right = right.partition("(")
    end = _end(right, ")")
    operands = [part.split()[-1].lstrip("%") for part in _split(right[:end]) if part.strip()]
    return Instruction(name.lstrip("%"), shape, opcode, tuple(operands), right[end + 1 :])


def _end(text: str, stop: str) -> int:
    """Where a character stands outside of all brackets, or the end."""
    depth = 0
    for i, character in enumerate(text):
        if depth == 0 and character == stop:
            return i
        depth += (character in "([{") - (character in ")]}")
    return len(text)


def _split(text: str) -> Iterator[str]:
    while text:
        end = _end(text, ",")
        yield text[:end]
        text = text[end + 1 :]


def executions(
    module: Module, cost: Callable[[Instruction], float], name: str | None = None, times: int = 1
) -> list[tuple[int, Instruction]]:
    """What runs, and how often: loops and calls taken apart, of a condition's branches the costliest one.

    Raises ValueError for a loop of which nothing in the program says how often it runs.
    """
    name = name or module.entry
    computation = module.computations[name]
    found: list[tuple[int, Instruction]] = []
    for instruction in computation.instructions.values():
        opcode = instruction.opcode
        if opcode == "while":
            rounds = times * trip_count(module, computation, instruction)
            found += executions(module, cost, instruction.called("body"), rounds)
        elif opcode == "conditional":
            branches = [executions(module, cost, branch, times) for branch in _branches(instruction)]
            found += max(branches, key=lambda lines: sum(n * cost(one) for n, one in lines))
        elif opcode in _CALLS and instruction.called(_CALLS[opcode]):
            found += executions(module, cost, instruction.called(_CALLS[opcode]), times)
        else:
            found.append((times, instruction))
    return found


def _branches(conditional: Instruction) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", conditional.attributes)
    if listed:
        return [name.strip().lstrip("%") for name in listed[1].split(",")]
    return [conditional.called(f"{side}_computation") or "" for side in ("true", "false")]


def trip_count(module: Module, around: Computation, loop: Instruction) -> int:
    """How often a loop's body runs: as the compiler notes it, or as the loop itself counts.

    The TPU's compiler drops its note. The loop then counts, in an element of what it carries from round to
    round, from a constant by a constant up to a constant.
    """
    noted = re.search(r'"known_trip_count":\{"n":"?(\d+)', loop.attributes)
    if noted:
        return int(noted[1])
    names = loop.called("body"), loop.called("condition")
    body, condition = (module.computations[name or ""] for name in names)
    start = around.instructions[loop.operands[0]]

    def carried(index: int) -> int | None:
        """What an element of the tuple is before the first round."""
        if start.opcode != "tuple":
            return None
        return _constant(around, start.operands[index])

    def value(where: Computation, name: str) -> int | None:
        """A constant, or an element that no round changes."""
        index = _element(where, name)
        if index is None:
            return _constant(where, name)
        kept = body.root.opcode == "tuple" and _element(body, body.root.operands[index]) == index
        return carried(index) if kept else None

    test = condition.root
    counter = _element(condition, test.operands[0]) if test.opcode == "compare" else None
    if counter is not None and "direction=LT" in test.attributes and body.root.opcode == "tuple":
        step = body.instructions.get(body.root.operands[counter])
        if step is not None and step.opcode == "add" and _element(body, step.operands[0]) == counter:
            first, by = carried(counter), value(body, step.operands[1])
            end = value(condition, test.operands[1])
            if first is not None and end is not None and by:
                return max(-(-(end - first) // by), 0)
    raise ValueError(f"nothing in the program says how often the loop %{loop.name} runs ({loop.op_name})")


def _source(where: Computation, name: str) -> Instruction | None:
    """What a name stands for, past everything that only hands it on."""
    instruction = where.instructions.get(name)
    while instruction is not None and instruction.opcode in _SAME_VALUE:
        instruction = where.instructions.get(instruction.operands[0])
    return instruction


def _constant(where: Computation, name: str) -> int | None:
    source = _source(where, name)
    if source is None or source.opcode != "constant":
        return None
    return int(source.operands[0]) if re.fullmatch(r"-?\d+", source.operands[0]) else None


def _element(where: Computation, name: str) -> int | None:
    """Which element of its computation's only parameter a name stands for."""
    source = _source(where, name)
    if source is None or source.opcode != "get-tuple-element":
        return None
    tuple_ = where.instructions.get(source.operands[0])
    index = re.search(r"\bindex=(\d+)", source.attributes)
    return int(index[1]) if index and tuple_ is not None and tuple_.opcode == "parameter" else None
