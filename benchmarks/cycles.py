"""Where a TPU's time goes, by the compiler's own estimate, which stands in the text of a compiled program.

Nearly every instruction carries its `estimated_cycles`: its arithmetic, or its reading and writing of the
chip's memory, whichever takes longer. Instructions run one after the other, so the sum is the program's.
Not in it: asynchronous copies between the chip's two memories, which run beside the rest (their bytes are
added up, and what those would take alone); reshapes that change a layout, which the compiler leaves without
a number; and kernels of Pallas, to which it gives no time. The last two are modelled here, and called so. A
reshape, or whatever else has no number, takes what reading and writing takes at the memory's speed, which
is a lower bound: a copy between two layouts is estimated at several times that.

The model of a kernel. Where the compiler was asked for its schedule (schedule.py), that says how many
cycles the instructions take if nothing keeps them waiting. Where not, the `CostEstimate` says operations,
transcendentals and bytes. The matrix units do `flops` operations a cycle, at peak; the transcendental unit
gives a register of 8 x 128 numbers a cycle; the memory moves `bandwidth` bytes a second. Pipelines load and
store while they compute, but in a step an exponential waits for its product:

    cycles = max(schedule or operations / flops + transcendentals / 1024, bytes / (bandwidth / clock))

Without a schedule that is a roofline, and may be far off: JAX's flash attention of 4096 x 4096 scores and
96 channels is scheduled for 1.1 times as long in blocks of 512 queries and 4096 keys, and for 6 times as
long in the blocks of 128 that it takes of itself. A product of 56 channels takes as long as one of 128, and
a softmax's maxima, differences and sums are taken for free. A kernel with neither schedule nor
`CostEstimate` is in no total; there is a count of them.

The compiler is less kind to its own instructions. By the same rates its estimate of a large matrix product
is 1.14 times the roofline, of adding 1 to a large array 1.25 times, of the scores of 4096 tokens by 96
channels 3.7 times. Work that moves from them into a kernel looks better by some of that.
"""

import re
from dataclasses import dataclass
from functools import partial
from math import prod

from benchmarks.common import table
from benchmarks.hlo import Instruction, Module, executions, parse


@dataclass(frozen=True)
class Chip:
    """A generation of TPU, by Google's figures for one chip; the name is that of its topologies.

    flops: bfloat16 operations of the matrix units in a cycle; clock in Hz; bandwidth in bytes per second;
    memory in bytes. Operations times clock are the published peak, 197 and 918 TFLOP/s. accelerator: what
    libtpu asks of the machine for four chips.
    """

    name: str
    accelerator: str
    flops: int
    clock: float
    bandwidth: float
    memory: int

    @property
    def topology(self) -> str:
        """Four chips of one machine."""
        return f"{self.name}:2x2x1"


CHIPS = {
    # Four matrix units of 128 x 128; the clock is what then makes the peak.
    "v5e": Chip("v5e", "v5litepod-4", 4 * 128**2 * 2, 1.5e9, 819e9, 16 * 2**30),
    # Google counts units of 256 x 256 as two or four. Four at 1.75 GHz make the peak, and only those can do
    # the 369 thousand operations a cycle of which the compiler thinks a product of 8192 x 8192 capable.
    "v6e": Chip("v6e", "v6e-4", 4 * 256**2 * 2, 1.75e9, 1640e9, 32 * 2**30),
}
TRANSCENDENTALS = 8 * 128

