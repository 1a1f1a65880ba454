"""Which memories a frame sees, by hand and by what must hold for all plans."""

from itertools import product

import numpy as np
import pytest

from sam2_jax.video.plan import Roles, Rules, Slots, free_slot, roles, select_conditioning

RULES = Rules()
FORWARD, BACKWARD = 1, -1


def test_a_clip_tracked_from_its_first_frame() -> None:
    found = roles(9, FORWARD, [0], range(1, 9), RULES)
    assert found.spatial == ((0, 6), (8, 0), (7, 1), (6, 2), (5, 3), (4, 4), (3, 5))
    assert found.pointers == ((0, 9), (8, 1), (7, 2), (6, 3), (5, 4), (4, 5), (3, 6), (2, 7), (1, 8))


def test_the_second_frame_sees_the_first_alone() -> None:
    assert roles(1, FORWARD, [0], [], RULES) == Roles(((0, 6),), ((0, 1),))


def test_backwards_memories_come_from_later_frames() -> None:
    found = roles(5, BACKWARD, [8], [7, 6], RULES)
    assert found.spatial == ((8, 6), (6, 0), (7, 1))
    assert found.pointers == ((8, 3), (6, 1), (7, 2))


def test_a_gap_stays_a_gap() -> None:
    found = roles(9, FORWARD, [0], [7, 5, 2], RULES)
    assert found.spatial == ((0, 6), (7, 1), (5, 3))
    assert found.pointers == ((0, 9), (7, 2), (5, 4), (2, 7))


def test_a_conditioning_frame_to_come_gives_its_memory_and_no_pointer() -> None:
    found = roles(3, FORWARD, [0, 8], [1, 2], RULES)
    assert found.spatial == ((0, 6), (8, 6), (2, 0), (1, 1))
    assert found.pointers == ((0, 3), (2, 1), (1, 2))


def test_pointers_of_conditioning_frames_reach_any_distance_and_others_fifteen() -> None:
    found = roles(100, FORWARD, [0], range(1, 100), RULES)
    assert found.pointers[0] == (0, 100)
    assert found.pointers[1:] == tuple((100 - d, d) for d in range(1, 16))


def test_pointers_of_a_short_clip_reach_its_length() -> None:
    found = roles(7, FORWARD, [0], range(1, 7), Rules(max_pointers=4))
    assert found.pointers == ((0, 7), (6, 1), (5, 2), (4, 3))


@pytest.mark.parametrize(
    ("t", "direction", "limit", "expected"),
    [
        (10, FORWARD, -1, [0, 3, 6, 19]),
        (10, FORWARD, 4, [0, 3, 6, 19]),
        (10, FORWARD, 3, [6, 19, 3]),
        (10, FORWARD, 2, [6, 19]),
        (10, BACKWARD, 2, [6, 19]),  # before and after do not turn with the direction
        (21, FORWARD, 2, [19, 6]),
        (6, FORWARD, 2, [3, 6]),
        (10, FORWARD, 1, [6]),
        (10, BACKWARD, 1, [19]),
        (20, BACKWARD, 1, [19]),  # none behind
    ],
)
def test_the_limit_takes_the_nearest_conditioning_frames(
    t: int, direction: int, limit: int, expected: list[int]
) -> None:
    assert select_conditioning(t, direction, [0, 3, 6, 19], limit) == expected


def test_of_equally_near_ones_the_first_prompted() -> None:
    assert select_conditioning(10, FORWARD, [14, 6, 9, 11], 3) == [9, 11, 14]
    assert select_conditioning(10, FORWARD, [6, 14, 9, 11], 3) == [9, 11, 6]


def test_unselected_conditioning_frames_count_as_ordinary() -> None:
    found = roles(8, FORWARD, [0, 3, 6, 19], [1, 2, 4, 5, 7], Rules(max_cond_frame_num=2))
    assert found.spatial == ((6, 6), (19, 6), (7, 0), (5, 2), (4, 3), (3, 4), (2, 5))
    assert found.pointers == ((6, 2), (7, 1), (5, 3), (4, 4), (3, 5), (2, 6), (1, 7), (0, 8))


def test_a_stride_reaches_further_back() -> None:
    rules = Rules(stride=2)
    ahead = roles(12, FORWARD, [0], range(1, 12), rules)
    assert ahead.spatial == ((0, 6), (11, 0), (10, 1), (8, 2), (6, 3), (4, 4), (2, 5))
    back = roles(3, BACKWARD, [15], range(4, 15), rules)
    assert back.spatial == ((15, 6), (4, 0), (6, 1), (8, 2), (10, 3), (12, 4), (14, 5))
    assert ahead.pointers == roles(12, FORWARD, [0], range(1, 12), RULES).pointers


def test_worthy_frames_close_up() -> None:
    found = roles(9, FORWARD, [0], range(1, 9), RULES, worthy=[8, 5, 4, 1])
    assert found.spatial == ((0, 6), (8, 0), (5, 1), (4, 2), (1, 3))
    assert found.pointers == roles(9, FORWARD, [0], range(1, 9), RULES).pointers
    back = roles(9, BACKWARD, [20], range(10, 20), RULES, worthy=[3, 12, 14, *range(15, 20)])
    assert back.spatial == ((20, 6), (12, 0), (14, 1), (15, 2), (16, 3), (17, 4), (18, 5))


