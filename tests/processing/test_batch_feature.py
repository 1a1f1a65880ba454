"""`BatchFeature`: a dictionary whose entries are attributes, for Python and for JAX."""

import copy
import pickle

import jax
import numpy as np
import pytest

from sam2_jax import Sam2ImageProcessor, Sam2Processor
from sam2_jax.processing.batch_feature import BatchFeature

photo = np.full((4, 6, 3), 9, np.uint8)
processor = Sam2Processor(Sam2ImageProcessor(size=8, mask_size=2))


def test_what_processors_return_answers_to_attributes_as_to_keys() -> None:
    inputs = processor(photo, photo[..., 0], input_boxes=[[[0, 0, 3, 2]]])
    assert set(inputs) == {"pixel_values", "original_sizes", "labels", "input_boxes"}
    for name, value in inputs.items():
        assert getattr(inputs, name) is value is inputs[name]
        assert name in dir(inputs)
    assert inputs.data["labels"] is inputs.labels
    assert processor.image_processor(photo).pixel_values.shape == (1, 8, 8, 3)
    assert processor(original_sizes=[(4, 6)]).original_sizes.tolist() == [[4, 6]]
    assert (lambda **given: given)(**inputs) == dict(inputs)
    with pytest.raises(AttributeError, match="there is no input_masks; there are pixel_values, original_siz"):
        inputs.input_masks  # noqa: B018
    assert not hasattr(inputs, "input_masks")


def test_attributes_can_be_set_and_deleted() -> None:
    inputs = processor(photo)
    inputs.pixel_values = 5
    assert inputs["pixel_values"] == 5
    del inputs.pixel_values
    assert list(inputs) == ["original_sizes"]
    with pytest.raises(AttributeError, match="there is no pixel_values"):
        del inputs.pixel_values


def test_it_copies_and_pickles() -> None:
    inputs = processor(photo)
    for other in (
        copy.copy(inputs),
        inputs.copy(),
        copy.deepcopy(inputs),
        pickle.loads(pickle.dumps(inputs)),
    ):
        assert type(other) is BatchFeature
        np.testing.assert_array_equal(other.pixel_values, inputs.pixel_values)
        other.pixel_values = 1
        assert inputs.pixel_values is not other.pixel_values


def test_it_is_a_pytree_as_dictionaries_are() -> None:
    inputs = processor(photo)
    doubled = jax.tree.map(lambda x: x * 2, inputs)
    assert type(doubled) is BatchFeature
    np.testing.assert_array_equal(doubled.pixel_values, 2 * inputs.pixel_values)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(inputs)]
    assert paths == [path for path, _ in jax.tree_util.tree_leaves_with_path(dict(inputs))]
    assert type(jax.device_put(inputs)) is BatchFeature
    shapes = jax.eval_shape(lambda x: {"sum": x.pixel_values.sum(), **x}, inputs)
    assert shapes["sum"].shape == ()


def test_what_is_written_for_torch_gets_a_sentence() -> None:
    for arguments in (("cuda",), (), (np.float16,)):
        with pytest.raises(ValueError, match=r"leave .to\(...\) out.*jax.device_put"):
            processor(photo).to(*arguments)
    with pytest.raises(ValueError, match='return_tensors must be None, "np" or "jax"; got \'pt\': leave it'):
        processor(images="not looked at", return_tensors="pt")