PRODUCTS, ARITHMETIC, COPIES, PADS, BROADCASTS, RESHAPES, KERNELS = KINDS = (
    *("products", "arithmetic", "copies", "pads", "broadcasts"),
    *("reshapes, modelled", "kernels, modelled"),
)
# Which part of the network a path of modules names; the first that fits.
_PARTS = (
    ("patch embedding", r"/patch_embed\b"),
    ("block {}", r"\bblocks_(\d+)"),
    ("positions", r"\bpos_embed|\bimage_positions|\bshared_image_embedding"),
    ("neck", r"/neck\b|\bfeature_projections"),
    ("prompts", r"\bprompt_encoder|\bencode_prompts"),
    ("memory attention {}", r"\bmemory_attention/.*?\blayers_(\d+)"),
    ("memory attention {}", r"\blayers_(\d+)\.attend_to_"),
    ("memory attention", r"\bmemory_attention"),
    ("memory encoder", r"\bmemory_encoder|\bmask_downsampler|\bmemory_fuser"),
    ("hypernetworks", r"hypernetworks"),
    ("scores", r"_head\b"),
    ("decoder layer {}", r"\blayers_(\d+)"),
    ("final attention", r"final_attn"),
    ("upscaling", r"upscale"),
    ("masks", r"\._masks\b"),
    ("encoder, elsewhere", r"vision_encoder"),
    ("decoder, elsewhere", r"mask_decoder"),
)
# What only moves data, or decides where to; conversions of type among it.
_MOVING = re.compile(
    r"(copy|transpose|reshape|slice|dynamic-(update-)?slice|concatenate|gather|scatter|reverse)(-start|-done)?$"
)
_SILENT = re.compile(
    r"parameter|constant|tuple|get-tuple-element|bitcast|bitcast-convert|convert|iota|select|compare|and|or"
    r"|not|pad|broadcast|partition-id|after-all|custom-call|opt-barrier"
)
# What takes no time of its own: loops are taken apart, and other calls only say that arrays lie side by side.
_FREE = re.compile(
    r"parameter|constant|tuple|get-tuple-element|bitcast|while|conditional|call|custom-call|after-all"
    r"|opt-barrier|partition-id|.*-(start|done|update)"
)
_FLOATING = re.compile(r"\(?(f\d+|bf16)\b")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8}


@dataclass(frozen=True)
class Line:
    """An instruction that runs: how often, its cycles of all times together, what it does and for whom."""

    instruction: Instruction
    times: int
    cycles: float
    kind: str
    part: str


@dataclass(frozen=True)
class Profile:
    """A program's lines, dearest first.

    unknown: how many kernels say nothing of what they cost. asynchronous: bytes that are copied beside it.
    """

    lines: tuple[Line, ...]
    unknown: int
    asynchronous: int

    def cycles(self, *kinds: str) -> float:
        """Cycles of lines of these kinds, of all if none is named."""
        return sum(line.cycles for line in self.lines if not kinds or line.kind in kinds)

    @property
    def estimated(self) -> float:
        """Cycles by the compiler's estimate, without what is modelled."""
        return self.cycles() - self.cycles(RESHAPES, KERNELS)


def profile(text: str, chip: Chip) -> Profile:
    """Profile a compiled program by its text. Raises ValueError for loops of unknown length."""
    module = parse(text)
    everything = module.everything()
    cycles = partial(_cycles, everything, chip, schedules_in(text))
    runs = executions(module, cycles)
    lines = [
        Line(one, times, times * cycles(one), _kind(module, one), part(module, everything, one))
        for times, one in runs
        if cycles(one)
    ]
    silent = sum(times for times, one in runs if _is_kernel(one) and not cycles(one))
    arrived = [(times, one) for times, one in runs if one.opcode in ("copy-done", "slice-done")]
    copied = sum(times * size(one.shape) for times, one in arrived)
    return Profile(tuple(sorted(lines, key=lambda line: -line.cycles)), silent, copied)


def _is_kernel(instruction: Instruction) -> bool:
    return 'custom_call_target="tpu_custom_call"' in instruction.attributes


def with_schedules(text: str, schedules: dict[str, int]) -> str:
    """A program's text with the lengths of its kernels' schedules, in cycles, noted at its end.

    Of kernels that are the same the compiler schedules one.
    """
    kernels = re.findall(r"%(\S+) = .*custom_call_target=\"tpu_custom_call\".*\"body\":\"([^\"]*)", text)
    of_body = {body: schedules[name] for name, body in kernels if name in schedules}
    notes = [f"// schedule of %{name}: {of_body[body]} cycles\n" for name, body in kernels if body in of_body]
    return text.rstrip("\n") + "\n" + "".join(notes)


def schedules_in(text: str) -> dict[str, int]:
    """What `with_schedules` noted."""
    found = re.findall(r"^// schedule of %(\S+): (\d+) cycles$", text, re.MULTILINE)
    return {name: int(count) for name, count in found}


