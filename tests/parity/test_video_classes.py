"""Code written for transformers' video classes, run with theirs and with ours: masks, pixels, files.

Below it the table of places where ours differ on purpose, each seen on both sides. How tracking differs
is in `test_video_differences`.
"""

import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("torchvision", reason="transformers' processors need torchvision and the shim")
pytest.importorskip("transformers", reason="parity needs transformers")

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

import sam2_jax

FRAMES = 6
SIZE = 96, 160
CLICK, OTHER, THIRD = [60, 40], [80, 50], [26, 74]
SIDES = {"height": 128, "width": 128}

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers and torch warn of what they then do


@dataclass
class Side:
    """One of the two: the same code runs with either."""

    library: Any
    model: Any
    processor: Any
    frames: list[np.ndarray]
    tensors: str | None

    def begin(self, **options: Any) -> Any:
        return self.processor.init_video_session(video=self.frames, **options)

    def add(self, session: Any, frame: int, ids: Any, points: Any, labels: Any, **given: Any) -> Any:
        return self.processor.add_inputs_to_inference_session(
            session, frame, ids, input_points=[points], input_labels=[labels], **given
        )

    def prepared(self, picture: np.ndarray) -> Any:
        return self.processor(images=picture, return_tensors=self.tensors)

    def masks(self, session: Any, outputs: Any) -> np.ndarray:
        size = [[session.video_height, session.video_width]]
        masks = self.processor.post_process_masks([outputs.pred_masks], original_sizes=size, binarize=False)
        return np.asarray(masks[0])


@pytest.fixture(scope="module")
def sides(reference_dir: Path, quick_compilation_of_module: None) -> tuple[Side, Side]:
    """Random weights, and frames that are not of the network's size."""
    folder = reference_dir / "reference" / "video"
    clip = np.load(folder / "clips" / "a128.npz")["frames"][:FRAMES]
    frames = [np.asarray(Image.fromarray(frame).resize(SIZE[::-1])) for frame in clip]
    name = folder / "models" / "pub21"
    theirs = Side(
        transformers,
        transformers.Sam2VideoModel.from_pretrained(name, dtype=torch.float32).eval(),
        transformers.Sam2VideoProcessor(
            transformers.Sam2ImageProcessor(size=SIDES), transformers.Sam2VideoVideoProcessor(size=SIDES), 128
        ),
        frames,
        "pt",
    )
    ours = Side(
        sam2_jax,
        sam2_jax.Sam2VideoModel.from_pretrained(name),
        sam2_jax.Sam2VideoProcessor(
            sam2_jax.Sam2ImageProcessor(size=SIDES), sam2_jax.Sam2VideoVideoProcessor(size=SIDES)
        ),
        frames,
        None,
    )
    return theirs, ours


# --- the same masks


def one_click(side: Side) -> list[np.ndarray]:
    session = side.begin()
    side.add(session, 0, 1, [[CLICK]], [[1]])
    found = [side.masks(session, side.model(inference_session=session, frame_idx=0))]
    for output in side.model.propagate_in_video_iterator(session):
        assert output.object_ids == [1]
        assert tuple(output.object_score_logits.shape) == (1, 1)
        found.append(side.masks(session, output))
    return found


def two_objects_on_a_later_frame(side: Side) -> list[np.ndarray]:
    """Both with three points, which needs no padding, forward and backward."""
    session = side.begin()
    points, labels = [[CLICK, OTHER, THIRD], [OTHER, THIRD, CLICK]], [[1, 1, 0], [1, 0, 0]]
    side.add(session, 2, [7, 3], points, labels)
    found = [side.masks(session, side.model(session, frame_idx=2))]
    for reverse in (False, True):
        run = side.model.propagate_in_video_iterator(
            session, start_frame_idx=2, max_frame_num_to_track=2, reverse=reverse
        )
        found += [side.masks(session, output) for output in run]
    assert session.obj_ids == [7, 3]
    return found


def a_box(side: Side) -> list[np.ndarray]:
    session = side.begin()
    side.processor.add_inputs_to_inference_session(session, 0, [1], input_boxes=[[[30, 20, 110, 80]]])
    side.model(session, 0)
    return [
        side.masks(session, output)
        for output in side.model.propagate_in_video_iterator(session, max_frame_num_to_track=3)
    ]


