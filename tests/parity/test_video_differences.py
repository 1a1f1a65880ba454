"""The table of places where sessions on clips differ from transformers' on purpose, each seen on both sides.

A row does the same on both and states what each gives. What is not in this table is meant to be equal; where
transformers and Meta's code differ from each other, the reference scenarios hold us to the one that is right.
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
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from sam2_jax import Sam2VideoModel
from sam2_jax.video.plan import select_conditioning

SIZE = 96, 160
FRAMES = 5
CLICK, OTHER, THIRD = [60, 40], [80, 50], [26, 74]


class Theirs:
    """transformers' model and processor."""

    def __init__(self, folder: Path) -> None:
        sides = {"height": 128, "width": 128}
        self.model = transformers.Sam2VideoModel.from_pretrained(
            folder / "models" / "pub21", dtype=torch.float32
        ).eval()
        self.processor = transformers.Sam2VideoProcessor(
            transformers.Sam2ImageProcessor(size=sides), transformers.Sam2VideoVideoProcessor(size=sides), 128
        )
        clip = np.load(folder / "clips" / "a128.npz")["frames"][:FRAMES]
        mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
        self.pixels = torch.from_numpy(((clip.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))

    def session(self, frames: int = FRAMES) -> Any:
        video = self.pixels if frames else None
        return Sam2VideoInferenceSession(video, *SIZE, dtype=torch.float32)

    def prompt(self, session: Any, frame: int, *objects: Any, clear: bool = True, run: bool = True) -> Any:
        """Prompt objects (id, points, labels); their masks [P, h, w], if they are asked for."""
        ids, points, labels = ([object_[i] for object_ in objects] for i in range(3))
        self.processor.add_inputs_to_inference_session(
            session, frame, ids, [points], [labels], clear_old_inputs=clear
        )
        return self.step(session, frame) if run else None

    def step(self, session: Any, frame: int) -> Any:
        with torch.inference_mode():
            return self.model(session, frame_idx=frame).pred_masks[:, 0].numpy()

    def run(self, session: Any) -> np.ndarray:
        with torch.inference_mode():
            yields = self.model.propagate_in_video_iterator(session)
            return np.array([each.pred_masks[:, 0].numpy() for each in yields])


class Ours:
    """The same here."""

    def __init__(self, folder: Path) -> None:
        self.model = Sam2VideoModel.from_pretrained(folder / "models" / "pub21")
        self.clip = np.load(folder / "clips" / "a128.npz")["frames"][:FRAMES]

    def session(self, frames: int = FRAMES) -> Any:
        return self.model.video(self.clip if frames else None, size=SIZE)

    def prompt(self, session: Any, frame: int, *objects: Any, clear: bool = True, run: bool = True) -> Any:
        found = [session.prompt(frame, id_, *prompt, clear_old=clear).logits[0] for id_, *prompt in objects]
        return np.array(found) if run else None

    def step(self, session: Any, frame: int) -> Any:
        return session.step(frame=frame).logits

    def run(self, session: Any) -> np.ndarray:
        return np.array([each.logits for each in session.propagate()])


@dataclass(frozen=True)
class Difference:
    """One row: what is done, what transformers gives, what we give, and why."""

    what: str
    call: Callable[[Any], Any]  # of a side
    theirs: Any
    ours: Any
    why: str


def differ(one: Any, other: Any) -> bool:
    return bool(np.abs(np.asarray(one) - np.asarray(other)).max() > 0.05)


def click_after_a_run(side: Any) -> bool:
    session = side.session()
    side.prompt(session, 0, (1, [CLICK], [1]))
    before = side.run(session)
    side.prompt(session, 3, (1, [OTHER], [0]), run=False)
    return differ(before, side.run(session))


def correction_lasts(side: Any) -> bool:
    session = side.session()
    side.prompt(session, 0, (1, [CLICK], [1]))
    side.run(session)
    corrected = side.prompt(session, 3, (1, [OTHER], [0]))
    return not differ(side.run(session)[3], corrected)


def refines(side: Any) -> bool:
    session, fresh = side.session(), side.session()
    side.prompt(session, 0, (1, [CLICK], [1]))
    second = side.prompt(session, 0, (1, [OTHER], [0]), clear=False)
    return differ(second, side.prompt(fresh, 0, (1, [CLICK, OTHER], [1, 0])))


def two_calls(side: Any) -> int:
    session = side.session()
    for id_, point in ((1, CLICK), (2, THIRD)):
        side.prompt(session, 0, (id_, [point], [1]), run=False)
    side.step(session, 0)
    return side.run(session).shape[1]


def one_beside_three(side: Any) -> bool:
    three = (2, [THIRD, OTHER, CLICK], [1, 1, 0])
    together = side.prompt(side.session(), 0, (1, [CLICK], [1]), three)
    return differ(together[0], side.prompt(side.session(), 0, (1, [CLICK], [1]))[0])


def memory_beside_a_prompt(side: Any) -> bool:
    """Whether the memory of a tracked object depends on another's prompt on that frame."""
    memories = []
    for is_prompted in (False, True):
        session = side.session()
        side.prompt(session, 0, (1, [CLICK], [1]))
        side.prompt(session, 0, (2, [THIRD], [1]))
        side.step(session, 1)
        if is_prompted:
            side.prompt(session, 2, (2, [THIRD], [1]), run=isinstance(side, Theirs))
        if not (is_prompted and isinstance(side, Theirs)):
            side.step(session, 2)
        if isinstance(side, Theirs):
            outputs = session.output_dict_per_obj[0]["non_cond_frame_outputs"]
            memories.append(outputs[2]["maskmem_features"].float().numpy())
        else:
            memories.append(session.output(1, 2).memory.astype(np.float32))
    return differ(*memories)


def frames_kept(side: Any) -> int:
    session = side.session(0)
    if isinstance(side, Theirs):
        for frame in side.pixels:
            session.add_new_frame(frame)
        return len(session.processed_frames)
    for frame in side.clip:
        session.add_frame(frame)
    return len(session._frames._pictures)


def selected(side: Any) -> int:
    """How many of five conditioning frames are attended to if one is allowed."""
    if isinstance(side, Theirs):
        chosen, _ = side.model._select_closest_cond_frames(10, dict.fromkeys((0, 3, 6, 15, 19)), 1)
        return len(chosen)
    return len(select_conditioning(10, 1, [0, 3, 6, 15, 19], 1))


TABLE = [
    Difference(
        "a click on a tracked frame changes the next run",
        click_after_a_run,
        False,
        True,
        "the documented way to refine: there the mark that something is new is used up on frame 0",
    ),
    Difference(
        "a corrected frame yields its correction in the next run",
        correction_lasts,
        False,
        True,
        "prompted frames are conditioning frames, as the network was trained",
    ),
    Difference(
        "a second click sees the mask of the first",
        refines,
        False,
        True,
        "as Meta's code does and the network was trained",
    ),
    Difference(
        "objects added in two calls before a run",
        two_calls,
        "ValueError: maskmem_features",
        2,
        "objects are independent: there the second call forgets that the first object is new",
    ),
    Difference(
        "an object of one click changes beside one of three",
        one_beside_three,
        True,
        False,
        "padding is no click, and is not attended to",
    ),
    Difference(
        "the memory of a tracked object changes when another is prompted",
        memory_beside_a_prompt,
        True,
        False,
        "there one prompt makes all masks of the frame yes or no",
    ),
    Difference(
        "a step without objects",
        lambda side: side.step(side.session(), 0).shape,
        "IndexError: list",
        (0, 32, 32),
        "a stream may run before anything is prompted",
    ),
    Difference("frames of a stream that are kept", frames_kept, 5, 1, "streams have no end"),
    Difference(
        "conditioning frames attended to, if one is allowed",
        selected,
        4,
        1,
        "there a slice up to -1 takes all but one",
    ),
]


@pytest.fixture(scope="module")
def sides(reference_dir: Path, quick_compilation_of_module: None) -> tuple[Theirs, Ours]:
    folder = reference_dir / "reference" / "video"
    return Theirs(folder), Ours(folder)


def outcome(row: Difference, side: Any) -> Any:
    """What a row gives, or the name of what it raises with the first word of its message, if it has one."""
    try:
        return row.call(side)
    except Exception as error:
        return ": ".join([type(error).__name__, *str(error).split()[:1]])


@pytest.mark.filterwarnings("ignore")  # transformers warns of what it then does
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.what)
def test_each_row_of_the_table_of_videos(row: Difference, sides: tuple[Theirs, Ours]) -> None:
    theirs, ours = sides
    assert outcome(row, theirs) == row.theirs
    assert outcome(row, ours) == row.ours
    assert row.theirs != row.ours
    assert row.why