def _cycles(
    everything: dict[str, Instruction], chip: Chip, schedules: dict[str, int], instruction: Instruction
) -> float:
    """The compiler's estimate, or the model's for kernels and for what has no estimate but moves data."""
    estimate = instruction.number("estimated_cycles")
    if estimate is not None:
        return estimate
    if _is_kernel(instruction):
        fields = "flops", "transcendentals", "bytes_accessed"
        flops, transcendentals, moved = (instruction.number(field) or 0 for field in fields)
        roofline = flops / chip.flops + transcendentals / TRANSCENDENTALS
        return max(schedules.get(instruction.name, roofline), moved * chip.clock / chip.bandwidth)
    if _FREE.fullmatch(instruction.opcode):
        return 0
    operands = [everything[name].shape for name in instruction.operands if name in everything]
    return sum(map(size, [instruction.shape, *operands])) * chip.clock / chip.bandwidth


def _kind(module: Module, instruction: Instruction) -> str:
    priced = _is_kernel(instruction) or instruction.number("estimated_cycles") is not None
    return kind(module, instruction) if priced else RESHAPES


def kind(module: Module, instruction: Instruction) -> str:
    """What an instruction does: a fusion with a product in it is one, whatever else it does on the way."""
    if _is_kernel(instruction):
        return KERNELS
    inside = list(module.inside(instruction))
    names = {one.opcode for one in inside}
    if names & {"dot", "convolution"}:
        return PRODUCTS
    moves = any(_MOVING.match(name) for name in names)
    for one in inside:
        silent = _SILENT.fullmatch(one.opcode) or _MOVING.match(one.opcode)
        if not silent and _FLOATING.match(one.shape):
            return ARITHMETIC
    if "pad" in names:
        return PADS
    return BROADCASTS if "broadcast" in names and not moves else COPIES


def part(module: Module, everything: dict[str, Instruction], instruction: Instruction) -> str:
    """The part of the network that an instruction belongs to.

    One that the compiler put in, and which has no name, belongs to what it was made of, or else to where its
    operands come from.
    """
    seen: set[str] = set()
    waiting = [instruction]
    while waiting and len(seen) < 50:
        one = waiting.pop(0)
        if one.name in seen:
            continue
        seen.add(one.name)
        for named in (one, *module.inside(one)):
            for name, pattern in _PARTS:
                found = re.search(pattern, named.op_name)
                if found:
                    return name.format(*found.groups())
        waiting += [everything[operand] for operand in one.operands if operand in everything]
    return "elsewhere"


def size(shape: str) -> int:
    """Bytes of a type, an array or a tuple of arrays, without the paddings of their layouts."""
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    lengths = ((kind, [int(length) for length in axes.split(",") if length]) for kind, axes in arrays)
    return sum(_BYTES.get(kind, 4) * prod(axes) for kind, axes in lengths)


def by_part(profile: Profile) -> str:
    """A table of the network's parts, dearest first: millions of cycles, and their shares by kind."""
    parts: dict[str, dict[str, float]] = {}
    for line in profile.lines:
        for name in ("all", line.part):
            kinds = parts.setdefault(name, dict.fromkeys(KINDS, 0.0))
            kinds[line.kind] += line.cycles
    whole = profile.cycles()
    rows = []
    for name, kinds in sorted(parts.items(), key=lambda item: -sum(item[1].values())):
        total = sum(kinds.values())
        rows.append([name, millions(total), share(total, whole), *(share(n, total) for n in kinds.values())])
    return table(["part", "M cycles", "share", *KINDS], rows)


def dearest(profile: Profile, count: int) -> str:
    """A table of the instructions that take the longest."""
    rows = []
    for line in profile.lines[:count]:
        one = line.instruction
        steps = "/".join(one.op_name.split("/")[-4:])
        cells = [millions(line.cycles), str(line.times), line.kind, line.part]
        rows.append([*cells, one.name, one.shape[:60], steps])
    return table(["M cycles", "times", "kind", "part", "instruction", "result", "from"], rows)


def millions(cycles: float) -> str:
    """Cycles in millions."""
    return f"{cycles / 1e6:.2f}"


def share(one: float, whole: float) -> str:
    """A share in percent."""
    return f"{one / whole:.1%}" if whole else "-"