def a_stream(side: Side) -> list[np.ndarray]:
    session = side.processor.init_video_session()
    found = []
    for t, frame in enumerate(side.frames):
        inputs = side.prepared(frame)
        if t == 0:
            side.add(session, 0, 1, [[CLICK, OTHER]], [[1, 1]], original_size=inputs.original_sizes[0])
        output = side.model(inference_session=session, frame=inputs.pixel_values[0])
        masks = side.processor.post_process_masks(
            [output.pred_masks], original_sizes=inputs.original_sizes, binarize=False
        )
        found.append(np.asarray(masks[0]))
    return found


@pytest.mark.parametrize("use", [one_click, two_objects_on_a_later_frame, a_box, a_stream])
def test_masks_are_the_same(sides: tuple[Side, Side], use: Callable[[Side], list[np.ndarray]]) -> None:
    with torch.inference_mode():
        theirs = use(sides[0])
    ours = use(sides[1])
    assert len(theirs) == len(ours) > FRAMES // 2
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.shape == reference.shape == (*reference.shape[:2], *SIZE)
        for one, other in zip(mine[:, 0] > 0, reference[:, 0] > 0, strict=True):
            union = (one | other).sum()
            assert 0 < union < one.size
            assert (one & other).sum() >= 0.999 * union
        np.testing.assert_allclose(mine, reference, rtol=0, atol=5e-3)  # of one bit of a memory in bfloat16


# --- the same pixels, and files of either


def test_pixels_are_the_same(sides: tuple[Side, Side]) -> None:
    theirs = sides[0].processor.video_processor(videos=sides[0].frames, return_tensors="pt")
    ours = sides[1].processor.video_processor(videos=sides[1].frames)
    pixels = np.moveaxis(np.asarray(theirs.pixel_values_videos), 2, -1)
    assert ours.pixel_values_videos.shape == pixels.shape == (1, FRAMES, 128, 128, 3)
    np.testing.assert_allclose(ours.pixel_values_videos, pixels, rtol=0, atol=1e-6)
    for name in ("original_sizes", "reshaped_input_sizes"):
        assert np.asarray(ours[name]).tolist() == np.asarray(theirs[name]).tolist()


def test_masks_of_the_video_processor_are_the_same(sides: tuple[Side, Side]) -> None:
    masks = np.random.default_rng(0).standard_normal((2, 1, 32, 32)).astype(np.float32)
    found = []
    for side in sides:
        logits = torch.from_numpy(masks.copy()) if side.tensors else masks
        full = side.processor.video_processor.post_process_masks(
            [logits], [SIZE], [(128, 128)], binarize=False, pad_size=SIDES
        )
        found.append(np.asarray(full[0]))
    np.testing.assert_allclose(*found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("writer", [0, 1])
def test_processors_are_read_by_the_other(sides: tuple[Side, Side], tmp_path: Path, writer: int) -> None:
    sides[writer].processor.save_pretrained(tmp_path)
    read = sides[1 - writer].library.Sam2VideoProcessor.from_pretrained(tmp_path)
    for processor in (read.image_processor, read.video_processor):
        size = processor.size
        assert (size["height"], size["width"]) == (128, 128)
        assert list(processor.image_mean) == pytest.approx([0.485, 0.456, 0.406])
    assert read.target_size == 128
    assert read.point_pad_value == -10


def test_a_folder_of_ours_is_one_of_theirs(sides: tuple[Side, Side], tmp_path: Path) -> None:
    """Weights, configuration and processor, as `save_pretrained` of the model writes them."""
    sides[1].model.save_pretrained(tmp_path, layout="transformers")
    model = transformers.Sam2VideoModel.from_pretrained(tmp_path)
    processor = transformers.Sam2VideoProcessor.from_pretrained(tmp_path)
    assert processor.target_size == 128
    for name, tensor in sides[0].model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].float()), name


# --- what differs on purpose


@dataclass(frozen=True)
class Difference:
    """One row: what is done, what transformers gives, what we give, and why."""

    what: str
    call: Callable[[Side], Any]
    theirs: Any
    ours: Any
    why: str


def returned(side: Side) -> str:
    return type(side.add(side.begin(), 0, 1, [[CLICK]], [[1]])).__name__


def list_of_ids(side: Side) -> list[int]:
    session, ids = side.begin(), [1, 2]
    side.add(session, 0, ids, [[CLICK], [THIRD]], [[1], [1]])
    side.model(session, frame_idx=0)
    return ids


