"""From ragged prompts of every kind, through the processor and the model: each object as if it were alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import random_tensors, smallest_config
from tolerances import assert_close

from sam2_jax import Sam2Model
from sam2_jax.checkpoint import names
from sam2_jax.model.sam2 import ImageEmbeddings

SIZES = [(40, 90), (64, 30)]
points = st.tuples(st.integers(0, 29), st.integers(0, 39))
clicks = st.lists(st.tuples(points, st.sampled_from([0, 1])), min_size=1, max_size=2)
corners = st.tuples(points, points)
boxes = corners.map(lambda c: [*np.min(c, axis=0).tolist(), *np.max(c, axis=0).tolist()]).filter(
    lambda box: min(box[2:]) > 0 and max(box) > 1  # others cover nothing of the photo, or are fractions of it
)
objects = st.one_of(
    st.tuples(clicks, st.none()), st.tuples(st.just([]), boxes), st.tuples(clicks, boxes)
)  # (clicks, box)
images = st.lists(objects, max_size=3)


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    config = smallest_config()
    return Sam2Model(config, names.unflatten(names.to_flax(random_tensors(config))))


@pytest.fixture(scope="module")
def embeddings(model: Sam2Model) -> ImageEmbeddings:
    return model.get_image_embeddings(
        np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
    )


def as_prompts(batch: list[list[Any]]) -> dict[str, Any]:
    return {
        "input_points": [[[point for point, _ in clicks] for clicks, _ in image] for image in batch],
        "input_labels": [[[label for _, label in clicks] for clicks, _ in image] for image in batch],
        "input_boxes": [[box for _, box in image] for image in batch],
    }


@pytest.mark.usefixtures("quick_compilation")
@settings(max_examples=25)
@given(batch=st.tuples(images, images).filter(any))
def test_a_ragged_batch_equals_its_objects_alone(
    model: Sam2Model, embeddings: ImageEmbeddings, batch: tuple[list[Any], list[Any]]
) -> None:
    inputs = model.processor(original_sizes=SIZES, **as_prompts(list(batch)))
    together = model(**inputs, image_embeddings=embeddings)
    for b, image in enumerate(batch):
        own = tuple(level[b : b + 1] for level in embeddings)
        for p, prompt in enumerate(image):
            alone = model(
                **model.processor(original_sizes=SIZES[b : b + 1], **as_prompts([[prompt]])),
                image_embeddings=own,
            )
            assert_close("masks", "ragged prompts", together.pred_masks[b, p], alone.pred_masks[0, 0])
            assert_close("scores", "ragged prompts", together.iou_scores[b, p], alone.iou_scores[0, 0])
