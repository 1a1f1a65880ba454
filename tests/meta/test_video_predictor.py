"""Meta's SAM2VideoPredictor: its notebook, the reference scenarios by its names, options, errors, loading."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scenarios import Scenario, mask_of
from small_models import smallest_video_config
from small_video import small_clip, small_video_model

from sam2_jax import Sam2VideoModel
from sam2_jax.meta import (
    SAM2VideoPredictor,
    build_sam2_video_predictor,
    build_sam2_video_predictor_hf,
)
from sam2_jax.processing.components import label_components
from sam2_jax.processing.masks import upscale

CLIP = small_clip(6)
CLICK, OTHER = (12, 30), (40, 40)

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return SAM2VideoPredictor(small_video_model())


def binary(results: Any) -> dict[int, dict[Any, np.ndarray]]:
    """As the notebook keeps masks: frame -> object -> [1, H, W]."""
    return {t: {id_: masks[i] > 0.0 for i, id_ in enumerate(ids)} for t, ids, masks in results}


# --- the notebook: notebooks/video_predictor_example.ipynb


@pytest.fixture(scope="module")
def video_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of JPEG files, 00000.jpg and so on."""
    folder = tmp_path_factory.mktemp("frames")
    for t, picture in enumerate(CLIP):
        Image.fromarray(picture).resize((80, 48)).save(folder / f"{t:05d}.jpg", quality=95)
    return str(folder)


@pytest.fixture(scope="module")
def inference_state(predictor: SAM2VideoPredictor, video_dir: str) -> Any:
    return predictor.init_state(video_path=video_dir, offload_video_to_cpu=True, async_loading_frames=True)


def test_clicks_a_refinement_and_a_run(predictor: SAM2VideoPredictor, inference_state: Any) -> None:
    predictor.reset_state(inference_state)
    points = np.array([[15, 22]], dtype=np.float32)
    labels = np.array([1], np.int32)
    first, out_obj_ids, out_mask_logits = predictor.add_new_points_or_box(
        inference_state=inference_state, frame_idx=0, obj_id=1, points=points, labels=labels
    )
    assert (first, out_obj_ids) == (0, [1])
    assert out_mask_logits.shape == (1, 1, 48, 80)
    assert out_mask_logits.dtype == np.float32
    points = np.array([[15, 22], [18, 25]], dtype=np.float32)
    _, _, refined = predictor.add_new_points_or_box(
        inference_state, 0, 1, points=points, labels=np.array([1, 1], np.int32)
    )
    assert np.abs(refined - out_mask_logits).max() > 1e-3
    video_segments = binary(predictor.propagate_in_video(inference_state))
    assert list(video_segments) == list(range(6))
    np.testing.assert_array_equal(video_segments[0][1], refined[0] > 0)
    _, _, corrected = predictor.add_new_points_or_box(
        inference_state, 3, 1, points=[[60, 40]], labels=[0], clear_old_points=False
    )
    again = binary(predictor.propagate_in_video(inference_state))
    np.testing.assert_array_equal(again[3][1], corrected[0] > 0)  # Meta's default would have lost it
    assert {key: inference_state[key] for key in ("num_frames", "video_height", "video_width")} == {
        "num_frames": 6,
        "video_height": 48,
        "video_width": 80,
    }


def test_a_box_with_and_without_a_click(predictor: SAM2VideoPredictor, inference_state: Any) -> None:
    predictor.reset_state(inference_state)
    box = np.array([10, 15, 30, 30], dtype=np.float32)
    _, _, by_box = predictor.add_new_points_or_box(
        inference_state=inference_state, frame_idx=0, obj_id=4, box=box
    )
    predictor.reset_state(inference_state)
    corners = predictor.add_new_points(inference_state, 0, 4, box.reshape(2, 2), np.array([2, 3], np.int32))
    np.testing.assert_array_equal(by_box, corners[2])  # how it was given at first
    _, ids, both = predictor.add_new_points_or_box(
        inference_state, 0, 4, points=[[12, 18]], labels=[0], box=box[None]
    )
    assert ids == [4]
    assert np.abs(both - by_box).max() > 1e-3


