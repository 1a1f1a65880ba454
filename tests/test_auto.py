"""transformers' Auto classes choose what is here by a checkpoint's type."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from small_models import model_of, random_tensors, smallest_config, smallest_video_config

import sam2_jax
from sam2_jax import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForMaskGeneration,
    AutoProcessor,
    Sam2Config,
    Sam2HieraDetModel,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VisionModel,
)
from sam2_jax.checkpoint import names

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")

CONFIG = smallest_config(64)
VIDEO = smallest_video_config()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    model = model_of(CONFIG)
    model.save_pretrained(path)
    model.processor.save_pretrained(path)
    return path


def test_a_checkpoint_of_an_image_model(folder: Path) -> None:
    for auto in (AutoModel, AutoModelForMaskGeneration):
        model = auto.from_pretrained(folder, dtype="bfloat16")
        assert (type(model), model.module.dtype) == (Sam2Model, "bfloat16")
    assert AutoConfig.from_pretrained(str(folder)) == CONFIG
    assert AutoConfig.from_pretrained(pretrained_model_name_or_path=folder) == CONFIG
    assert type(AutoModel.from_pretrained(pretrained_model_name_or_path=folder)) is Sam2Model
    assert AutoConfig.from_pretrained(folder, initializer_range=0.5).initializer_range == 0.5
    with pytest.raises(ValueError, match="unknown option 'num_maskmem' of Sam2Config.from_pretrained"):
        AutoConfig.from_pretrained(folder, num_maskmem=8)  # of another class's configuration
    processor = AutoProcessor.from_pretrained(folder, use_fast=True)
    assert type(processor) is Sam2Processor
    image_processor = AutoImageProcessor.from_pretrained(folder)
    assert type(image_processor) is Sam2ImageProcessor
    assert image_processor.size == processor.image_processor.size == {"height": 64, "width": 64}


def test_the_forward_example_of_the_documentation(folder: Path) -> None:
    """With the import changed; prompts are left out, so that nothing is compiled but the encoder."""
    model = AutoModel.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(images=np.zeros((40, 60, 3), np.uint8), input_points=[[[[4, 6]]]])
    assert inputs["pixel_values"].shape == (1, *model.config.image_size, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (CONFIG, Sam2Model),
        (VIDEO, Sam2VideoModel),
        (CONFIG.vision_config, Sam2VisionModel),
        (CONFIG.vision_config.backbone_config, Sam2HieraDetModel),
    ],
    ids=lambda x: getattr(x, "model_type", ""),
)
def test_every_type_has_its_class(config: Any, kind: type, tmp_path: Path) -> None:
    assert type(AutoModel.from_config(config, dtype="bfloat16")) is kind
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert AutoConfig.from_pretrained(tmp_path) == config
    assert type(AutoConfig.for_model(config.model_type)) is type(config)


@pytest.mark.slow
def test_a_checkpoint_of_a_video_model(tmp_path: Path) -> None:
    """Its model is the video model's, for masks of pictures the image model in it; so in transformers."""
    Sam2VideoModel(VIDEO, names.unflatten(names.to_flax(random_tensors(VIDEO)))).save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is Sam2VideoModel
    assert type(AutoModel.from_pretrained(tmp_path, config=VIDEO.image_config)) is Sam2Model
    assert type(AutoModelForMaskGeneration.from_pretrained(tmp_path)) is Sam2Model
    assert AutoModelForMaskGeneration.from_config(VIDEO).config == VIDEO.image_config
    processor = AutoProcessor.from_pretrained(tmp_path, target_size=32)
    assert (type(processor), processor.target_size) == (Sam2VideoProcessor, 32)
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is Sam2ImageProcessor
    (tmp_path / "processor_config.json").write_text('{"processor_class": "Sam2Processor"}')
    assert type(AutoProcessor.from_pretrained(tmp_path)) is Sam2Processor
    (tmp_path / "processor_config.json").unlink()
    assert type(AutoProcessor.from_pretrained(tmp_path)) is Sam2VideoProcessor


def test_of_a_single_file_its_tensors_say_what_it_is(tmp_path: Path) -> None:
    for config, kind in ((CONFIG, "sam2"), (VIDEO, "sam2_video")):
        save_file(random_tensors(config), tmp_path / "weights.safetensors")
        assert AutoModel._type_of(tmp_path / "weights.safetensors", {}) == kind


def test_masks_are_not_asked_of_an_encoder() -> None:
    with pytest.raises(ValueError, match="must be one of sam2, sam2_video for AutoModelFor.*; got"):
        AutoModelForMaskGeneration.from_config(CONFIG.vision_config)


@pytest.mark.parametrize("name", ["AutoModel", "AutoModelForMaskGeneration", "AutoConfig", "AutoProcessor"])
def test_other_models_get_a_sentence(name: str, tmp_path: Path) -> None:
    auto = getattr(sam2_jax, name)
    with pytest.raises(ValueError, match=f"{name} has no objects of its own: {name}.from_pretrained chooses"):
        auto()
    if name != "AutoProcessor":  # which may lie in a folder of its own
        with pytest.raises(ValueError, match="config.json"):
            auto.from_pretrained(tmp_path)
    for model_type in ("clip", None, ["sam2"]):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        with pytest.raises(ValueError, match="model_type must be one of .*sam2.*; got"):
            auto.from_pretrained(tmp_path)


def test_what_cannot_be_meant_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="did you mean revision?"):
        AutoConfig.from_pretrained(folder, revison="main")
    with pytest.raises(ValueError, match="model must be given, once"):
        AutoModel.from_pretrained()
    with pytest.raises(ValueError, match="did you mean dtype?"):
        AutoModel.from_pretrained("no/such-model-is-asked-for", dtyp="bfloat16")
    with pytest.raises(ValueError, match="dtype must be float32 or bfloat16"):
        AutoModel.from_pretrained("no/such-model-is-asked-for", torch_dtype="int8")
    with pytest.raises(ValueError, match="did you mean do_resize?"):
        AutoProcessor.from_pretrained("no/such-model-is-asked-for", do_resiz=False)
    with pytest.raises(ValueError, match="unknown model_type 'sam': did you mean sam2?"):
        AutoConfig.for_model("sam")
    with pytest.raises(ValueError, match="did you mean image_size?"):
        AutoConfig.for_model("sam2_video", image_siz=3)
    with pytest.raises(ValueError, match=r"config must be a configuration such as Sam2Config\(\); got"):
        AutoModel.from_config({"model_type": "sam2"})
    assert AutoConfig.for_model("sam2") == Sam2Config()
