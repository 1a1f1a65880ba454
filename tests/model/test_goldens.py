"""Our outputs against transformers', stored in tests/goldens, so that parity is checked without torch."""

from typing import Any

import numpy as np
import pytest
from goldens.cases import CONFIG, FOLDER, PIXELS, PROMPTS, checksum, key
from small_models import random_tensors
from tolerances import assert_close

from sam2_jax import Sam2Model
from sam2_jax.checkpoint import names

Golden = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return random_tensors(CONFIG)


@pytest.fixture(scope="module")
def model(tensors: dict[str, np.ndarray]) -> Sam2Model:
    return Sam2Model(CONFIG, names.unflatten(names.to_flax(tensors)))


@pytest.fixture(scope="module")
def embeddings(model: Sam2Model) -> Any:
    return model.get_image_embeddings(PIXELS)


def read(case: str) -> Golden:
    with np.load(FOLDER / f"{case}.npz") as file:
        return dict(file)


def test_weights_and_pixels_are_those_the_goldens_were_made_with(tensors: dict[str, np.ndarray]) -> None:
    golden = read("features")
    assert checksum(tensors) == golden["weights"].item(), "weights differ: run tests/goldens/make.py again"
    assert checksum({"pixels": PIXELS}) == golden["pixels"].item(), (
        "pixels differ: run tests/goldens/make.py again"
    )


def test_there_is_a_golden_for_every_case_and_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.npz")} == {"features", *PROMPTS}


def test_image_embeddings(embeddings: Any) -> None:
    golden = read("features")
    for i, embedding in enumerate(embeddings):
        assert_close("features", f"golden embedding {i}", embedding, golden[f"embedding {i}"])


@pytest.mark.parametrize("case", ["points", "masks"])
def test_prompt_embeddings(model: Sam2Model, case: str) -> None:
    golden, prompts = read(case), PROMPTS[case]
    nothing = np.zeros((2, 1, 1, 2)), np.full((2, 1, 1), -1)
    points, labels = prompts.get("input_points", nothing[0]), prompts.get("input_labels", nothing[1])
    sparse, _, dense = model.module.apply(
        {"params": model.params}, points, labels, prompts.get("input_masks"), (4, 4), method="encode_prompts"
    )
    assert_close("tokens", f"golden {case}, sparse", sparse, golden["sparse"])
    dense = np.broadcast_to(dense[:, 0], (2, 4, 4, 32))
    assert_close("features", f"golden {case}, dense", dense, golden["dense"])


@pytest.mark.parametrize("multimask_output", [True, False])
@pytest.mark.parametrize("case", PROMPTS)
def test_predictions(model: Sam2Model, embeddings: Any, case: str, multimask_output: bool) -> None:
    golden = read(case)
    outputs = model(image_embeddings=embeddings, multimask_output=multimask_output, **PROMPTS[case])
    kinds = {"pred_masks": "masks", "iou_scores": "scores", "object_score_logits": "scores"}
    for name, kind in kinds.items():
        expected = golden[key(name, multimask_output)]
        assert_close(kind, f"golden {case}, {name}", getattr(outputs, name), expected)