def test_objects_come_and_go(predictor: SAM2VideoPredictor, inference_state: Any) -> None:
    predictor.reset_state(inference_state)
    predictor.add_new_points_or_box(inference_state, 0, 2, points=[[15, 22]], labels=[1])
    _, ids, masks = predictor.add_new_points_or_box(inference_state, 1, 3, points=[[50, 30]], labels=[1])
    assert ids == [2, 3]
    assert (masks[0] == -1024).all()  # nothing is known of it there yet
    segments = binary(
        predictor.propagate_in_video(inference_state, start_frame_idx=1, max_frame_num_to_track=2)
    )
    assert {t: list(found) for t, found in segments.items()} == {t: [2, 3] for t in (1, 2, 3)}
    assert inference_state["obj_id_to_idx"] == {2: 0, 3: 1}
    assert inference_state["obj_idx_to_id"] == {0: 2, 1: 3}
    assert binary(predictor.propagate_in_video(inference_state, 2, reverse=True)).keys() == {2, 1, 0}
    cleared = predictor.clear_all_prompts_in_frame(inference_state, 1, 3)
    assert cleared is not None
    assert cleared[:2] == (1, [2, 3])
    assert predictor.clear_all_prompts_in_frame(inference_state, 1, 3, need_output=False) is None
    left, updated = predictor.remove_object(inference_state, 2)
    assert left == inference_state["obj_ids"] == [3]
    assert [(t, masks.shape) for t, masks in updated] == [(0, (1, 1, 48, 80))]
    assert predictor.remove_object(inference_state, 2) == ([3], [])
    assert predictor.remove_object(inference_state, 3) == ([], [])
    with pytest.raises(ValueError, match="there is nothing to track"):
        predictor.propagate_in_video(inference_state)


# --- the reference scenarios, by Meta's names


def play(predictor: SAM2VideoPredictor, state: Any, operation: dict[str, Any]) -> tuple[Any, Any]:
    """Do an operation; returns frames and the masks of each [F, P, H, W], or None and None."""
    kind = operation["do"]
    if kind == "clear_prompts":
        predictor.clear_all_prompts_in_frame(state, operation["frame"], operation["object"])
        return None, None
    if kind == "remove_object":
        predictor.remove_object(state, operation["object"], strict=True)
        return None, None
    if kind == "propagate":
        found = list(
            predictor.propagate_in_video(state, operation["start"], operation["count"], operation["reverse"])
        )
        return [t for t, _, _ in found], np.array([masks[:, 0] for _, _, masks in found])
    frame, object_id = operation["frame"], operation["object"]
    if kind == "mask":
        mask = mask_of(operation, (state["video_height"], state["video_width"]))
        t, ids, masks = predictor.add_new_mask(state, frame, object_id, mask)
    else:
        points, labels, box = (operation[name] for name in ("points", "labels", "box"))
        t, ids, masks = predictor.add_new_points_or_box(
            state, frame, object_id, points, labels, operation["clear"], box=box
        )
    return [t], masks[ids.index(object_id)][None]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("click", "box", "three_clicks", "two_frames", "two_objects_mixed", "object_added"),
        *("mask_prompt", "mask_prompt_model_size", "refine_first_frame", "correction", "reverse"),
        *("both_ways", "disappears", "clear_and_remove", "conditioning_limit", "temporal_stride"),
    ],
)
def test_masks_of_meta_s_predictor(reference_dir: Path, name: str) -> None:
    """What Meta's predictor gave for these calls, on the same random weights: IoU of 0.999 and more."""
    scenario = Scenario(reference_dir / "reference" / "video", name)
    spec = scenario.spec
    predictor = SAM2VideoPredictor(scenario.model())
    state = predictor.init_state(
        scenario.frames,
        size=spec["size"],
        memory_dtype=spec["memory_dtype"],
        max_cond_frame_num=spec["config"].get("max_cond_frame_num"),
        memory_temporal_stride=spec["options"].get("memory_temporal_stride_for_eval", 1),
    )
    compared = 0
    for i, operation in enumerate(scenario.operations):
        frames, found = play(predictor, state, operation)
        expected = scenario.expected(i)
        if i in spec["skip"] or "low" not in expected:
            continue
        if "frames" in expected:
            assert frames == expected["frames"].tolist()
        masks = upscale(expected["low"], *spec["size"]) > 0
        masks = masks.reshape(found.shape)
        for ours, theirs in zip(
            found.reshape(-1, *spec["size"]) > 0, masks.reshape(-1, *spec["size"]), strict=True
        ):
            union = (ours | theirs).sum()
            assert union == 0 or (ours & theirs).sum() >= 0.999 * union
            compared += 1
        if "video_last" in expected:
            limit = 2e-4 if spec["memory_dtype"] == "float32" else 3e-3
            np.testing.assert_allclose(found[-1], expected["video_last"], rtol=0, atol=limit)
    assert compared


# --- options


def results(predictor: SAM2VideoPredictor, *prompts: dict[str, Any]) -> Iterator[Any]:
    state = predictor.init_state(CLIP, memory_dtype="float32")
    for i, prompt in enumerate(prompts):
        yield predictor.add_new_points_or_box(state, 0, i, **prompt)
    yield from predictor.propagate_in_video(state)


ONE = {"points": [CLICK], "labels": [1]}


