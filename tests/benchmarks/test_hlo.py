"""How often instructions run, told from small programs written by hand."""

import pytest

from benchmarks.hlo import Instruction, executions, parse

# A loop of three rounds around one of five. The outer one counts as the TPU's compiler leaves it, from a
# constant by a constant to a constant; of the inner one the compiler notes the rounds, as on other platforms.
LOOPS = """HloModule jit_f, is_scheduled=true

FileNames
1 "f.py"

%fused (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %e = f32[8,128]{1,0:T(8,128)S(1)} exponential(%a), metadata={op_name="jit(f)/exp"}
}

%inner_body (s: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %s = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %n = s32[]{:T(128)} get-tuple-element(%s), index=0
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%s), index=1
  %f = f32[8,128]{1,0:T(8,128)} fusion(%x), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"7"}
  ROOT %r = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%n, %f)
}

%inner_condition (t: (s32[], f32[8,128])) -> pred[] {
  %t = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %p = s32[]{:T(128)} get-tuple-element(%t), index=0
  ROOT %q = pred[]{:T(512)} compare(%p, %p), direction=LT
}

%outer_body (b: (f32[8,128], s32[], s32[])) -> (f32[8,128], s32[], s32[]) {
  %b = (f32[8,128]{1,0:T(8,128)}, s32[]{:T(128)}, s32[]{:T(128)}) parameter(0)
  %b0 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%b), index=0
  %b1 = s32[]{:T(128)} get-tuple-element(%b), index=1
  %b2 = s32[]{:T(128)} get-tuple-element(%b), index=2
  %two = s32[]{:T(128)} constant(2)
  %next = s32[]{:T(128)} add(%b1, %two)
  %begin = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%b1, %b0)
  %w = (s32[]{:T(128)}, /*index=1*/f32[8,128]{1,0:T(8,128)}) while(%begin), condition=%inner_condition, body=%inner_body, backend_config={"known_trip_count":{"n":"5"}}
  %y = f32[8,128]{1,0:T(8,128)} get-tuple-element(%w), index=1
  %c = f32[8,128]{0,1:T(8,128)} copy(%y), metadata={op_name="jit(f)/while/body/g"}, backend_config={"estimated_cycles":"100"}
  ROOT %out = (f32[8,128]{1,0:T(8,128)}, s32[]{:T(128)}, s32[]{:T(128)}) tuple(%c, %next, %b2)
}

%outer_condition (d: (f32[8,128], s32[], s32[])) -> pred[] {
  %d = (f32[8,128]{1,0:T(8,128)}, s32[]{:T(128)}, s32[]{:T(128)}) parameter(0)
  %d1 = s32[]{:T(128)} get-tuple-element(%d), index=1
  %d2 = s32[]{:T(128)} get-tuple-element(%d), index=2
  ROOT %lt = pred[]{:T(512)} compare(%d1, %d2), direction=LT
}

ENTRY %main (z: f32[8,128]) -> f32[8,128] {
  %z = f32[8,128]{1,0:T(8,128)} parameter(0)
  %first = s32[]{:T(128)} constant(1)
  %start = s32[]{:T(128)} copy(%first)
  %end = s32[]{:T(128)} constant(6)
  %k = (f32[8,128]{1,0:T(8,128)}, s32[]{:T(128)}, s32[]{:T(128)}) tuple(%z, %start, %end)
  %v = (f32[8,128]{1,0:T(8,128)}, s32[]{:T(128)}, s32[]{:T(128)}) while(%k), condition=%outer_condition, body=%outer_body
  ROOT %g = f32[8,128]{1,0:T(8,128)} get-tuple-element(%v), index=0
}
"""  # noqa: E501

# What JAX makes of a condition: the branches are computations of their own, one of which runs.
BRANCHES = """HloModule jit_g

%cheap (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %x = f32[8]{0} negate(%a), backend_config={"estimated_cycles":"3"}
}

%dear (b: f32[8]) -> f32[8] {
  %b = f32[8]{0} parameter(0)
  ROOT %y = f32[8]{0} sine(%b), backend_config={"estimated_cycles":"40"}
}

ENTRY %main (p: s32[], c: f32[8]) -> f32[8] {
  %p = s32[] parameter(0)
  %c = f32[8]{0} parameter(1)
  %d = f32[8]{0} call(%c), to_apply=%dear
  ROOT %e = f32[8]{0} conditional(%p, %d, %d), branch_computations={%cheap, %dear}
}
"""


def cycles(instruction: Instruction) -> int:
    return instruction.number("estimated_cycles") or 0


def counted(text: str) -> dict[str, int]:
    runs = executions(parse(text), cycles)
    return {one.name: sum(times for times, other in runs if other == one) for _, one in runs if cycles(one)}


def test_loops_are_multiplied_out() -> None:
    # From 1 by 2 below 6: 1, 3, 5.
    assert counted(LOOPS) == {"f": 3 * 5, "c": 3}
    runs = executions(parse(LOOPS), cycles)
    assert sum(times * cycles(one) for times, one in runs) == 15 * 7 + 3 * 100


def test_of_branches_the_costliest_one_runs_and_calls_are_taken_apart() -> None:
    assert counted(BRANCHES) == {"y": 2}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("add(%b1, %two)", "multiply(%b1, %two)"),
        ("constant(6)", "parameter(1)"),
        ("tuple(%c, %next, %b2)", "tuple(%c, %next, %next)"),
        ("compare(%d1, %d2), direction=LT", "compare(%d1, %d2), direction=NE"),
    ],
)
def test_a_loop_of_unknown_length_is_refused(old: str, new: str) -> None:
    assert old in LOOPS
    with pytest.raises(ValueError, match="how often the loop %v runs"):
        executions(parse(LOOPS.replace(old, new)), cycles)


def test_an_instruction_is_read_past_the_brackets_of_its_layouts() -> None:
    module = parse(LOOPS)
    one = module.computations["outer_body"].instructions["w"]
    assert (one.opcode, one.operands) == ("while", ("begin",))
    assert one.shape == "(s32[]{:T(128)}, /*index=1*/f32[8,128]{1,0:T(8,128)})"
    copy = module.computations["outer_body"].instructions["c"]
    assert (copy.op_name, copy.number("estimated_cycles")) == ("jit(f)/while/body/g", 100)
    fusion = module.computations["inner_body"].instructions["f"]
    assert [inner.opcode for inner in module.inside(fusion)] == ["parameter", "exponential"]


def test_what_is_no_program_is_refused() -> None:
    with pytest.raises(ValueError, match="ENTRY is missing"):
        parse("HloModule nothing")
