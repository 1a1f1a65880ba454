"""How long a Pallas kernel's schedule is, by the bundles of instructions that the compiler made of it.

libtpu, told so, writes down the schedule of everything that it compiles. A bundle is what a chip does in one
cycle, if nothing keeps it waiting. In loops, kernels' grids among them, it is what one round takes. What is
only done in some rounds (the first, the last) is counted in each: the compiler does not say how often. Loops
that go on to a number in a register, as those that copy what lies at a map's border, are counted as one
round, if they are a hundredth of the schedule at most.
"""

import re
from dataclasses import dataclass
from pathlib import Path

_BUNDLE = re.compile(r"\s*(?:0x[0-9a-f]+|\d+)\s+(?P<label>[A-Z, ]*):\s*(?P<depth>[> ]*)\{")
_CONDITION = r"(?:\(!?%\w+\), )?"  # a condition under which the instruction is done
_BRANCH = re.compile(r"sbr\.rel \(!(%\w+)\)")


@dataclass
class _Loop:
    """Bundles of one round, without those of loops inside, and what says whether there is another round.

    is_open: the number of rounds lies in a register.
    """

    around: "_Loop | None" = None
    bundles: int = 0
    test: str | None = None
    is_open: bool = False


def arguments(folder: Path) -> str:
    """What to tell libtpu before it starts, so that it writes schedules into a folder, which takes time."""
    told = {"to": folder, "llo_text": "true", "llo_pass_label_regex": "^final_bundles"}
    return " ".join(f"--xla_jf_dump_{name}={value}" for name, value in told.items())


def collect(folder: Path) -> dict[str, int]:
    """Take schedules out of a folder: cycles by the names of instructions, where loops' lengths are known."""
    found = {}
    for path in sorted(folder.iterdir()):
        name = re.fullmatch(r"\d+-(.+)-\d+-final_bundles\.txt", path.name)
        count = cycles(path.read_text()) if name else None
        if name and count is not None:
            found[name[1]] = count
        path.unlink()
    return found


def cycles(text: str) -> int | None:
    """Bundles of a schedule, loops multiplied out; None if the length of a loop is not in it."""
    outside = _Loop()
    at_depth = [outside]
    opened: list[_Loop] = []
    loops = [outside]
    for line in text.splitlines():
        bundle = _BUNDLE.match(line)
        if bundle:
            depth = bundle["depth"].count(">")
            if "LB" in bundle["label"]:
                loop = _Loop(at_depth[depth - 1])
                at_depth[depth:] = [loop]
                opened.append(loop)
                loops.append(loop)
            at_depth[min(depth, len(at_depth) - 1)].bundles += 1
        for branch in _BRANCH.finditer(line):
            if opened and _bound(text, branch[1]) is not None:
                opened.pop().test = branch[1]
            elif opened and at_depth[-1] is opened[-1] and _ends_in_register(text, branch[1]):
                opened.pop().is_open = True
    total = unknown = 0
    for loop in loops:
        times: int | None = 1
        inner: _Loop | None = loop
        while inner is not None and inner is not outside and times is not None:
            rounds = 1 if inner.is_open else _rounds(text, inner.test)
            times = None if rounds is None else times * rounds
            inner = inner.around
        if times is None:
            return None
        total += times * loop.bundles
        unknown += times * loop.bundles * loop.is_open
    return total if unknown <= total / 100 else None


def _ends_in_register(text: str, test: str) -> bool:
    return bool(re.search(rf"{test} = scmp\.ge\.s32\.totalorder {_CONDITION}%\w+, %\w+", text))


def _bound(text: str, test: str) -> tuple[str, int] | None:
    """What a loop counts, and where it ends."""
    pattern = rf"{test} = scmp\.ge\.s32\.totalorder {_CONDITION}(%\w+), (\d+) /\* loop exit test"
    found = re.search(pattern, text)
    return (found[1], int(found[2])) if found else None


def _rounds(text: str, test: str | None) -> int | None:
    """How many rounds a loop has, which counts from a constant by a constant to a constant."""
    bound = _bound(text, test) if test else None
    if bound is None:
        return None
    counter, end = bound
    step = re.search(rf"{counter} = sadd\.s32 {_CONDITION}(\d+), %\w+", text)
    # What comes back to the loop's start is the counter or a copy of it.
    names = [counter, *re.findall(rf"(%\w+) = smov {_CONDITION}{counter}\b", text)]
    carried = re.search(rf"= sphi (%\w+), (?:{'|'.join(names)})\b([^;]*)", text)
    start = re.search(rf"{carried[1]} = smov (\d+)", text) if carried else None
    if step is None or carried is None or start is None:
        return None
    rounds = -(-(end - int(start[1])) // int(step[1]))
    # The loop over a grid has two more rounds, to load before the first step and to store after the last.
    return max(rounds - 2, 1) if "iteration index, stage" in carried[2] else rounds