def test_holes_are_filled_before_anything_sees_them() -> None:
    """As Meta has it: in what is yielded, and so in what is remembered of a prompted frame."""
    model = small_video_model()
    holes = {"points": [(28, 44)], "labels": [1]}  # of a mask with two of them
    raw, filled = (
        model.video(CLIP, memory_dtype="float32", fill_hole_area=area, size=(16, 16)) for area in (0, 8)
    )
    low, after = (one.prompt(0, 0, [(7, 11)]).logits[0] for one in (raw, filled))
    labels, areas = label_components(low <= 0)
    is_hole = (areas <= 8)[labels] & (low <= 0)
    assert is_hole.sum() == 3
    np.testing.assert_array_equal(after, np.where(is_hole, np.float32(0.1), low))
    plain, filling = (list(results(SAM2VideoPredictor(model, area), holes)) for area in (0, 8))
    np.testing.assert_array_equal(filling[0][2][0, 0], upscale(after[None], 64, 64)[0])
    list(raw.propagate(0, 0))
    list(filled.propagate(0, 0))
    memories = [one.output(0, 0).memory for one in (raw, filled)]  # type: ignore[union-attr]
    assert np.abs(memories[0] - memories[1]).max() > 1e-3
    assert np.abs(plain[2][2] - filling[2][2]).max() > 1e-4


def test_masks_are_kept_apart_if_that_is_wanted() -> None:
    prompts = ONE, {"points": [OTHER], "labels": [1]}
    model = small_video_model()
    free = list(results(SAM2VideoPredictor(model), *prompts))[1:]
    apart = list(results(SAM2VideoPredictor(model, non_overlap_masks=True), *prompts))[1:]
    assert any((masks > 0).sum(0).max() > 1 for _, _, masks in free)
    for (_, _, masks), (_, _, alone) in zip(free, apart, strict=True):
        wins = np.arange(len(masks))[:, None, None, None] == masks.argmax(0)
        np.testing.assert_array_equal(alone, np.where(wins, masks, np.minimum(masks, -10)))


def test_parts_of_the_video_s_size(predictor: SAM2VideoPredictor) -> None:
    found = []
    for unit, normalize in ((1, True), (64, False)):
        state = predictor.init_state(CLIP)
        arguments: dict[str, Any] = {"normalize_coords": normalize}
        points, box = np.array([[CLICK]]) / unit, np.array([8, 16, 32, 48]) / unit
        masks = predictor.add_new_points_or_box(state, 0, 1, points, [[1]], box=box, **arguments)[2]
        found.append(masks)
    np.testing.assert_array_equal(*found)


def test_what_is_remembered_of_prompted_frames_is_an_option() -> None:
    found = [
        list(results(SAM2VideoPredictor(small_video_model(), binarize_mask_from_pts_for_mem_enc=yes), ONE))
        for yes in (True, False)
    ]
    np.testing.assert_array_equal(found[0][1][2], found[1][1][2])  # the prompted frame
    assert np.abs(found[0][2][2] - found[1][2][2]).max() > 1e-3


# --- refusals


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "there is nothing to segment"),
        ({"points": [CLICK]}, "points and labels must be given together"),
        ({"labels": [1]}, "points and labels must be given together"),
        ({"points": [CLICK], "labels": [1, 1]}, "labels must be one for each of 1 points"),
        ({"points": [[CLICK], [CLICK]], "labels": [1, 1]}, "points must be a list of"),
        ({"points": [3, 3], "labels": [1]}, "points must be a list of"),
        ({"points": "a", "labels": [1]}, "points must be \\[n, 2\\]"),
        ({"points": [(3, 300)], "labels": [1]}, "points must lie in the photo"),
        ({"points": [(3, 3)], "labels": [1], "normalize_coords": False}, "points must lie in the photo"),
        (
            {"points": [(3, 3)], "labels": [1], "clear_old_points": 1},
            "clear_old_points must be True or False",
        ),
        ({"points": [(3, 3), (9, 9)], "labels": [2, 3], "box": (3, 3, 9, 9)}, "labels must be 1"),
        ({"box": (30, 30, 10, 40)}, "a box must be"),
        ({"box": (3, 3, 10)}, "a box must be"),
        ({"points": np.array(1), "labels": [1]}, "points must be a list of"),
        ({**ONE, "frame_idx": 6}, "frame must be from 0 to 5"),
        ({**ONE, "obj_id": None}, "object_id must be an int or text"),
        ({**ONE, "inference_state": {}}, "inference_state must be what init_state returns"),
    ],
)
def test_prompts_that_cannot_be_meant(
    predictor: SAM2VideoPredictor, prompt: dict[str, Any], message: str
) -> None:
    state = predictor.init_state(CLIP)
    with pytest.raises(ValueError, match=message):
        predictor.add_new_points_or_box(**{"inference_state": state, "frame_idx": 0, "obj_id": 1, **prompt})
    assert state["obj_ids"] == []


