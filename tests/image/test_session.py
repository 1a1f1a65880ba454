"""ImagePredictor: prompts on a photo encoded once; clicks, boxes, undo and redo."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_models import model_of, model_of_its_own, smallest_config
from tolerances import assert_close

from sam2_jax import Sam2Model
from sam2_jax.image import prompt_masks
from sam2_jax.image import session as predictor_module
from sam2_jax.image.session import ImagePredictor, Prediction
from sam2_jax.processing.rle import decode_rle, encode_rle

SIZE = 90, 120
PHOTO = np.random.default_rng(40).integers(0, 256, (*SIZE, 3), np.uint8)
BOX = 10, 20, 70, 80

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    return model_of(smallest_config())


@pytest.fixture
def session(model: Sam2Model) -> ImagePredictor:
    return ImagePredictor(model, PHOTO)


def assert_equal(actual: Prediction | None, expected: Prediction | None) -> None:
    """Assert that two predictions are the same, bit for bit."""
    assert actual is not None
    assert expected is not None
    np.testing.assert_array_equal(actual.logits, expected.logits)
    np.testing.assert_array_equal(actual.scores, expected.scores)
    assert actual.object_score == expected.object_score


def assert_alike(actual: Prediction, logits: Any, scores: Any, object_score: Any) -> None:
    assert_close("masks", "predictor against model", actual.logits, logits)
    assert_close("scores", "predictor against model", actual.scores, scores)
    assert_close("scores", "predictor against model", actual.object_score, object_score)


# --- predict


@pytest.mark.parametrize("padding", ["masked", "transformers"])
@pytest.mark.parametrize("multimask_output", [True, False])
def test_predict_equals_processor_and_model(model: Sam2Model, padding: str, multimask_output: bool) -> None:
    model = Sam2Model(model.config, model.params, padding=padding)
    points, labels = [(30, 40), (100, 5.5)], [1, 0]
    mask = (3 * np.random.default_rng(41).standard_normal((16, 16))).astype(np.float32)
    inputs = model.processor(PHOTO, input_points=[[points]], input_labels=[[labels]], input_boxes=[[BOX]])
    outputs = model(**inputs, input_masks=mask[None, None], multimask_output=multimask_output)
    found = ImagePredictor(model, PHOTO).predict(points, labels, BOX, mask, multimask_output)
    assert found.logits.shape == (3 if multimask_output else 1, 16, 16)
    scores = outputs.iou_scores[0, 0], outputs.object_score_logits[0, 0, 0]
    if padding == "masked":
        assert_alike(found, outputs.pred_masks[0, 0], *scores)
    else:  # a box as corners has the reference's pad token once more: compare with that
        corners = model.processor(
            original_sizes=[SIZE], input_points=[[[*points, BOX[:2], BOX[2:]]]], input_labels=[[[1, 0, 2, 3]]]
        )
        outputs = model(
            **corners,
            image_embeddings=outputs.image_embeddings,
            input_masks=mask[None, None],
            multimask_output=multimask_output,
        )
        scores = outputs.iou_scores[0, 0], outputs.object_score_logits[0, 0, 0]
        assert_alike(found, outputs.pred_masks[0, 0], *scores)


def test_predict_from_a_mask_alone(model: Sam2Model, session: ImagePredictor) -> None:
    mask = np.linspace(-5, 5, 256, dtype=np.float32).reshape(16, 16)
    outputs = model(image_embeddings=session.embeddings, input_masks=mask[None, None])
    found = session.predict(mask=mask)
    assert_alike(
        found, outputs.pred_masks[0, 0], outputs.iou_scores[0, 0], outputs.object_score_logits[0, 0, 0]
    )


def test_mask_prompts_are_clamped(session: ImagePredictor) -> None:
    mask = np.random.default_rng(42).normal(0, 40, (16, 16)).astype(np.float32)
    assert np.abs(mask).max() > 32
    given = mask.copy()
    found = session.predict([(5, 5)], mask=mask)
    np.testing.assert_array_equal(mask, given, "the caller's mask stays as it is")
    assert_equal(found, session.predict([(5, 5)], mask=np.clip(mask, -32, 32)))


def test_clicks_clamp_the_mask_before(session: ImagePredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    first = session.click(30, 40)
    plain = session.click(50, 60)
    session.undo()
    monkeypatch.setattr(prompt_masks, "MAX_LOGIT", 0.5)
    clamped = session.click(50, 60)
    assert (clamped.logits != plain.logits).any()
    mask = np.clip(first.logits[first.best], -0.5, 0.5)
    assert_equal(clamped, session.predict([(30, 40), (50, 60)], mask=mask, multimask_output=False))


def test_predict_leaves_the_session_alone(session: ImagePredictor) -> None:
    before = session.click(30, 40)
    session.predict([(5, 5)])
    session.predict_objects(boxes=[BOX])
    assert session.points == ((30, 40),)
    assert session.prediction is before


def test_objects_together_equal_each_alone(session: ImagePredictor) -> None:
    points, labels, boxes = [[(30, 40)], None, [(5, 5), (9, 9)]], [[1], [], [0, 1]], [None, BOX, BOX]
    together = session.predict_objects(points, labels, boxes, multimask_output=True)
    assert len(together) == 3
    for i, found in enumerate(together):
        alone = session.predict(points[i], labels[i], boxes[i])
        assert_alike(found, alone.logits, alone.scores, alone.object_score)


def test_objects_that_are_kept_apart_are_those_of_a_batch(model: Sam2Model) -> None:
    options, boxes = {"apply_non_overlapping_constraints": True}, [BOX, (0, 0, 120, 90), (40, 30, 110, 85)]
    found = ImagePredictor(model, PHOTO, **options).predict_objects(boxes=boxes)
    (batch,) = model.predict_batch([{"photo": PHOTO, "boxes": boxes}], progress=False, **options)
    assert batch.masks is not None
    apart = np.array([each.masks for each in found])
    np.testing.assert_array_equal(apart, batch.masks)
    assert apart.sum(axis=0).max() == 1
    assert [each.run_lengths() for each in found] == [
        [encode_rle(mask, compressed=True) for mask in masks] for masks in apart
    ]
    alone = [each.mask for each in ImagePredictor(model, PHOTO).predict_objects(boxes=boxes)]
    assert np.sum(alone, axis=0).max() > 1


def test_objects_with_masks_as_prompts(session: ImagePredictor) -> None:
    masks = np.random.default_rng(43).normal(0, 9, (2, 16, 16)).astype(np.float32)
    points, boxes = [[(30, 40)], []], [None, BOX]
    together = session.predict_objects(points, None, boxes, multimask_output=True, masks=masks)
    for i, found in enumerate(together):
        alone = session.predict(points[i], None, boxes[i], masks[i])
        assert_alike(found, alone.logits, alone.scores, alone.object_score)
    of_masks_alone = session.predict_objects(masks=list(masks), multimask_output=True)
    alone = session.predict(mask=masks[1])
    assert_alike(of_masks_alone[1], alone.logits, alone.scores, alone.object_score)


def test_masks_of_objects_that_cannot_be_meant_are_refused(session: ImagePredictor) -> None:
    mask = np.random.default_rng(43).normal(0, 9, (16, 16)).astype(np.float32)
    for masks, message in (
        ([mask], "must have one entry for each object; got 2 boxes, 1 masks"),
        ([mask, None], "object 1: mask must be logits .*; got None: each object must have a mask, or none"),
        ([mask, mask > 0], "object 1: mask must be logits"),
        ([mask, mask[:8]], "masks must be of one size"),
        (5, "masks must be a list with one entry for each object; got 5"),
    ):
        with pytest.raises(ValueError, match=message):
            session.predict_objects(boxes=[BOX, BOX], masks=masks)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (
            {"box": [BOX]},
            "box must be of one object; got an array of 2 dimensions: predict_objects",
        ),
        (
            {"box": np.array([BOX, BOX])},
            "predict_objects takes boxes of several, and sam2_jax.meta",
        ),
        ({"points": [[(1, 1)], [(2, 2)]]}, "points must be of one object; .* predict_objects takes points"),
        (
            {"mask": np.zeros((1, 16, 16))},
            r"Meta's \[1, height, width\] goes to sam2_jax.meta",
        ),
    ],
)
def test_meta_s_array_forms_are_told_where_to_go(
    session: ImagePredictor, prompts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        session.predict(**prompts)


def test_best_and_masks(model: Sam2Model, session: ImagePredictor) -> None:
    found = session.predict([(30, 40)])
    assert found.scores.dtype == found.logits.dtype == np.float32
    assert found.best == np.argmax(found.scores)
    assert found.masks.shape == (3, *SIZE)
    assert found.masks.dtype == bool
    np.testing.assert_array_equal(found.mask, found.masks[found.best])
    expected = model.processor.post_process_masks(found.logits[None, None], [SIZE])[0][0]
    np.testing.assert_array_equal(found.masks, expected)


@pytest.mark.parametrize("options", [{}, {"max_hole_area": 30.0}, {"mask_threshold": -2.0}])
def test_run_lengths_are_those_of_the_masks(model: Sam2Model, options: dict[str, float]) -> None:
    found = ImagePredictor(model, PHOTO, **options).predict([(30, 40)])
    drawn = found.run_lengths()
    assert drawn == [encode_rle(mask, compressed=True) for mask in found.masks]
    assert drawn == found.run_lengths()
    nothing = replace(found, logits=np.full_like(found.logits, -3))
    assert [decode_rle(rle).any() for rle in nothing.run_lengths()] == [False] * 3


def test_full_size_masks_are_made_once_and_only_when_asked_for(
    model: Sam2Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    post_process = model.processor.post_process_masks

    def counted(masks: Any, *args: Any, **options: Any) -> Any:
        made.append(np.shape(masks)[2])
        return post_process(masks, *args, **options)

    monkeypatch.setattr(model.processor, "post_process_masks", counted)
    session = ImagePredictor(model, PHOTO)
    made.clear()
    first = session.click(30, 40)
    session.click(50, 50)
    assert made == []
    assert first.mask is first.mask
    assert made == [1], "the best mask alone"
    assert first.masks is first.masks
    assert made == [1, 3]


def test_post_processing_options_are_passed_on(model: Sam2Model) -> None:
    options = {"max_hole_area": 30.0, "max_sprinkle_area": 20.0, "mask_threshold": 0.5}
    found = ImagePredictor(model, PHOTO, **options).predict([(30, 40)])
    plain = model.processor.post_process_masks(found.logits[None, None], [SIZE])[0][0]
    expected = model.processor.post_process_masks(found.logits[None, None], [SIZE], **options)[0][0]
    assert (plain != expected).any()
    np.testing.assert_array_equal(found.masks, expected)


@pytest.mark.parametrize("kind", ["path", "PIL", "grey"])
def test_photos_of_every_kind(model: Sam2Model, tmp_path: Path, kind: str) -> None:
    image = Image.fromarray(PHOTO[..., 0] if kind == "grey" else PHOTO)
    image.save(tmp_path / "photo.png")
    photo = {"path": tmp_path / "photo.png", "PIL": image, "grey": PHOTO[..., 0]}[kind]
    expected = model.get_image_embeddings(model.processor(images=photo)["pixel_values"])
    session = ImagePredictor(model, photo)
    assert session.size == SIZE
    for ours, theirs in zip(session.embeddings, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# --- editing


def test_clicks_refine_the_best_mask_before(session: ImagePredictor) -> None:
    first = session.click(30, 40)
    assert len(first.logits) == 3
    assert_equal(first, session.predict([(30, 40)]))
    second = session.click(100, 5, positive=False)
    assert len(second.logits) == 1
    points, labels = [(30, 40), (100, 5)], [1, 0]
    expected = session.predict(points, labels, mask=first.logits[first.best], multimask_output=False)
    assert_equal(second, expected)
    third = session.click(60, 60)
    points, labels = [*points, (60, 60)], [*labels, 1]
    assert_equal(third, session.predict(points, labels, mask=second.logits[0], multimask_output=False))
    assert (session.points, session.labels) == (tuple(points), tuple(labels))
    assert session.prediction is third


def test_a_first_negative_click_gives_one_mask(session: ImagePredictor) -> None:
    assert_equal(session.click(3, 4, positive=False), session.predict([(3, 4)], [0], multimask_output=False))


def test_a_box_starts_from_the_prompts_and_not_from_the_mask(session: ImagePredictor) -> None:
    session.click(30, 40)
    found = session.set_box(*BOX)
    assert_equal(found, session.predict([(30, 40)], box=BOX, multimask_output=False))
    again = session.set_box(0, 0, 50, 50)
    assert session.box == (0, 0, 50, 50)
    assert_equal(again, session.predict([(30, 40)], box=(0, 0, 50, 50), multimask_output=False))
    refined = session.click(9, 9)
    expected = session.predict(
        [(30, 40), (9, 9)], box=(0, 0, 50, 50), mask=again.logits[0], multimask_output=False
    )
    assert_equal(refined, expected)


def test_undo_and_redo_restore_without_the_network(
    session: ImagePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits: list[Callable[[], Prediction]] = [
        lambda: session.click(30, 40),
        lambda: session.set_box(*BOX),
        lambda: session.click(80, 80, positive=False),
    ]
    states = []
    for edit in edits:
        edit()
        states.append((session.points, session.labels, session.box, session.prediction))
    with monkeypatch.context() as patch:
        patch.setattr(Sam2Model, "__call__", lambda *_, **__: pytest.fail("the network ran"))
        for expected in states[1::-1]:
            found = session.undo()
            assert found is session.prediction
            assert (session.points, session.labels, session.box) == expected[:3]
            assert_equal(found, expected[3])
        assert session.can_undo
        assert session.undo() is None
        assert (session.points, session.labels, session.box) == ((), (), None)
        assert not session.can_undo
        assert session.undo() is None
        for expected in states:
            assert session.can_redo
            assert_equal(session.redo(), expected[3])
        assert not session.can_redo
        assert_equal(session.redo(), states[-1][3])


def test_undo_then_the_same_click_is_identical_and_ends_redo(session: ImagePredictor) -> None:
    session.click(30, 40)
    second = session.click(50, 60)
    session.click(9, 9)
    session.undo()
    session.undo()
    assert_equal(session.click(50, 60), second)
    assert not session.can_redo
    session.undo()
    session.undo()
    assert len(session.click(50, 60).logits) == 3, "it is the first click now"


def test_reset_begins_the_next_object(session: ImagePredictor) -> None:
    first = session.click(30, 40)
    session.set_box(*BOX)
    session.reset()
    assert (session.points, session.labels, session.box, session.prediction) == ((), (), None, None)
    assert not session.can_undo
    assert not session.can_redo
    assert_equal(session.click(30, 40), first)


def test_the_history_is_bounded_and_keeps_no_full_size_masks(
    session: ImagePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor_module, "HISTORY", 3)
    for i in range(6):
        assert session.click(10 * i, 10).masks.shape[1:] == SIZE
    kept = [step.prediction for step in session._history]
    assert len(kept) == 4, "three edits to undo, and what was before them"
    assert not any("masks" in prediction.__dict__ for prediction in kept if prediction)
    for _ in range(3):
        assert session.can_undo
        session.undo()
    assert not session.can_undo
    assert session.points == ((0, 10), (10, 10), (20, 10))


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s.click(121, 5),
        lambda s: s.click(5, -1),
        lambda s: s.click(float("nan"), 5),
        lambda s: s.click("a", 5),
        lambda s: s.set_box(50, 50, 20, 60),
        lambda s: s.set_box(130, 0, 140, 10),
        lambda s: s.set_box(0, 0, float("inf"), 10),
    ],
)
def test_bad_edits_change_nothing(session: ImagePredictor, edit: Callable[[ImagePredictor], Any]) -> None:
    session.click(30, 40)
    before = session.click(50, 60)
    session.click(9, 9)
    session.undo()
    now = session.prediction
    with pytest.raises(ValueError, match="120 x 90|finite|numbers|x0 < x1"):
        edit(session)
    assert session.points == ((30, 40), (50, 60))
    assert session.prediction is now
    assert session.can_redo
    assert_equal(now, before)


def test_a_box_may_be_one_sequence_and_a_session_says_what_it_is(session: ImagePredictor) -> None:
    assert repr(session) == "ImagePredictor(a photo of 120 x 90, 0 points)"
    expected = session.set_box(*BOX)
    for box in (BOX, list(BOX), np.array(BOX, np.float32)):
        assert_equal(session.set_box(box), expected)
    assert repr(session) == "ImagePredictor(a photo of 120 x 90, 0 points, a box)"
    for wrong in [(1, 2, 3), (), ("a box",)]:
        with pytest.raises(ValueError, match="a box must be"):
            session.set_box(*wrong)


def test_an_interrupted_click_changes_nothing(
    session: ImagePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = session.click(30, 40)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sam2Model, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.click(50, 60)
    assert session.prediction is before
    assert session.points == ((30, 40),)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({}, "nothing to segment: give points, a box or a mask"),
        ({"labels": [1]}, "labels must be one for each of 0 points"),
        ({"points": [(200, 5)]}, "the photo, which is 120 x 90 pixels"),
        ({"mask": np.zeros((3, 16, 16), np.float32)}, r"mask must be logits.*got shape \(3, 16, 16\).*best"),
        ({"mask": np.zeros((16, 16), bool)}, r"type bool.*20.0 \* mask - 10"),
        ({"mask": np.full((16, 16), np.nan, np.float32)}, "mask must be finite"),
        ({"mask": np.eye(16, dtype=np.float32)}, "got 0 and 1: .* of a binary mask, 20.0"),
        ({"mask": [[1.0], [1.0, 2.0]]}, "mask must be logits"),
        ({"mask": "mask.png"}, "mask must be logits"),
    ],
)
def test_wrong_prompts_are_refused(session: ImagePredictor, prompts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        session.predict(**prompts)


def test_wrong_photos_and_options_are_refused(model: Sam2Model) -> None:
    with pytest.raises(ValueError, match="photo must be one picture; got 2"):
        ImagePredictor(model, [PHOTO, PHOTO])
    with pytest.raises(ValueError, match="there is no picture"):
        ImagePredictor(model, "missing.png")
    with pytest.raises(TypeError, match="holes"):
        ImagePredictor(model, PHOTO, holes=3)
    with pytest.raises(ValueError, match="max_hole_area"):
        ImagePredictor(model, PHOTO, max_hole_area=-1)


def test_a_session_compiles_the_decoder_three_times_at_most(traces: list[str]) -> None:
    model = model_of_its_own()
    traces.clear()  # building a model traces it too
    session = ImagePredictor(model, PHOTO)
    session.click(30, 40)
    session.click(50, 60)
    assert traces.count("decode_masks") == 2
    for i in range(8):
        session.click(10 * i, 5, positive=bool(i % 2))
    session.set_box(*BOX)
    session.undo()
    session.click(3, 3)
    session.reset()
    session.set_box(*BOX)
    session.click(3, 3)
    assert traces.count("decode_masks") == 3, "a first click, a box, and a click that refines"


# --- real weights


@pytest.mark.slow
@pytest.mark.usefixtures("pixels_encoded_once")
def test_a_session_on_a_real_photo_equals_the_reference(reference_dir: Path, tiny_model: Sam2Model) -> None:
    session = ImagePredictor(tiny_model, reference_dir / "images" / "truck.jpg")
    negative = {"labels": [1, 0], "multimask_output": False}
    results = {
        "truck_one_point": session.click(500, 375),
        "truck_positive_negative": session.predict([(500, 375), (1125, 625)], **negative),
        "truck_box": session.predict(box=(75, 275, 1725, 850)),
        "truck_box_and_point": session.predict(
            [(575, 750)], [0], (425, 600, 700, 875), multimask_output=False
        ),
    }
    for case, found in results.items():
        expected = np.load(reference_dir / "reference" / f"{case}.npz")
        assert_close("masks", "session on a real photo", found.logits, expected["pred_masks"][0, 0])
        assert_close("scores", "session on a real photo", found.scores, expected["iou_scores"][0, 0])
        bits = np.unpackbits(expected["mask_bits_0"], axis=-1, count=session.size[1]).astype(bool)
        for ours, theirs in zip(found.masks, bits[0], strict=True):
            assert (ours & theirs).sum() >= 0.999 * (ours | theirs).sum()
    # The reference refines without clamping: on this photo, where logits reach -50, that moves the outline.
    refined = session.click(1125, 625).mask
    expected = np.load(reference_dir / "reference" / "truck_refine.npz")
    theirs = np.unpackbits(expected["mask_bits_0"], axis=-1, count=session.size[1]).astype(bool)[0, 0]
    assert (refined & theirs).sum() >= 0.99 * (refined | theirs).sum()
