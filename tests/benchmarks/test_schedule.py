"""How long schedules are, told from small ones written as the TPU's compiler writes them."""

from pathlib import Path

import pytest

from benchmarks import schedule

# A grid of four steps, in a loop of six rounds; in it one of five rounds, whose test stands in the last
# bundle of another of three, which counts from 2 by 2 and has a bundle of two lines.
NESTED = """= control target key start
LB: loop body
= control target key end

     0   :  { %s1_s1 = smov 0 /* copy for cssa */ }
   0x1   :  { %s2_s2 = smov 2  ;;  %s3_s3 = smov 0 }
   0x2 LB: > { %s11_s1 = sphi %s1_s1, %s12_s1 /* phi copy :: iteration index, stage = 0 */ }
   0x3 LB: >> { %s31_s3 = sphi %s3_s3, %s32_s3 /* phi copy */ }
   0x4 LB: >>> { %s21_s2 = sphi %s2_s2, %s23_s2 /* phi copy */  ;;  %s22_s2 = sadd.s32 2, %s21_s2
base: 8 }
   0x5   : >>> { %p1_p1 = scmp.ge.s32.totalorder %s22_s2, 8 /* loop exit test */  ;;  %s23_s2 = smov %s22_s2 }
   0x6   : >>> { %s32_s3 = sadd.s32 (%p1_p1), 1, %s31_s3  ;;  %9 = sbr.rel (!%p1_p1) target = $region3 }
   0x7   : >>> { %p2_p2 = scmp.ge.s32.totalorder (%p1_p1), %s32_s3, 5 /* loop exit test */ }
   0x8   : >> { %8 = sbr.rel (%p7_p7) target = $region9 }
   0x9   : > { %7 = sbr.rel (!%p2_p2) target = $region2 }
   0xa PF: > { %s12_s1 = sadd.s32 1, %s11_s1  ;;  %p3_p3 = scmp.ge.s32.totalorder %s12_s1, 6 /* loop exit test */ }
   0xb   : > { %6 = sbr.rel (!%p3_p3) target = $region1 }
   0xc   :  {}
"""  # noqa: E501


def test_rounds_multiply_bundles() -> None:
    assert schedule.cycles(NESTED) == 3 + 4 * (4 + 5 * (2 + 3 * 4))


@pytest.mark.parametrize(
    "old", ["%s2_s2 = smov 2", "%s22_s2, 8 /* loop exit test */", "%s23_s2 = smov %s22_s2"]
)
def test_a_loop_of_unknown_length_has_none(old: str) -> None:
    assert old in NESTED
    assert schedule.cycles(NESTED.replace(old, "%s99_s9 = smul.u32 3, 4")) is None


def test_a_short_loop_that_ends_in_a_register_is_one_round() -> None:
    """As long as it hardly counts."""
    open_loop = """   0x9 LB: >> { %s41_s4 = sphi %s1_s1, %s42_s4 }
   0xa   : >> { %p4_p4 = scmp.ge.s32.totalorder %s42_s4, %s5_s5  ;;  %9 = sbr.rel (!%p4_p4) }
   0xb PF"""
    assert NESTED.count("   0xa PF") == 1
    text = NESTED.replace("   0xa PF", open_loop)
    assert schedule.cycles(text) is None, "8 of 348 bundles"
    longer = "".join("   0x5   : >>> { }\n" for _ in range(10))
    expected = 3 + 4 * (4 + 2 + 5 * (2 + 3 * 14))
    assert schedule.cycles(text.replace("   0x6   :", f"{longer}   0x6   :")) == expected


def test_schedules_are_taken_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "1795-flash.1-01-final_bundles.txt").write_text(NESTED)
    (tmp_path / "1795-flash.1-00-schedule-analysis_final_bundles.txt").write_text(
        "total scheduled bundles: 13"
    )
    (tmp_path / "1795-odd.2-01-final_bundles.txt").write_text(NESTED.replace("smov 2", "smul.u32 3, 4"))
    assert schedule.collect(tmp_path) == {"flash.1": schedule.cycles(NESTED)}
    assert not list(tmp_path.iterdir())
    assert str(tmp_path) in schedule.arguments(tmp_path)