def test_calls_that_cannot_be_meant(predictor: SAM2VideoPredictor) -> None:
    state = predictor.init_state(CLIP)
    for ask, message in (
        (lambda: predictor.add_new_mask(state, 0, 1, None), "there is nothing to segment"),
        (lambda: predictor.add_new_mask(state, 0, 1, np.ones((1, 4, 4))), "mask must be one mask"),
        (lambda: predictor.remove_object(state, 1, strict=True), "object_id must be one of"),
        (lambda: predictor.clear_all_prompts_in_frame(state, 0, 1), "object_id must be one of"),
        (lambda: predictor.propagate_in_video(state), "there is nothing to track"),
        (lambda: predictor.init_state("film.mp4"), "there is no clip film.mp4"),
        (lambda: predictor.init_state(CLIP, 1), "offload_video_to_cpu must be True or False"),  # type: ignore[arg-type]
        (lambda: predictor.init_state([CLIP, CLIP]), "video_path must be one clip"),
        (lambda: predictor.init_state(CLIP, kep="all"), "unknown option 'kep'"),
        (lambda: predictor.init_state([np.zeros((4, 4, 7))]), "frame 0"),
        (lambda: SAM2VideoPredictor(3), "model must be a Sam2VideoModel"),  # type: ignore[arg-type]
        (lambda: SAM2VideoPredictor(predictor.model, -1), "fill_hole_area must be an area"),
        (lambda: SAM2VideoPredictor(predictor.model, 0, 1), "non_overlap_masks must be True or False"),  # type: ignore[arg-type]
        (lambda: SAM2VideoPredictor(predictor.model, 0, False, True), "clear_non_cond_mem_around_input must"),
        (
            lambda: SAM2VideoPredictor(predictor.model, add_all_frames_to_correct_as_cond=False),
            "add_all_frames_to_correct_as_cond must be True",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            ask()
    predictor.add_new_points_or_box(state, 0, 1, **ONE)
    for change in (predictor.remove_object, partial(predictor.clear_all_prompts_in_frame, frame_idx=0)):
        with pytest.raises(ValueError, match="need_output must be True or False"):
            change(state, obj_id=1, need_output=2)
    with pytest.raises(ValueError, match="strict must be True or False"):
        predictor.remove_object(state, 1, strict=2)  # type: ignore[arg-type]
    assert state.tracker.prompted_frames(1) == (0,)
    with pytest.raises(KeyError, match="there are num_frames, video_height"):
        _ = state["images"]
    assert len(state) == len(dict(state)) == 6


# --- loading


def test_predictors_are_loaded_by_name(tmp_path: Path) -> None:
    small_video_model().save_pretrained(tmp_path)
    built = build_sam2_video_predictor(None, tmp_path, device="cuda", vos_optimized=True)
    assert isinstance(built.model, Sam2VideoModel)
    assert built.fill_hole_area == 8
    assert built.binarize_mask_from_pts_for_mem_enc
    assert built.image_size == 64
    assert built.device == built.model.device
    plain = build_sam2_video_predictor_hf(str(tmp_path), apply_postprocessing=False, non_overlap_masks=True)
    assert plain.fill_hole_area == 0
    assert plain.non_overlap_masks
    assert not plain.binarize_mask_from_pts_for_mem_enc
    assert not plain.model.config.mask_decoder_config.dynamic_multimask_via_stability
    loaded = SAM2VideoPredictor.from_pretrained(tmp_path, fill_hole_area=3, dtype="bfloat16")
    assert loaded.fill_hole_area == 3
    assert loaded.model.dtype == "bfloat16"
    for options, message in (
        (
            {"hydra_overrides_extra": ["++model.fill_hole_area=0"]},
            "give a predictor's options by their names",
        ),
        ({"mode": "train"}, "mode must be"),
        ({"vos_optimized": 2}, "vos_optimized must be True or False"),
        ({"fil_hole_area": 2}, "unknown option 'fil_hole_area'"),
        ({"fill_hole_area": -2, "ckpt_path": "/nowhere"}, "fill_hole_area must be an area"),  # before loading
        ({"config_file": "sam2.1_hiera_t.yaml"}, "is not of the configuration"),
    ):
        with pytest.raises(ValueError, match=message):
            build_sam2_video_predictor(**{"ckpt_path": tmp_path, **options})
    with pytest.raises(ValueError, match="config_file or ckpt_path must be given"):
        build_sam2_video_predictor()
    assert smallest_video_config() == built.model.config
