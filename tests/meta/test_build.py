"""Models by Meta's names, from folders and from the hub."""

from pathlib import Path
from typing import Any

import pytest
from meta_files import as_meta, write_meta
from small_models import model_of, random_tensors, smallest_config

from sam2_jax import AutoModel, Sam2Model
from sam2_jax.meta import SAM2AutomaticMaskGenerator, SAM2ImagePredictor, build_sam2, build_sam2_hf
from sam2_jax.meta.build import _released_name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = model_of(smallest_config(64))
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    return path


def test_a_model_is_loaded_as_meta_s_function_does(folder: Path) -> None:
    model = build_sam2(None, folder, device="cuda", mode="eval", hydra_overrides_extra=[])
    assert isinstance(model, Sam2Model)
    assert model.config.mask_decoder_config.dynamic_multimask_via_stability
    plain = build_sam2(None, str(folder), apply_postprocessing=False)
    assert not plain.config.mask_decoder_config.dynamic_multimask_via_stability
    assert plain.processor.image_processor.size == model.processor.image_processor.size
    assert build_sam2_hf(folder, dtype="bfloat16").module.dtype == "bfloat16"


def test_a_file_of_meta_s_is_a_model(tmp_path: Path) -> None:
    """Of a small network, whose configuration must be said; the released ones are recognised."""
    config = smallest_config(64)
    path = write_meta(tmp_path / "small.pt", as_meta(random_tensors(config)))
    for model in (build_sam2(None, path, config=config), AutoModel.from_pretrained(path, config=config)):
        assert type(model) is Sam2Model
        assert model.config == config


def test_classes_are_loaded_by_name(folder: Path) -> None:
    predictor = SAM2ImagePredictor.from_pretrained(folder, device="cpu", mask_threshold=0.5, max_hole_area=8)
    assert predictor.mask_threshold == 0.5
    generator = SAM2AutomaticMaskGenerator.from_pretrained(
        folder, points_per_side=4, apply_postprocessing=False
    )
    assert generator.generator.options.points_per_side == 4


@pytest.mark.parametrize(
    ("config_file", "name"),
    [
        ("configs/sam2.1/sam2.1_hiera_t.yaml", "facebook/sam2.1-hiera-tiny"),
        ("configs/sam2.1/sam2.1_hiera_b+.yaml", "facebook/sam2.1-hiera-base-plus"),
        ("sam2_hiera_s.yaml", "facebook/sam2-hiera-small"),
        ("sam2_hiera_l", "facebook/sam2-hiera-large"),
    ],
)
def test_meta_s_configurations_have_names(config_file: str, name: str) -> None:
    assert _released_name(config_file) == name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"config_file": "sam2_hiera_xl.yaml"},
            "config_file must be one of Meta's, such as .*; got",
        ),
        (
            {"config_file": "sam2_hiera_l.yaml", "ckpt_path": "here"},
            "is not of the configuration sam2_hiera_l",
        ),
        ({"ckpt_path": None}, "config_file or ckpt_path must be given"),
        ({"mode": "train"}, 'mode must be "eval": models here have no other; got'),
        (
            {"hydra_overrides_extra": ["++model.image_size=512"]},
            "hydra_overrides_extra cannot be followed",
        ),
        ({"apply_postprocessing": None}, "apply_postprocessing must be True or False; got None"),
        ({"dtyp": "bfloat16"}, "did you mean dtype?"),
    ],
)
def test_what_cannot_be_followed_is_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    options = {"ckpt_path": "here"} | options
    if options["ckpt_path"] == "here":
        options["ckpt_path"] = folder
    with pytest.raises(ValueError, match=message):
        build_sam2(**options)


@pytest.mark.parametrize("kind", [SAM2ImagePredictor, SAM2AutomaticMaskGenerator])
def test_options_are_checked_before_anything_is_loaded(kind: Any) -> None:
    with pytest.raises(ValueError, match="did you mean mask_threshold?"):
        kind.from_pretrained("no/such-model-is-asked-for", mask_treshold=0)
    with pytest.raises(ValueError, match="mask_threshold must"):
        kind.from_pretrained("no/such-model-is-asked-for", mask_threshold=None)
