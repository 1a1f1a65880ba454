"""The small model and the sample picture that come with the package, and when they are taken."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from hub_stand_in import serve
from PIL import Image
from safetensors import safe_open
from test_hub import TINY, use

from benchmarks.embedded import HELD_OUT_SEED, IMAGE_SIZE
from sam2_jax import AutomaticMaskGenerator, Sam2Model
from sam2_jax.checkpoint.embedded import EMBEDDED, EMBEDDED_MODEL, SAMPLE_PICTURE, SAMPLE_SCENE, default_model
from sam2_jax.commands import main
from sam2_jax.image.generation_options import MaskGenerationOptions
from sam2_jax.processing.rle import decode_rle
from sam2_jax.training.batches import Scenes
from sam2_jax.training.evaluate import evaluate
from sam2_jax.training.synthetic.scenes import make_scene

CARD = (EMBEDDED_MODEL / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def embedded() -> Sam2Model:
    return Sam2Model.from_pretrained(EMBEDDED_MODEL)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No hub to be reached, nothing cached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with use("http://127.0.0.1:9"):
        yield


def test_it_is_small_and_of_half_precision(embedded: Sam2Model) -> None:
    assert sum(file.stat().st_size for file in EMBEDDED_MODEL.iterdir()) <= 6e6
    with safe_open(EMBEDDED_MODEL / "flax_model.safetensors", framework="np") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert kinds.pop("shared_image_embedding.positional_embedding") == "F32"
    assert set(kinds.values()) == {"F16"}
    assert sum(leaf.size for leaf in jax.tree.leaves(embedded.params)) < 3.1e6


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_it_does_as_well_as_its_card_says(embedded: Sam2Model) -> None:
    """On some of the card's scenes, within what chance may do to fewer of them."""
    claimed = re.search(r"\| mean IoU \| ([\d.]+) \| [\d.]+ \| ([\d.]+) \| ([\d.]+) \|", CARD)
    assert claimed
    scenes = Scenes(HELD_OUT_SEED, IMAGE_SIZE)
    found = evaluate(embedded, [scenes.example(i) for i in range(12)])
    for value, claim in zip((found.clicks[0], found.box, found.clicks[-1]), claimed.groups(), strict=True):
        assert value >= float(claim) - 0.06


def test_without_a_hub_it_is_the_default_and_the_reason_is_said(no_hub: None) -> None:
    model, note = default_model()
    assert model == EMBEDDED
    assert note is not None
    assert note.startswith(f"{TINY} cannot be had (cannot reach the model hub for model.safetensors")
    assert "give --model a folder that holds it" in note


def test_a_revision_has_no_substitute(no_hub: None) -> None:
    with pytest.raises(ValueError, match="cannot reach the model hub"):
        default_model("v1")


def test_with_a_hub_the_real_model_is_the_default(
    small_model: Sam2Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    small_model.save_pretrained(tmp_path / "model", layout="transformers")
    with serve({TINY: tmp_path / "model"}) as (endpoint, _), use(endpoint):
        assert default_model() == (TINY, None)
    with use("http://127.0.0.1:9"):  # cached by now, all of it that is asked for
        assert default_model() == (TINY, None)


@pytest.mark.slow
def test_segment_without_arguments_shows_a_result(
    no_hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["segment", "--json", "report.json"]) == 0
    said = capsys.readouterr()
    assert "load embedded" in said.out
    assert said.err.startswith(f"note: {TINY} cannot be had")
    with Image.open("sample_segmented.png") as drawn, Image.open(SAMPLE_PICTURE) as sample:
        assert drawn.size == sample.size
    report = json.loads(Path("report.json").read_text())
    assert report["model"] == "embedded"
    assert len(report["objects"]) >= 3
    for found in report["objects"]:
        x, y = (int(v) for v in found["points"][0])
        mask = decode_rle(found["masks"][0]["segmentation"])
        assert mask[y, x]
        assert 0.002 < mask.mean() < 0.5


@pytest.mark.slow
def test_it_can_be_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--model", "embedded", "--output", "o", "--points-per-side", "8"]
    assert main(["generate", str(SAMPLE_PICTURE), *options]) == 0
    assert "note:" not in capsys.readouterr().err
    assert (
        len(json.loads(Path("o/annotations.json").read_text())["annotations"]) > 8
    )  # not at SAM 2's thresholds


def test_it_brings_thresholds_for_masks_of_everything(embedded: Sam2Model) -> None:
    brought = embedded.generation_options
    assert brought == Sam2Model.from_pretrained(EMBEDDED).generation_options
    options = AutomaticMaskGenerator(embedded).options
    assert (options.pred_iou_thresh, options.stability_score_thresh) == tuple(brought.values()) == (0.6, 0.75)
    assert AutomaticMaskGenerator(embedded, "meta").options == MaskGenerationOptions()


@pytest.mark.slow
def test_its_thresholds_give_masks_of_photos(embedded: Sam2Model, reference_dir: Path) -> None:
    generator = AutomaticMaskGenerator(embedded, points_per_side=8)
    for name, least in (("truck", 8), ("groceries", 10)):
        assert len(generator.find(reference_dir / "images" / f"{name}.jpg")) >= least


def test_the_sample_picture_is_a_scene_that_can_be_made_again() -> None:
    with Image.open(SAMPLE_PICTURE) as sample:
        np.testing.assert_array_equal(np.asarray(sample), make_scene(*SAMPLE_SCENE).image)
