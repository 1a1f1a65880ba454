"""The embedded video model: tensors of its own, and for all others those of the image model."""

from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

from benchmarks.embedded_video import LEARNED, embedded_video_config
from sam2_jax import Sam2Model, Sam2VideoConfig, Sam2VideoModel
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.files import cast, write_checkpoint
from sam2_jax.checkpoint.hub import EMBEDDED
from sam2_jax.checkpoint.pretrained import parameter_shapes


def test_what_is_packaged_is_what_differs_and_both_make_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Sam2Model.from_pretrained(EMBEDDED)
    given = {name: np.asarray(value) for name, value in names.flatten(image.params).items()}
    config = embedded_video_config(image.config)
    shapes = parameter_shapes(config)
    own = {
        name: np.full(shape, 0.5, np.float32)
        for name, shape in shapes.items()
        if name not in given or any(fnmatchcase(name, pattern) for pattern in LEARNED)
    }
    write_checkpoint(tmp_path / "own", cast(own, np.float16), config)
    assert sum(file.stat().st_size for file in (tmp_path / "own").iterdir()) <= 4e6
    monkeypatch.setattr("sam2_jax.checkpoint.hub.EMBEDDED_VIDEO_MODEL", tmp_path / "own")
    model = Sam2VideoModel.from_pretrained(EMBEDDED)
    assert model.config == Sam2VideoConfig.from_pretrained(EMBEDDED) == config
    for name, value in names.flatten(model.params).items():
        np.testing.assert_array_equal(value, own.get(name, given.get(name)), err_msg=name)
    assert Sam2Model.from_pretrained(EMBEDDED).config == image.config


def test_a_package_without_one_says_what_to_name_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam2_jax.checkpoint.hub.EMBEDDED_VIDEO_MODEL", tmp_path / "none")
    for kind in (Sam2VideoModel, Sam2VideoConfig):
        with pytest.raises(ValueError, match=r"without a model for clips: 'embedded' .*Name a hub id"):
            kind.from_pretrained(EMBEDDED)
