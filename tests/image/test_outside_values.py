"""Values of every kind where the model, sessions and batches are called: accepted, or one sentence."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from small_models import model_of, smallest_config

from sam2_jax import Sam2Model
from sam2_jax.image.batch import predict_batch
from sam2_jax.image.session import ImagePredictor

PHOTO = np.zeros((40, 60, 3), np.uint8)
PIXELS = np.zeros((1, 64, 64, 3), np.float32)
POINTS = np.full((1, 1, 1, 2), 3.0)
VALUES = [
    *(10**40, 10**5000, 1e300, -1e300, 1e-320, float("nan"), float("inf"), 2.5, -1, 0, 2**31, 2**63, 1 + 2j),
    *(True, np.True_, "x", "1", b"1", "x" * 10_000, [], [[]], {}, [1] * 10_000, (1, 2), object(), len, int),
    *(np.array(5), np.array([5]), np.float32(2), np.int64(2), np.float64("nan"), np.array("x")),
    *(
        [[[[1e300, 1]]]],
        [[[[10**5000, 1]]]],
        [[[[None, 1]]]],
        [[[["a", 1]]]],
        [[[[1j, 1]]]],
        [[[1, 2, 3, 1e300]]],
    ),
    *(np.full((1, 1, 9, 9), 1e300), np.full((1, 1, 1, 2), 1e300), np.full((1, 1, 1, 2), "a")),
]


class ComputedError(Exception):
    """Something was accepted, and would be computed."""


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    return model_of(smallest_config())


def called(name: str) -> Callable[[Sam2Model, Any], Any]:
    return lambda model, value: model(PIXELS, **{"input_points": POINTS, name: value})


def in_batch(name: str) -> Callable[[Sam2Model, Any], Any]:
    def run(model: Sam2Model, value: Any) -> Any:
        arguments = {"work": [], "progress": False, "on_error": "raise", name: value}
        return list(predict_batch(model, **arguments))

    return run


def of_task(name: str) -> Callable[[Sam2Model, Any], Any]:
    def run(model: Sam2Model, value: Any) -> Any:
        task = {"photo": PHOTO, "points": [[(1, 2)]], name: value}
        return list(predict_batch(model, [task], progress=False, on_error="raise"))

    return run


CALLS: dict[str, Callable[[Sam2Model, Any], Any]] = {
    **{
        name: called(name)
        for name in (
            *("input_points", "input_labels", "input_boxes", "input_masks", "multimask_output", "min_score"),
            *("attention_similarity", "target_embedding", "output_attentions", "return_dict"),
        )
    },
    "pixel_values": lambda model, value: model(value),
    "image_embeddings": lambda model, value: model(image_embeddings=value),
    "params": lambda model, value: Sam2Model(model.config, value),
    "seed": lambda model, value: Sam2Model(model.config, seed=value if value is not None else "none"),
    "session's processor": lambda model, value: ImagePredictor(model, PHOTO, value),
    **{
        f"batch's {name}": in_batch(name)
        for name in ("work", "batch_size", "total", "progress", "multimask_output", "on_error", "processor")
    },
    **{f"task's {name}": of_task(name) for name in ("photo", "points", "labels", "boxes", "masks", "name")},
}


@pytest.mark.parametrize("call", CALLS)
def test_a_value_is_accepted_or_a_sentence(
    model: Sam2Model, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute(*_: Any, **__: Any) -> None:
        raise ComputedError

    monkeypatch.setattr(Sam2Model, "_run", compute)
    monkeypatch.setattr("sam2_jax.checkpoint.pretrained.initial", compute)
    messages = []
    for value in VALUES:
        try:
            CALLS[call](model, value)
        except ComputedError:
            pass
        except ValueError as error:
            messages.append(str(error))
    assert messages or call == "task's name"
    assert max(map(len, messages), default=0) < 2500
