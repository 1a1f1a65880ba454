"""What the instructions of a TPU's program are taken for, and what its kernels are thought to take."""

import pytest

from benchmarks.cycles import (
    CHIPS,
    COPIES,
    KERNELS,
    KINDS,
    RESHAPES,
    Chip,
    by_part,
    dearest,
    profile,
    with_schedules,
)

V5E = CHIPS["v5e"]
KERNEL = (
    '%{name} = bf16[8,128]{{1,0:T(8,128)(2,1)}} custom-call(%x), custom_call_target="tpu_custom_call", '
    'metadata={{op_name="jit(f)/blocks_5/attn/flash/pallas_call"}}, '
    'backend_config={{"custom_call_config":{{"body":"{body}",{cost}"needs_layout_passes":true}}}}'
)
COST = '"cost_estimate":{{"flops":"{}","transcendentals":"{}","bytes_accessed":"{}"}},'
PROGRAM = """HloModule jit_f, is_scheduled=true

%product (a: bf16[8,128], b: bf16[128,128]) -> bf16[8,128] {
  %a = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[128,128]{1,0:T(8,128)(2,1)} parameter(1)
  %moved = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%a), kind=kLoop, calls=%widen
  ROOT %conv = bf16[8,128]{1,0:T(8,128)(2,1)} convolution(%moved, %b), dim_labels=bf_io->bf
}

%widen (c: bf16[8,96]) -> bf16[8,128] {
  %c = bf16[8,96]{1,0:T(8,128)(2,1)} parameter(0)
  %zero = bf16[]{:T(128)} constant(0)
  ROOT %padded = bf16[8,128]{1,0:T(8,128)(2,1)} pad(%c, %zero), padding=0_0x0_32
}

%fill (d: bf16[128]) -> bf16[8,128] {
  %d = bf16[128]{0:T(256)} parameter(0)
  ROOT %filled = bf16[8,128]{1,0:T(8,128)(2,1)} broadcast(%d), dimensions={1}
}

%sum (e: bf16[8,128], f: bf16[8,128]) -> bf16[8,128] {
  %e = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %f = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %added = bf16[8,128]{1,0:T(8,128)(2,1)} add(%e, %f)
}

ENTRY %main (x: bf16[8,96], w: bf16[128,128]) -> bf16[8,128] {
  %x = bf16[8,96]{1,0:T(8,128)(2,1)} parameter(0)
  %w = bf16[128,128]{1,0:T(8,128)(2,1)} parameter(1)
  %ws = (bf16[128,128]{1,0:T(8,128)(2,1)S(1)}, bf16[128,128]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%w)
  %wd = bf16[128,128]{1,0:T(8,128)(2,1)S(1)} copy-done(%ws)
  %wide = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%x), kind=kLoop, calls=%widen, metadata={op_name="jit(f)/backbone/patch_embed/pad"}, backend_config={"estimated_cycles":"20"}
  %p = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%wide, %wd), kind=kOutput, calls=%product, metadata={op_name="jit(f)/vision_encoder/backbone/blocks_12/mlp/proj_in/dot_general"}, backend_config={"estimated_cycles":"1000"}
  %turned = bf16[8,128]{0,1:T(8,128)(2,1)} copy(%p), backend_config={"estimated_cycles":"300"}
  %many = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%w), kind=kLoop, calls=%fill, metadata={op_name="jit(f)/transformer/layers_1/mlp/proj_in/add"}, backend_config={"estimated_cycles":"30"}
  KERNEL
  ROOT %s = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%turned, %many), kind=kLoop, calls=%sum, metadata={op_name="jit(f)/iou_prediction_head/layers_0/add"}, backend_config={"estimated_cycles":"50"}
}
"""  # noqa: E501


def program(*costs: str) -> str:
    # Kernels of the same cost shall be the same.
    bodies = [f"TUzv{cost.encode().hex()}" for cost in costs]
    kernels = [
        KERNEL.format(name=f"kernel.{i}", body=body, cost=cost)
        for i, (body, cost) in enumerate(zip(bodies, costs, strict=True))
    ]
    return PROGRAM.replace("KERNEL", "\n  ".join(kernels))


