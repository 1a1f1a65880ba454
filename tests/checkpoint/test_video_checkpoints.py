"""Video checkpoints load and save whole, in every layout, and are those of transformers by name and shape."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from meta_files import as_meta, write_meta
from safetensors.numpy import load_file
from small_models import random_tensors, smallest_config, smallest_video_config

from sam2_jax import RELEASED_MODELS, Sam2Model, Sam2VideoConfig
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.files import write_checkpoint
from sam2_jax.checkpoint.pretrained import PretrainedModel, parameter_shapes
from sam2_jax.config import released_video_config


class VideoNetwork(PretrainedModel[Sam2VideoConfig]):
    """The video network, saved and loaded, with nothing around it."""

    config_class = Sam2VideoConfig


@pytest.mark.parametrize("version", ["2.0", "2.1"])
@pytest.mark.parametrize("layout", ["flax", "transformers"])
def test_a_video_model_comes_back_whole(tmp_path: Path, version: str, layout: str) -> None:
    config = smallest_video_config(version)
    tensors = random_tensors(config)
    write_checkpoint(tmp_path / "given", names.to_flax(tensors), config, "transformers")
    model = VideoNetwork.from_pretrained(tmp_path / "given")
    assert model.config == config
    model.save_pretrained(tmp_path / "saved", layout=layout)
    again = VideoNetwork.from_pretrained(tmp_path / "saved")
    found = names.to_torch({name: np.asarray(x) for name, x in names.flatten(again.params).items()})
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    if layout == "transformers":
        assert load_file(tmp_path / "saved" / "model.safetensors").keys() == tensors.keys()


def test_a_file_of_meta_is_a_video_model_too(tmp_path: Path) -> None:
    config = smallest_video_config()
    tensors = random_tensors(config)
    path = write_meta(tmp_path / "x.pt", as_meta(tensors))
    model = VideoNetwork.from_pretrained(path, config=config)
    found = names.to_torch({name: np.asarray(x) for name, x in names.flatten(model.params).items()})
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_the_image_model_in_it_is_the_same(tmp_path: Path) -> None:
    config = smallest_video_config()
    write_checkpoint(tmp_path, names.to_flax(random_tensors(config)), config, "flax")
    image = names.flatten(Sam2Model.from_pretrained(tmp_path).params)
    video = names.flatten(VideoNetwork.from_pretrained(tmp_path).params)
    assert {name for name in video if name not in image} == {n for n in video if names.is_video_only(n)}
    for name, value in image.items():
        np.testing.assert_array_equal(value, video[name])


def test_an_image_model_is_no_video_model(tmp_path: Path) -> None:
    image = smallest_config()
    write_checkpoint(tmp_path / "image", names.to_flax(random_tensors(image)), image, "flax")
    with pytest.raises(ValueError, match=r"model_type must be one of \['sam2_video'\]; got 'sam2'"):
        VideoNetwork.from_pretrained(tmp_path / "image")
    # What was fine-tuned as an image model, under the configuration of the whole.
    tuned = names.to_flax(random_tensors(image))
    write_checkpoint(tmp_path / "tuned", tuned, smallest_video_config(), "flax")
    with pytest.raises(ValueError, match="must hold a video model, and has no tensor of a memory"):
        VideoNetwork.from_pretrained(tmp_path / "tuned")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_random_model_has_every_parameter() -> None:
    model = VideoNetwork(smallest_video_config())
    assert names.shapes(names.flatten(model.params)) == parameter_shapes(model.config)
    assert "64 x 64" in repr(model)


@pytest.mark.parametrize("model", RELEASED_MODELS)
def test_names_and_shapes_are_those_of_transformers(model: str) -> None:
    torch = pytest.importorskip("torch")
    transformers: Any = pytest.importorskip("transformers")
    config = released_video_config(model)
    with torch.device("meta"):
        theirs = transformers.Sam2VideoModel(transformers.Sam2VideoConfig.from_dict(config.to_dict()))
    found = names.torch_shapes(parameter_shapes(config))
    assert found == names.shapes(theirs.state_dict())
