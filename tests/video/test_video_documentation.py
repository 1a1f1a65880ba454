"""What transformers' page on SAM 2 Video shows, in our own words: each of its uses, with the import changed.

A small random model stands in for the one that the page names, on a local stand-in for the hub, and a made-up
clip, a folder of pictures, for its film. What the page leaves open, a device, is left out, as README says.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_stand_in import hub_of
from PIL import Image
from small_video import small_clip, small_video_model

from sam2_jax import Sam2VideoModel, Sam2VideoProcessor, open_clip

HEIGHT, WIDTH = 48, 80
FRAMES = 7

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the clip, numbered as ffmpeg does from 8 to 14, and a hub with the model."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "bedroom").mkdir()
    for t, picture in enumerate(small_clip(FRAMES)):
        Image.fromarray(picture).resize((WIDTH, HEIGHT)).save(folder / "bedroom" / f"{t + 8}.png")
    small_video_model().save_pretrained(folder / "model", layout="transformers")
    with (
        hub_of({"facebook/sam2.1-hiera-tiny": folder / "model"}, folder / "cache"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def model(desk: Path) -> Sam2VideoModel:
    return Sam2VideoModel.from_pretrained("facebook/sam2.1-hiera-tiny", device_map="auto")


@pytest.fixture(scope="module")
def processor(desk: Path) -> Sam2VideoProcessor:
    return Sam2VideoProcessor.from_pretrained("facebook/sam2.1-hiera-tiny")


@pytest.fixture(scope="module")
def video_frames(desk: Path) -> list[Image.Image]:
    return [Image.open(f"bedroom/{8 + i}.png") for i in range(FRAMES)]


def masks_of(processor: Sam2VideoProcessor, session: Any, output: Any) -> np.ndarray:
    """As the page brings logits to the clip's size."""
    size = [[session.video_height, session.video_width]]
    return processor.post_process_masks([output.pred_masks], original_sizes=size, binarize=False)[0]


def test_one_object_is_tracked(
    model: Sam2VideoModel, processor: Sam2VideoProcessor, video_frames: list[Image.Image]
) -> None:
    inference_session = processor.init_video_session(video=video_frames, inference_device="cpu")
    assert (inference_session.video_height, inference_session.video_width) == (HEIGHT, WIDTH)
    returned = processor.add_inputs_to_inference_session(
        inference_session=inference_session,
        frame_idx=0,
        obj_ids=1,
        input_points=[[[[20, 25]]]],
        input_labels=[[[1]]],
    )
    assert returned is inference_session
    outputs = model(inference_session=inference_session, frame_idx=0)
    assert masks_of(processor, inference_session, outputs).shape == (1, 1, HEIGHT, WIDTH)
    assert outputs.object_score_logits.shape == (1, 1)
    video_segments = {}
    for sam2_video_output in model.propagate_in_video_iterator(inference_session):
        masks = masks_of(processor, inference_session, sam2_video_output)
        video_segments[sam2_video_output.frame_idx] = masks
    assert list(video_segments) == list(range(FRAMES))
    np.testing.assert_array_equal(
        video_segments[0], masks_of(processor, inference_session, outputs)
    )  # what was clicked stays


def test_several_objects_and_a_refinement(
    model: Sam2VideoModel, processor: Sam2VideoProcessor, video_frames: list[Image.Image]
) -> None:
    inference_session = processor.init_video_session(video=video_frames)
    processor.add_inputs_to_inference_session(inference_session, 0, 1, [[[[9, 9]]]], [[[1]]])
    model(inference_session, frame_idx=0)
    inference_session.reset_inference_session()
    processor.add_inputs_to_inference_session(
        inference_session=inference_session,
        frame_idx=0,
        obj_ids=[2, 3],
        input_points=[[[[20, 25]], [[60, 12]]]],
        input_labels=[[[1], [1]]],
    )
    outputs = model(inference_session=inference_session, frame_idx=0)
    assert outputs.object_ids == inference_session.obj_ids == [2, 3]

    def run() -> dict[int, dict[Any, np.ndarray]]:
        found = {}
        for output in model.propagate_in_video_iterator(inference_session):
            masks = masks_of(processor, inference_session, output)
            found[output.frame_idx] = {id_: masks[i] for i, id_ in enumerate(inference_session.obj_ids)}
        return found

    before = run()
    assert before.keys() == set(range(FRAMES))
    assert {masks.shape for masks in before[3].values()} == {(1, HEIGHT, WIDTH)}
    processor.add_inputs_to_inference_session(
        inference_session=inference_session,
        frame_idx=4,
        obj_ids=2,
        input_points=[[[[60, 40]]]],
        input_labels=[[[0]]],
    )
    after = run()
    assert np.abs(before[4][2] - after[4][2]).max() > 0.01  # there the click is lost
    np.testing.assert_allclose(before[4][3], after[4][3], rtol=0, atol=1e-4)  # of the other object


def test_a_stream_of_frames(
    model: Sam2VideoModel, processor: Sam2VideoProcessor, video_frames: list[Image.Image]
) -> None:
    inference_session = processor.init_video_session()
    shapes = []
    for frame_idx, frame in enumerate(video_frames):
        inputs = processor(images=frame, device="cpu")
        if frame_idx == 0:
            processor.add_inputs_to_inference_session(
                inference_session=inference_session,
                frame_idx=0,
                obj_ids=1,
                input_points=[[[[20, 25], [24, 27]]]],
                input_labels=[[[1, 1]]],
                original_size=inputs.original_sizes[0],
            )
        output = model(inference_session=inference_session, frame=inputs.pixel_values[0])
        assert output.frame_idx == frame_idx
        masks = processor.post_process_masks(
            [output.pred_masks], original_sizes=inputs.original_sizes, binarize=False
        )[0]
        shapes.append(masks.shape)
    assert shapes == [(1, 1, HEIGHT, WIDTH)] * FRAMES
    assert inference_session.num_frames == FRAMES


def test_objects_of_different_numbers_of_points(
    model: Sam2VideoModel, processor: Sam2VideoProcessor, desk: Path
) -> None:
    inference_session = processor.init_video_session(video=open_clip("bedroom"))
    assert inference_session.num_frames == FRAMES
    processor.add_inputs_to_inference_session(
        inference_session=inference_session,
        frame_idx=0,
        obj_ids=[2, 3],
        input_points=[[[[20, 30], [23, 25], [27, 17]], [[60, 15]]]],
        input_labels=[[[1, 1, 0], [1]]],
    )
    outputs = model(inference_session=inference_session, frame_idx=0)
    assert masks_of(processor, inference_session, outputs).shape == (2, 1, HEIGHT, WIDTH)
    alone = processor.init_video_session(video=open_clip("bedroom"))
    processor.add_inputs_to_inference_session(alone, 0, 3, [[[[60, 15]]]], [[[1]]])
    np.testing.assert_array_equal(outputs.pred_masks[1], model(alone, 0).pred_masks[0])
    frames = [output.frame_idx for output in model.propagate_in_video_iterator(inference_session)]
    assert frames == list(range(FRAMES))


def test_the_folder_of_the_model_is_transformers_too(desk: Path, processor: Sam2VideoProcessor) -> None:
    """What stands beside the weights says which class of theirs reads it."""
    assert '"processor_class": "Sam2VideoProcessor"' in (desk / "model/processor_config.json").read_text()
    assert processor.image_processor.size == processor.video_processor.size == {"height": 64, "width": 64}
