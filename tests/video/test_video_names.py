"""transformers' names: what waits in a session until when, sessions in all forms, saved processors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_video import small_clip, small_video_model

import sam2_jax
from sam2_jax import (
    Sam2ImageProcessor,
    Sam2Model,
    Sam2VideoConfig,
    Sam2VideoInferenceSession,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoSegmentationOutput,
    Sam2VideoVideoProcessor,
)

CLIP = small_clip(6)
SIZE = [[64, 64]]
CLICK, OTHER = (12, 30), (40, 40)

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")


@pytest.fixture(scope="module")
def model() -> Sam2VideoModel:
    return small_video_model()


@pytest.fixture(scope="module")
def processor(model: Sam2VideoModel) -> Sam2VideoProcessor:
    found = model.processor
    assert isinstance(found, Sam2VideoProcessor)
    return found


def begin(processor: Sam2VideoProcessor, **options: Any) -> Sam2VideoInferenceSession:
    return processor.init_video_session(CLIP, memory_dtype="float32", **options)


def click(
    processor: Sam2VideoProcessor,
    session: Any,
    t: int,
    id_: Any,
    *points: Any,
    clear: bool = True,
    label: int = 1,
) -> Any:
    return processor.add_inputs_to_inference_session(
        session, t, id_, [[list(points)]], [[[label] * len(points)]], clear_old_inputs=clear
    )


def logits(model: Sam2VideoModel, session: Any, **run: Any) -> np.ndarray:
    outputs = list(model.propagate_in_video_iterator(session, **run))
    assert all(isinstance(output, Sam2VideoSegmentationOutput) for output in outputs)
    return np.array([output.pred_masks[:, 0] for output in outputs])


# --- the same as a session of our own


@pytest.mark.slow
def test_what_the_session_of_our_own_gives(model: Sam2VideoModel, processor: Sam2VideoProcessor) -> None:
    """Clicks, a box, a mask, a correction and both directions: one engine, and no rule beside it."""
    own = model.video(CLIP, memory_dtype="float32")
    session = begin(processor)
    mask = np.zeros((30, 30), np.uint8)
    mask[5:20, 5:20] = 255
    own.prompt(2, 1, [CLICK], [1])
    own.prompt(2, "b", box=(8, 20, 30, 41))
    own.prompt(2, 7, mask=mask)
    click(processor, session, 2, 1, CLICK)
    processor.add_inputs_to_inference_session(session, 2, "b", input_boxes=[[[8, 20, 30, 41]]])
    processor.add_inputs_to_inference_session(session, 2, [7], input_masks=[mask[None, None]])
    assert session.obj_ids == [1, "b", 7]
    assert [session.obj_id_to_idx(id_) for id_ in session.obj_ids] == [0, 1, 2]
    assert session.obj_idx_to_id(1) == "b"
    for reverse in (False, True):
        ours = [each.logits for each in own.propagate(2, reverse=reverse)]
        np.testing.assert_array_equal(ours, logits(model, session, start_frame_idx=2, reverse=reverse))
    own.prompt(4, 1, [OTHER], [0], clear_old=False)
    click(processor, session, 4, 1, OTHER, clear=False, label=0)
    ours = [each.logits for each in own.propagate(3, 1)]
    found = logits(model, session, start_frame_idx=3, max_frame_num_to_track=1)
    np.testing.assert_array_equal(ours, found)


def test_a_frame_at_a_time_is_the_iterator(model: Sam2VideoModel, processor: Sam2VideoProcessor) -> None:
    one, other = begin(processor), begin(processor)
    for session in (one, other):
        click(processor, session, 0, 1, CLICK)
    by_hand = [model(one, frame_idx=t).pred_masks[:, 0] for t in range(len(CLIP))]
    np.testing.assert_array_equal(by_hand, logits(model, other, show_progress_bar=True))


def test_the_output_has_transformers_manners(model: Sam2VideoModel, processor: Sam2VideoProcessor) -> None:
    session = begin(processor)
    click(processor, session, 0, 1, CLICK)
    output = model(session, 0)
    assert list(output) == ["object_ids", "pred_masks", "object_score_logits", "frame_idx"]
    assert output["frame_idx"] == output[3] == output.frame_idx == 0
    assert output.object_ids == [1]
    assert output.pred_masks.shape == (1, 1, 16, 16)
    assert output.object_score_logits.shape == (1, 1)
    assert {output.pred_masks.dtype, output.object_score_logits.dtype} == {np.dtype(np.float32)}


def test_pictures_and_prompts_are_encoded_as_by_the_image_model(
    model: Sam2VideoModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    image = Sam2Model.from_pretrained(tmp_path)
    pixels = model.processor(images=CLIP[0]).pixel_values
    for one, other in zip(
        model.get_image_features(pixels).fpn_hidden_states,
        image.get_image_features(pixels).fpn_hidden_states,
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(
        model.get_image_embeddings(pixels), image.get_image_embeddings(pixels), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        model.get_image_wide_positional_embeddings(), image.get_image_wide_positional_embeddings()
    )
    for one, other in zip(
        model.get_prompt_embeddings([[[[9.0, 9.0]]]], [[[1]]]),
        image.get_prompt_embeddings([[[[9.0, 9.0]]]], [[[1]]]),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


# --- when prompts are run


def test_clicks_that_wait_are_taken_together(model: Sam2VideoModel, processor: Sam2VideoProcessor) -> None:
    together, in_turn, asked = begin(processor), begin(processor), begin(processor)
    click(processor, together, 0, 1, CLICK, OTHER)
    click(processor, in_turn, 0, 1, CLICK)
    click(processor, in_turn, 0, 1, OTHER, clear=False)
    np.testing.assert_array_equal(model(together, 0).pred_masks, model(in_turn, 0).pred_masks)
    click(processor, asked, 0, 1, CLICK)
    model(asked, 0)
    click(processor, asked, 0, 1, OTHER, clear=False)  # refines a mask that was seen
    assert np.abs(model(asked, 0).pred_masks - model(together, 0).pred_masks).max() > 1e-3


def test_prompts_that_nobody_saw_are_taken_back(model: Sam2VideoModel, processor: Sam2VideoProcessor) -> None:
    one, other = begin(processor), begin(processor)
    click(processor, one, 0, 1, OTHER, (3, 3))
    processor.process_new_mask_for_video_frame(one, 0, 1, CLIP[0, ..., 0] > 200)
    for session in (one, other):
        click(processor, session, 0, 1, CLICK)
    np.testing.assert_array_equal(model(one, 0).pred_masks, model(other, 0).pred_masks)


def test_points_refine_a_mask(model: Sam2VideoModel, processor: Sam2VideoProcessor) -> None:
    at_once, asked = begin(processor), begin(processor)
    for session in (at_once, asked):
        processor.add_inputs_to_inference_session(session, 0, 1, input_masks=CLIP[0, ..., 0] > 200)
        if session is asked:
            model(session, 0)
        processor.process_new_points_or_boxes_for_video_frame(
            session, 0, 1, [[[CLICK]]], [[[1]]], clear_old_inputs=False
        )
    np.testing.assert_array_equal(model(at_once, 0).pred_masks, model(asked, 0).pred_masks)


def test_looking_at_a_prompted_frame_is_no_tracking(
    model: Sam2VideoModel, processor: Sam2VideoProcessor
) -> None:
    """A click there refines it as in one sitting, however often it was looked at."""
    found = []
    for is_seen in (False, True):
        session = begin(processor)
        click(processor, session, 0, 1, CLICK)
        click(processor, session, 3, 1, OTHER)
        for t in (0, 3) * (1 + is_seen):
            model(session, t)
        click(processor, session, 3, 1, CLICK, clear=False, label=0)
        found.append(model(session, 3).pred_masks)
    np.testing.assert_array_equal(*found)


def test_a_neighbour_that_is_tracked_on_a_frame_makes_no_difference_to_one_that_is_prompted_there(
    model: Sam2VideoModel, processor: Sam2VideoProcessor
) -> None:
    """A frame that was looked at for both is not passed by the one whose prompts say what is there."""
    found = []
    for ids in ([1], [1, 2]):
        session = begin(processor)
        for id_ in ids:
            click(processor, session, 0, id_, CLICK)
        click(processor, session, 3, 1, OTHER)
        for t in range(4):
            model(session, t)
        click(processor, session, 3, 1, CLICK, clear=False, label=0)
        found.append(model(session, 3).pred_masks[0])
    np.testing.assert_allclose(*found, rtol=0, atol=1e-4)


def test_a_prompt_during_a_run_is_seen(model: Sam2VideoModel, processor: Sam2VideoProcessor) -> None:
    session = begin(processor)
    click(processor, session, 0, 1, CLICK)
    ids = []
    for output in model.propagate_in_video_iterator(session):
        ids.append(output.object_ids)
        if output.frame_idx == 2:
            click(processor, session, 4, 2, OTHER)
    assert ids == [[1]] * 3 + [[1, 2]] * 3


def test_sizes_of_prompts_are_those_of_the_clip(model: Sam2VideoModel, processor: Sam2VideoProcessor) -> None:
    """A clip of another size, and a size that is said: prompts are scaled to what the network sees."""
    large = [np.asarray(Image.fromarray(frame).resize((256, 128))) for frame in CLIP]
    session = processor.init_video_session(large)
    assert (session.video_height, session.video_width) == (128, 256)
    click(processor, session, 0, 1, (4 * CLICK[0], 2 * CLICK[1]))
    found = model(session, 0)
    full = processor.post_process_masks([found.pred_masks], [(128, 256)])[0]
    assert full.shape == (1, 1, 128, 256)
    tracker = model.video(large)
    np.testing.assert_array_equal(
        found.pred_masks[:, 0], tracker.prompt(0, 1, [(4 * CLICK[0], 2 * CLICK[1])]).logits
    )
    corner = 0, 0, 3, 1.5  # less than a pixel to the network
    processor.add_inputs_to_inference_session(session, 0, 2, input_boxes=[[corner]])
    np.testing.assert_array_equal(
        model(session, 0).pred_masks[1:, 0], tracker.prompt(0, 2, box=corner).logits
    )
    other = processor.init_video_session(large)
    processor.add_inputs_to_inference_session(
        other, 0, 1, [[[[CLICK[0] / 64, CLICK[1] / 32]]]], [[[1]]], original_size=np.array([2, 1])
    )
    assert (other.video_height, other.video_width) == (2, 1)
    np.testing.assert_allclose(model(other, 0).pred_masks, found.pred_masks, atol=1e-4)


# --- sessions


@pytest.mark.parametrize("form", ["list", "batch", "list of a clip", "pictures", "channels first"])
def test_forms_of_a_clip(model: Sam2VideoModel, processor: Sam2VideoProcessor, form: str) -> None:
    video: Any = {
        "list": list(CLIP),
        "batch": CLIP[None],
        "list of a clip": [list(CLIP)],
        "pictures": [Image.fromarray(frame) for frame in CLIP],
        "channels first": CLIP.transpose(0, 3, 1, 2),
    }[form]
    sessions = begin(processor), processor.init_video_session(video, memory_dtype="float32")
    for session in sessions:
        click(processor, session, 0, 1, CLICK)
    np.testing.assert_array_equal(*(model(session, 0).pred_masks for session in sessions))


def test_frames_that_were_prepared(model: Sam2VideoModel, processor: Sam2VideoProcessor) -> None:
    """transformers' own way into a session, without its processor's help."""
    inputs = processor.video_processor(CLIP)
    assert inputs.pixel_values_videos.shape == (1, 6, 64, 64, 3)
    assert inputs.pixel_values_videos.dtype == np.float32
    assert inputs.original_sizes.tolist() == inputs.reshaped_input_sizes.tolist() == SIZE
    one = Sam2VideoInferenceSession(inputs.pixel_values_videos[0], *inputs.original_sizes[0])
    other = processor.init_video_session(CLIP)
    for session in (one, other):
        click(processor, session, 0, 1, CLICK)
    np.testing.assert_array_equal(logits(model, one), logits(model, other))


def test_frames_of_a_stream(model: Sam2VideoModel, processor: Sam2VideoProcessor) -> None:
    """They may come before a model and before any object, and all be seen again if they are kept."""
    clip = begin(processor, pointer_span="stream")
    stream = processor.init_video_session(memory_dtype="float32", keep="all")
    assert stream.num_frames is None
    pixels = processor(images=list(CLIP)).pixel_values
    assert stream.add_new_frame(pixels[:1]) == 0
    assert model(stream, frame=pixels[1], frame_idx=1).pred_masks.shape == (0, 1, 16, 16)
    processor.add_inputs_to_inference_session(stream, 0, 1, [[[CLICK]]], [[[1]]], original_size=(64, 64))
    for t in range(2, len(CLIP)):
        model(stream, frame=pixels[t])
    click(processor, clip, 0, 1, CLICK)
    np.testing.assert_allclose(logits(model, stream), logits(model, clip), rtol=0, atol=1e-4)


def test_resetting_forgets_objects_and_what_waits(
    model: Sam2VideoModel, processor: Sam2VideoProcessor
) -> None:
    session, fresh = begin(processor), begin(processor)
    for reset in (session.reset_tracking_data, session.reset_inference_session):
        click(processor, session, 0, 1, OTHER)
        logits(model, session)
        click(processor, session, 5, 2, OTHER)
        assert session.get_obj_num() == 2
        reset()
        assert session.obj_ids == []
        assert session.num_frames == 6
    for each in (session, fresh):
        click(processor, each, 0, 1, CLICK)
    np.testing.assert_array_equal(logits(model, session), logits(model, fresh))


# --- refusals


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "there is nothing to segment: give points, boxes or masks"),
        ({"input_labels": [[[1]]]}, "there is nothing to segment"),
        (
            {"input_points": [[[[3, 3]]]], "frame_idx": 6},
            "frame_idx must be from 0 to 5, the clip's last; got 6",
        ),
        ({"input_points": [[[[3, 3]]]], "frame_idx": -1}, "frame_idx must be from 0 to 5"),
        ({"input_points": [[[[3, 3]]]], "frame_idx": None}, "frame_idx must be a whole number"),
        ({"input_points": [[[[3, 3]]]], "obj_ids": 1.5}, "obj_ids must be an int or text; got 1.5"),
        ({"input_points": [[[[3, 3]]]], "obj_ids": []}, "obj_ids must be an id for each object"),
        ({"input_points": [[[[3, 3]]] * 2], "obj_ids": [1, 1]}, "obj_ids must be .*no two alike"),
        (
            {"input_points": [[[[3, 3]]]], "obj_ids": [1, 2]},
            "prompts must be for as many objects as obj_ids, 2; got 1",
        ),
        ({"input_points": [[[3, 3]]]}, "input_points must be nested 4 deep"),
        ({"input_points": [[[[3, 3]]]] * 2}, "input_points"),
        ({"input_points": [[[[3, 300]]]]}, "object 0: points must lie in the photo, which is 64 x 64"),
        ({"input_points": [[[[3, 3]]]], "input_labels": [[[1, 1]]]}, "input_labels"),
        (
            {"input_points": [[[[3, 3]]]], "input_labels": [[[2]]]},
            "object 0: labels must be 1 .*give a box as a box",
        ),
        ({"input_points": [[[]]]}, "object 0: there is nothing to segment|input_points"),
        ({"input_boxes": [[[30, 30, 10, 40]]]}, "box"),
        ({"input_boxes": [[[900, 30, 990, 40]]]}, "box"),
        ({"input_masks": np.ones((4, 4)), "input_points": [[[[3, 3]]]]}, "input_masks must be given alone"),
        ({"input_masks": np.full((4, 4), -7.5)}, "logits > 0 makes a mask"),
        ({"input_masks": [np.ones((4, 4))] * 2}, "input_masks must be a list of 1 masks"),
        ({"input_masks": np.ones((2, 4, 4))}, "mask must be one mask"),
        ({"input_masks": "mask"}, "mask must be one mask"),
        ({"input_points": [[[[3, 3]]]], "clear_old_inputs": None}, "clear_old_inputs must be True or False"),
        ({"input_points": [[[[3, 3]]]], "original_size": 64}, "original_size must be"),
        ({"input_points": [[[[3, 3]]]], "inference_session": "a"}, "inference_session must be a Sam2Video"),
    ],
)
def test_inputs_that_cannot_be_meant(
    model: Sam2VideoModel, processor: Sam2VideoProcessor, inputs: dict[str, Any], message: str
) -> None:
    session = begin(processor)
    with pytest.raises(ValueError, match=message):
        processor.add_inputs_to_inference_session(
            **{"inference_session": session, "frame_idx": 0, "obj_ids": 1, **inputs}
        )
    assert session.obj_ids == []
    with pytest.raises(ValueError, match="there is nothing to track"):
        model.propagate_in_video_iterator(session)


def test_calls_that_cannot_be_meant(model: Sam2VideoModel, processor: Sam2VideoProcessor) -> None:
    session = begin(processor)
    for arguments, message in (
        ({}, "frame_idx must be given, or frame"),
        ({"frame_idx": 6}, "frame must be from 0 to 5"),
        ({"frame_idx": 0, "reverse": None}, "reverse must be True or False"),
        ({"frame_idx": 0, "run_mem_encoder": 2}, "run_mem_encoder must be True or False"),
        ({"frame": np.zeros((64, 64, 3), np.float32)}, "frames cannot be added to a clip of 6"),
    ):
        with pytest.raises(ValueError, match=message):
            model(session, **arguments)
    with pytest.raises(ValueError, match="inference_session must be a Sam2VideoInferenceSession"):
        model(CLIP, 0)  # type: ignore[arg-type]
    click(processor, session, 0, 1, CLICK)
    with pytest.raises(ValueError, match="start must be from 0 to 5"):
        model.propagate_in_video_iterator(session, 6)
    other = Sam2VideoModel(model.config, model.params)
    with pytest.raises(ValueError, match="must be used with one model"):
        other(session, 0)
    for ask, message in (
        (lambda: session.obj_id_to_idx(9), "obj_id must be one of \\[1\\]; got 9"),
        (lambda: session.obj_idx_to_id(1), "obj_idx must be a whole number from 0 to 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ask()


def test_frames_that_are_cut_are_refused(model: Sam2VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts and masks would be of another place."""
    cutting = Sam2ImageProcessor(size=96, do_center_crop=True, crop_size=64)
    for processor in (
        Sam2VideoProcessor(cutting),
        Sam2VideoProcessor(Sam2ImageProcessor(size=64), Sam2VideoVideoProcessor.of(cutting)),
    ):
        with pytest.raises(ValueError, match="cannot be tracked with do_center_crop"):
            click(processor, begin(processor), 0, 1, CLICK)
    other = Sam2VideoModel(model.config, model.params)
    monkeypatch.setattr(other.processor, "image_processor", cutting)
    with pytest.raises(ValueError, match="cannot be tracked with do_center_crop"):
        other.video(CLIP)