def prompts_on_two_frames(side: Side) -> bool:
    """Whether the second is still there when the clip has been run through."""
    session = side.begin()
    side.add(session, 0, 1, [[CLICK]], [[1]])
    side.add(session, 3, 1, [[THIRD]], [[1]])
    run = [side.masks(session, side.model(session, frame_idx=t)) for t in range(5)]
    alone = side.begin()
    side.add(alone, 3, 1, [[THIRD]], [[1]])
    return bool(np.abs(run[3] - side.masks(alone, side.model(alone, frame_idx=3))).max() < 0.05)


def box_beside_clicks(side: Side) -> int:
    session = side.begin()
    side.add(session, 0, 1, [[CLICK]], [[1]])
    side.processor.add_inputs_to_inference_session(
        session, 0, 1, input_boxes=[[[30, 20, 110, 80]]], clear_old_inputs=False
    )
    return len(side.model(session, frame_idx=0).pred_masks)


def logits_as_a_mask(side: Side) -> int:
    session = side.begin()
    mask = np.full(SIZE, -7.5, np.float32)
    side.processor.add_inputs_to_inference_session(session, 0, 1, input_masks=mask)
    return int((side.masks(session, side.model(session, frame_idx=0)) > 0).sum())


def without_memory(side: Side) -> int:
    session = side.begin()
    side.add(session, 0, 1, [[CLICK]], [[1]])
    side.model(session, frame_idx=0, run_mem_encoder=False)
    return len(side.model(session, frame_idx=1).pred_masks)


def stream_before_prompts(side: Side) -> int:
    session = side.processor.init_video_session()
    pixels = side.prepared(side.frames[0]).pixel_values[0]
    return len(side.model(session, frame=pixels).pred_masks)


def labels_left_out(side: Side) -> int:
    session = side.begin()
    side.processor.add_inputs_to_inference_session(session, 0, 1, input_points=[[[CLICK]]])
    return len(side.model(session, frame_idx=0).pred_masks)


def two_clips(side: Side) -> int:
    return side.processor.init_video_session(video=[side.frames, side.frames]).num_frames


def unknown_object(side: Side) -> int:
    return side.begin().obj_id_to_idx(9)


def run_without_a_call(side: Side) -> int:
    session = side.begin()
    side.add(session, 0, 1, [[CLICK]], [[1]])
    return len(list(side.model.propagate_in_video_iterator(session)))


def frame_that_is_not_the_next(side: Side) -> int:
    session = side.processor.init_video_session()
    return session.add_new_frame(side.prepared(side.frames[0]).pixel_values[0], 7)


TABLE = [
    Difference(
        "what adding inputs returns", returned, "NoneType", "Sam2VideoInferenceSession", "as documented"
    ),
    Difference(
        "the caller's list of ids after a call",
        list_of_ids,
        [],
        [1, 2],
        "it is the caller's: there it is emptied",
    ),
    Difference(
        "prompts on two frames before a call are both seen",
        prompts_on_two_frames,
        False,
        True,
        "there the mark that something is new is used up on the first",
    ),
    Difference(
        "a box beside clicks", box_beside_clicks, "ValueError", 1, "the order of prompts is of no matter"
    ),
    Difference(
        "pixels inside of a mask of logits far below 0",
        logits_as_a_mask,
        SIZE[0] * SIZE[1],
        "ValueError",
        "there every number but 0 is inside",
    ),
    Difference(
        "a frame after one with run_mem_encoder=False",
        without_memory,
        "KeyError",
        1,
        "it could not be tracked otherwise",
    ),
    Difference(
        "a frame of a stream before any prompt",
        stream_before_prompts,
        "ValueError",
        0,
        "a stream may run before anything is prompted; there the frame is kept all the same",
    ),
    Difference(
        "points without labels", labels_left_out, "ValueError", 1, "all are on the object, as of pictures"
    ),
    Difference("two clips for one session", two_clips, FRAMES, "ValueError", "there the second is left out"),
    Difference(
        "the place of an unknown object", unknown_object, 0, "ValueError", "there asking adds an object"
    ),
    Difference(
        "a run right after a prompt, without a call",
        run_without_a_call,
        "ValueError",
        FRAMES,
        "prompts are known",
    ),
    Difference(
        "a new frame of a number that is not the next",
        frame_that_is_not_the_next,
        7,
        "ValueError",
        "frames in between would be missing",
    ),
]


def outcome(row: Difference, side: Side) -> Any:
    try:
        return row.call(side)
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.what)
def test_each_row_of_the_table_of_names(row: Difference, sides: tuple[Side, Side]) -> None:
    theirs, ours = sides
    with torch.inference_mode():
        assert outcome(row, theirs) == row.theirs
    assert outcome(row, ours) == row.ours
    assert row.theirs != row.ours
    assert row.why