def test_instructions_have_a_kind_and_a_part() -> None:
    found = profile(program(), V5E)
    assert [(line.instruction.name, line.cycles, line.kind, line.part) for line in found.lines] == [
        ("p", 1000, "products", "block 12"),
        # Put in by the compiler, without a name: it belongs to what it copies.
        ("turned", 300, "copies", "block 12"),
        ("s", 50, "arithmetic", "scores"),
        ("many", 30, "broadcasts", "decoder layer 1"),
        ("wide", 20, "pads", "patch embedding"),
    ]
    assert found.cycles() == found.estimated == 1400
    assert found.cycles(COPIES) == 300
    assert found.asynchronous == 128 * 128 * 2


def test_a_reshape_without_an_estimate_takes_its_reading_and_writing() -> None:
    text = program().replace('copy(%p), backend_config={"estimated_cycles":"300"}', "reshape(%p)")
    found = profile(text, V5E)
    reshape = next(line for line in found.lines if line.instruction.name == "turned")
    assert (reshape.kind, reshape.part) == (RESHAPES, "block 12")
    assert reshape.cycles == 2 * 8 * 128 * 2 / 546
    assert found.estimated == 1100
    assert found.cycles() == 1100 + reshape.cycles


def test_kernels_are_modelled_apart_from_the_estimate() -> None:
    # Bound by their products, by exponentials beside them, and by the memory.
    costs = [(131072 * 50, 0, 0), (131072 * 50, 1024 * 9, 8), (131072, 0, 546000)]
    found = profile(program(*(COST.format(*cost) for cost in costs), ""), V5E)
    kernels = {line.instruction.name: line.cycles for line in found.lines if line.kind == KERNELS}
    assert kernels == {"kernel.0": 50, "kernel.1": 59, "kernel.2": 1000}
    assert found.estimated == 1400
    assert found.cycles() == 1400 + 50 + 59 + 1000
    assert found.unknown == 1  # the one that says nothing of its cost


def test_a_kernel_takes_as_long_as_its_schedule_and_its_memory() -> None:
    computing, moving = COST.format(131072 * 50, 0, 0), COST.format(0, 0, 546000)
    text = program(computing, moving, "", computing)
    found = profile(with_schedules(text, {"kernel.0": 70, "kernel.1": 20, "kernel.2": 9, "s": 1000}), V5E)
    kernels = {line.instruction.name: line.cycles for line in found.lines if line.kind == KERNELS}
    # The last one is the same as the first, for both of which the compiler made one schedule.
    assert kernels == {"kernel.0": 70, "kernel.1": 1000, "kernel.2": 9, "kernel.3": 70}
    assert (found.estimated, found.unknown) == (1400, 0)


@pytest.mark.parametrize(("chip", "peak"), [(V5E, 197e12), (CHIPS["v6e"], 918e12)])
def test_a_chip_s_units_and_clock_make_its_peak(chip: Chip, peak: float) -> None:
    assert chip.flops * chip.clock == pytest.approx(peak, rel=2e-3)


def test_tables_say_where_the_cycles_go() -> None:
    found = profile(program(), V5E)
    head, _, first, second, *_ = [line.strip("| ").split(" | ") for line in by_part(found).splitlines()]
    assert head == ["part", "M cycles", "share", *KINDS]
    assert first == ["all", "0.00", "100.0%", "71.4%", "3.6%", "21.4%", "1.4%", "2.1%", "0.0%", "0.0%"]
    assert second == ["block 12", "0.00", "92.9%", "76.9%", "0.0%", "23.1%", "0.0%", "0.0%", "0.0%", "0.0%"]
    lines = dearest(found, 2).splitlines()
    assert len(lines) == 4
    assert "mlp/proj_in/dot_general" in lines[2]