def test_a_frame_never_attends_to_itself() -> None:
    found = roles(5, FORWARD, [2], range(3, 9), RULES)
    assert 5 not in dict(found.spatial) | dict(found.pointers)


def random_object(rng: np.random.Generator, frames: int) -> tuple[list[int], set[int]]:
    """Conditioning and ordinary frames of a clip, at random."""
    kinds = rng.integers(0, 3, frames)
    conditioning = [int(f) for f in rng.permutation(np.flatnonzero(kinds == 0))[: rng.integers(1, 6)]]
    return conditioning or [0], {int(f) for f in np.flatnonzero(kinds == 1)} - {0}


def test_what_holds_for_all_plans() -> None:
    rng = np.random.default_rng(0)
    for limit, stride, direction in product((-1, 1, 2, 4), (1, 2, 3), (FORWARD, BACKWARD)):
        rules = Rules(max_cond_frame_num=limit, stride=stride)
        for _ in range(20):
            conditioning, ordinary = random_object(rng, 40)
            t = int(rng.integers(40))
            spatial, pointers = roles(t, direction, conditioning, ordinary, rules)
            frames = [f for f, _ in spatial]
            assert len(set(frames)) == len(frames)
            assert set(frames) <= set(conditioning) | ordinary
            rows = [row for _, row in spatial if row != 6]
            assert rows == sorted(set(rows))
            assert len(rows) <= 6
            last = [f for f, row in spatial if row == 6]
            assert set(last) <= set(conditioning)
            assert len(last) == (len(conditioning) if limit == -1 else min(limit, len(conditioning)))
            assert all(distance == (t - f) * direction >= 0 for f, distance in pointers)
            assert all(distance <= 15 for f, distance in pointers if f not in last)


def test_a_mirrored_clip_has_a_mirrored_plan() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        conditioning, ordinary = random_object(rng, 30)
        t = int(rng.integers(30))
        forward = roles(t, FORWARD, conditioning, ordinary, RULES)
        backward = roles(29 - t, BACKWARD, [29 - f for f in conditioning], [29 - f for f in ordinary], RULES)
        assert backward == Roles(*(tuple((29 - f, x) for f, x in part) for part in forward))


def test_the_order_of_prompts_changes_nothing_without_a_limit() -> None:
    conditioning, ordinary = [4, 17, 9], {5, 6, 7, 8, 10}
    found = [roles(12, FORWARD, order, ordinary, RULES) for order in (conditioning, conditioning[::-1])]
    assert all(sorted(a) == sorted(b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("direction", [FORWARD, BACKWARD])
def test_in_consecutive_frames_all_that_is_wanted_is_still_in_its_slot(direction: int, stride: int) -> None:
    rules = Rules(stride=stride)
    prompts = {0: 0, 13: 1, 30: 2} if direction == FORWARD else {59: 0, 41: 1}
    slots = Slots.empty(4, rules, 15)
    conditioning, ordinary = list(prompts), set()
    for f, slot in prompts.items():
        slots.conditioning[slot] = f
    for t in range(60)[::direction]:
        if t in prompts:
            continue
        wanted = roles(t, direction, conditioning, ordinary, rules)
        assert slots.missing(wanted) == ([], [])
        ordinary.add(t)
        following = roles(t + direction, direction, conditioning, ordinary, rules)
        for part, held in ((following.spatial, slots.memories), (following.pointers, slots.pointers)):
            held[free_slot(held, dict(part))] = t


def test_rows_and_distances_stand_in_the_order_of_the_slots() -> None:
    slots = Slots([7, None], [3, None, 8, 1, None, None], [8, 2, *[None] * 13])
    found = slots.lay_out(Roles(((7, 6), (8, 0), (3, 5)), ((7, 2), (8, 1))))
    assert found.row[found.valid].tolist() == [6, 5, 0]
    assert np.flatnonzero(found.valid).tolist() == [0, 2, 4]
    assert found.distance[found.pointer_valid].tolist() == [2, 1]
    assert np.flatnonzero(found.pointer_valid).tolist() == [0, 2]


def test_what_is_missing_is_named() -> None:
    slots = Slots([7, None], [3, *[None] * 5], [8, *[None] * 14])
    assert slots.missing(Roles(((7, 6), (8, 0), (3, 5)), ((7, 2), (8, 1), (6, 3)))) == ([8], [6])


def test_a_forgotten_frame_is_in_no_slot() -> None:
    slots = Slots([7], [3, 7], [7, 3])
    slots.forget(7)
    assert slots == Slots([None], [3, None], [None, 3])


def test_empty_slots_are_written_first_and_then_what_nobody_needs() -> None:
    assert free_slot([4, None, 6], {4, 6}) == 1
    assert free_slot([4, 5, 6], {4, 6}) == 1