def test_frames_of_a_stream_that_cannot_be_meant(
    model: Sam2VideoModel, processor: Sam2VideoProcessor
) -> None:
    stream = processor.init_video_session()
    with pytest.raises(ValueError, match="original_size must be given"):
        click(processor, stream, 0, 1, CLICK)
    for frame, message in (
        (CLIP[0], "frame must be pixels"),
        (np.zeros((64, 64)), "frame must be pixels .*shape \\(64, 64\\)"),
        (np.zeros((32, 64, 3), np.float32), "pixel_values must be of shape"),
        (np.full((64, 64, 3), np.nan, np.float32), "frame 0: pixel_values"),
    ):
        with pytest.raises(ValueError, match=message):
            model(stream, frame=frame)
    assert stream.num_frames is None
    with pytest.raises(ValueError, match="frame_idx of a new frame must be the next, 0; got 3"):
        model(stream, frame=np.zeros((64, 64, 3), np.float32), frame_idx=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"video": "film.mp4"}, "video must be a list of pictures.*sam2_jax.open_clip"),
        ({"video": 3}, "video must be a list of pictures"),
        ({"video": []}, "video must be a list of pictures"),
        ({"video": iter(CLIP)}, "video must be a list of pictures"),
        ({"video": CLIP[0]}, "video must be a list of pictures"),
        ({"video": [CLIP, CLIP]}, "video must be one clip; got 2"),
        ({"video": [[]]}, "video must have pictures"),
        ({"video": ["no such picture.png"]}, "there is no picture"),
        ({"size": (3, 3)}, "unknown option 'size'"),
        ({"kep": "all"}, "unknown option 'kep' of a session on a clip: did you mean keep"),
        ({"keep": "some"}, "keep must be"),
    ],
)
def test_sessions_that_cannot_be_meant(
    processor: Sam2VideoProcessor, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        processor.init_video_session(**arguments)


def test_a_broken_frame_is_named(model: Sam2VideoModel, processor: Sam2VideoProcessor) -> None:
    session = processor.init_video_session([CLIP[0], np.zeros((64, 64, 7), np.uint8)])
    click(processor, session, 0, 1, CLICK)
    with pytest.raises(ValueError, match="frame 1 could not be read: an image must be"):
        logits(model, session)
    click(processor, session, 1, 2, CLICK)
    for _ in range(2):  # the prompt waits on
        with pytest.raises(ValueError, match="frame 1 could not be read: an image must be"):
            model(session, 1)
        assert session.obj_ids == [1, 2]


# --- processors in files


def test_processors_come_back_as_they_were_saved(tmp_path: Path) -> None:
    made = Sam2VideoProcessor(
        Sam2ImageProcessor(size=96), Sam2VideoVideoProcessor(size=128, resample=3), point_pad_value=-7
    )
    made.save_pretrained(tmp_path / "both")
    again = Sam2VideoProcessor.from_pretrained(tmp_path / "both")
    assert again.to_dict() == made.to_dict()
    assert again.image_processor == made.image_processor
    assert again.video_processor == made.video_processor
    assert Sam2VideoVideoProcessor.from_pretrained(tmp_path / "both") == made.video_processor
    made.video_processor.save_pretrained(tmp_path / "alone")
    assert Sam2VideoVideoProcessor.from_pretrained(tmp_path / "alone").resample == 3
    changed = Sam2VideoProcessor.from_pretrained(tmp_path / "both", target_size=64)
    assert changed.image_processor.size == changed.video_processor.size == {"height": 64, "width": 64}
    assert (
        Sam2VideoProcessor.from_pretrained(
            pretrained_model_name_or_path=tmp_path / "both", do_normalize=False
        ).video_processor.do_normalize
        is False
    )


def test_a_model_brings_its_processor(model: Sam2VideoModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    found = Sam2VideoProcessor.from_pretrained(tmp_path)
    assert found.image_processor == model.processor.image_processor
    assert type(Sam2VideoModel.from_pretrained(tmp_path).processor) is Sam2VideoProcessor
    assert Sam2VideoProcessor().video_processor.size == {"height": 1024, "width": 1024}


def test_processors_that_cannot_be_meant(tmp_path: Path) -> None:
    for make, message in (
        (lambda: Sam2VideoProcessor(video_processor=3), "video_processor must be a Sam2VideoVideoProcessor"),  # type: ignore[arg-type]
        (lambda: Sam2VideoVideoProcessor(sise=3), "unknown option 'sise'"),
        (lambda: Sam2VideoVideoProcessor()(CLIP[:0]), "videos must be a list"),
        (lambda: Sam2VideoVideoProcessor(size=8)([CLIP, CLIP[:2]]), "videos must be of one length"),
        (
            lambda: Sam2VideoVideoProcessor(size=8)([CLIP[0], CLIP[0, :9]]),
            "videos must have frames of one size",
        ),
        (lambda: Sam2VideoProcessor.from_pretrained(tmp_path, sise=3), "unknown option 'sise'"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(AttributeError, match="no attribute 'sise'"):
        _ = Sam2VideoVideoProcessor().sise
    (tmp_path / "video_preprocessor_config.json").write_text('{"do_pad": true}')
    with pytest.raises(ValueError, match="video_preprocessor_config.json: do_pad must be false"):
        Sam2VideoVideoProcessor.from_pretrained(tmp_path)


def test_masks_of_the_video_processor(model: Sam2VideoModel) -> None:
    video_processor = Sam2VideoVideoProcessor(size=64)
    masks = np.random.default_rng(0).standard_normal((2, 1, 16, 16)).astype(np.float32)
    full = video_processor.post_process_masks([masks], [(30, 50)], [(64, 64)], binarize=False)[0]
    assert full.shape == (2, 1, 30, 50)
    assert full.dtype == np.float32
    cut = video_processor.post_process_masks([masks], [(30, 50)], [(64, 64)], mask_threshold=0.5)[0]
    np.testing.assert_array_equal(cut, full > 0.5)
    with pytest.raises(ValueError, match="must be for as many clips; got 1, 2 and 1"):
        video_processor.post_process_masks([masks], [(30, 50)] * 2, [(64, 64)])
    with pytest.raises(ValueError, match="masks must be logits of each clip; got array"):
        video_processor.post_process_masks(np.array(5.0), [(30, 50)], [(64, 64)])


def test_names_are_there_at_the_top() -> None:
    for name in (
        "Sam2VideoModel",
        "Sam2VideoProcessor",
        "Sam2VideoVideoProcessor",
        "Sam2VideoInferenceSession",
        "Sam2VideoSegmentationOutput",
        "Sam2VideoConfig",
        "Sam2VideoPromptEncoderConfig",
        "Sam2VideoMaskDecoderConfig",
    ):
        assert name in sam2_jax.__all__
        assert getattr(sam2_jax, name).__name__ == name
    assert Sam2VideoConfig().prompt_encoder_config.model_type == "sam2_video_prompt_encoder"
