"""`Segmenter`: what the model is asked, in the device's thread: clicks, everything, tracks."""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sam2_jax.clips.tracking import Passes, Prompt
from sam2_jax.demo.caches import Bounded
from sam2_jax.demo.kept_tracks import KeptTracks
from sam2_jax.demo.media import Medium
from sam2_jax.image.automatic import AutomaticMaskGenerator
from sam2_jax.image.model import Sam2Model
from sam2_jax.image.session import ImagePredictor, Prediction
from sam2_jax.video.model import Sam2VideoModel

_EMBEDDINGS_BYTES = 2**29
_LOGITS_BYTES = 2**26


@dataclass(frozen=True)
class Models:
    """The network for pictures, and what loads the one for clips, at most once.

    load_video raises ValueError, a sentence, if there is none of this name.
    """

    name: str
    image: Sam2Model
    load_video: Callable[[], Sam2VideoModel]


class Answer(NamedTuple):
    """A prediction, the keys by which its logits can be named, and the model's milliseconds."""

    prediction: Prediction
    keys: list[str]
    milliseconds: float


class Segmenter:
    """Answers of one model for all media, and what it keeps of them.

    In one thread, but for `knows` and `keeps`. folder: for what it keeps in files.
    """

    def __init__(self, models: Models, folder: Path) -> None:
        self.models = models
        self._predictors: Bounded[ImagePredictor] = Bounded(_EMBEDDINGS_BYTES)
        self._logits: Bounded[np.ndarray] = Bounded(_LOGITS_BYTES)
        self._tracks = KeptTracks(folder)
        self._video: Sam2VideoModel | None = None

    def knows(self, medium: Medium, frame: int) -> bool:
        """Whether a frame is encoded already."""
        return self._predictors.get((medium.id, frame)) is not None

    def keeps(self, medium: Medium, frame: int, key: str) -> bool:
        """Whether a mask of an earlier answer is there under its key."""
        return self._logits.get((medium.id, frame, key)) is not None

    def warm_up(self) -> Iterator[None]:
        """Compile what clicks run, program by program: others' first clicks need not wait for all of it."""
        yield
        session = self.models.image.predictor(np.zeros((8, 8, 3), np.uint8))
        yield
        session.click(1, 1)
        yield
        session.click(2, 2)
        yield
        session.set_box(1, 1, 5, 5)

    def predict(
        self,
        medium: Medium,
        frame: int,
        picture: np.ndarray | None,
        prompts: dict[str, Any],
        previous: str | np.ndarray | None,
        multimask: bool,
    ) -> Answer:
        """Masks of an object. picture: the frame, where it is not known. previous: what is refined, a mask of
        bool [H, W] or the key of an earlier answer's; one that is not kept any more is as none.
        """
        start = time.perf_counter()
        predictor = self._predictor(medium, frame, picture)
        mask = None
        if isinstance(previous, str):
            mask = self._logits.get((medium.id, frame, previous))
        elif previous is not None:
            given = predictor.processor(original_sizes=[medium.size], input_masks=[[previous]])
            mask = given["input_masks"][0, 0]
        found = predictor.predict(**prompts, mask=mask, multimask_output=multimask)
        milliseconds = 1000 * (time.perf_counter() - start)
        keys = [secrets.token_urlsafe(9) for _ in found.scores]
        for key, logits in zip(keys, found.logits, strict=True):
            self._logits.put((medium.id, frame, key), logits.copy(), logits.nbytes)
        return Answer(found, keys, milliseconds)

    def everything(self, picture: np.ndarray, points_per_side: int) -> Iterator[dict[str, Any]]:
        """All masks of a picture: lines of progress, and in the end the masks, the best first."""
        generator = AutomaticMaskGenerator(self.models.image, points_per_side=points_per_side)
        for step in generator.find_in_steps(picture):
            if isinstance(step, float):
                yield {"progress": step}
            else:
                found = sorted(step, key=lambda each: -each.predicted_iou)
                yield {"masks": [{"mask": each.rle, "score": each.predicted_iou} for each in found]}

    def track(
        self, client: str, medium: Medium, prompts: list[Prompt], direction: str
    ) -> Iterator[dict[str, Any]]:
        """Objects tracked through a clip: a line for each frame. Raises ValueError for broken ones.

        Frames before the first on which a client says something new are not tracked again.
        """
        model = self._video_model()
        with medium.clip() as clip:
            passes = Passes(prompts, len(clip), direction)
            rows = self._tracks.track((client, medium.id), model.video(clip, keep="none"), clip, passes)
            for done, row in enumerate(rows, 1):
                if row.broken is not None:
                    raise ValueError(row.broken)
                objects = [
                    {"id": each.object_id, "mask": each.rle, "score": each.score} for each in row.found.tracks
                ]
                yield {"frame": row.found.t, "done": done, "of": passes.total, "objects": objects}

    def _video_model(self) -> Sam2VideoModel:
        if self._video is None:
            self._video = self.models.load_video()
        return self._video

    def drop_idle(self, seconds: float) -> None:
        """Let go what nobody has asked for so long."""
        self._predictors.drop_idle(seconds)
        self._logits.drop_idle(seconds)
        self._tracks.drop_idle(seconds)

    def _predictor(self, medium: Medium, frame: int, picture: np.ndarray | None) -> ImagePredictor:
        key = medium.id, frame
        found = self._predictors.get(key)
        if found is None:
            found = self.models.image.predictor(medium.frame(frame) if picture is None else picture)
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(found.embeddings))
            self._predictors.put(key, found, size)
        return found
