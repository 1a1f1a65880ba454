"""Compiling ahead of time, few traces over a realistic workload, and the opt-in cache on disk."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small_models import model_of_its_own

from sam2_jax import Sam2Model, use_compilation_cache

PIXELS = np.random.default_rng(60).standard_normal((3, 64, 64, 3)).astype(np.float32)


def workload(model: Sam2Model) -> Iterator[Any]:
    """A day of mixed work: clicks, refinements, boxes and several objects, photo after photo."""
    rng = np.random.default_rng(61)
    for day in range(3):
        embeddings = model.get_image_embeddings(PIXELS[day : day + 1])
        for clicks in (1, 2, 3, 4):
            points = rng.uniform(0, 64, (1, 1, clicks, 2)).astype(np.float32)
            yield model(image_embeddings=embeddings, input_points=points)
        for count in (1, 2, 3, 5, 7, 8):
            boxes = np.sort(rng.uniform(0, 64, (1, count, 2, 2)), axis=2).reshape(1, count, 4)
            yield model(image_embeddings=embeddings, input_boxes=boxes.astype(np.float32))


@pytest.mark.slow
def test_a_mixed_workload_traces_a_few_shapes_once(traces: list[str]) -> None:
    model = model_of_its_own()
    traces.clear()
    assert len(list(workload(model))) == 30
    # A click alone; up to 4 clicks, or a box, on 1, 2, 4 or 8 objects.
    assert sorted(traces) == ["decode_masks"] * 5 + ["encode_image"]
    traces.clear()
    list(workload(model))
    assert traces == []


@pytest.mark.slow
def test_what_was_compiled_ahead_is_not_traced_again(
    traces: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_of_its_own()
    traces.clear()
    seconds = model.compile(objects=(1, 3), points=(2,), progress=True)
    assert list(seconds) == [
        "encoder, 1 x 64 x 64",
        "decoder, 1 x 1 objects x 4 points, several masks out",
        "decoder, 1 x 4 objects x 4 points, several masks out",
    ]
    assert all(s > 0 for s in seconds.values())
    assert "compiling" in capsys.readouterr().err
    assert sorted(traces) == ["decode_masks", "decode_masks", "encode_image"]
    traces.clear()
    for count in (1, 3, 4):
        points = np.full((1, count, 3, 2), 20, np.float32)
        assert model(PIXELS[:1], points).pred_masks.shape == (1, count, 3, 16, 16)
    assert traces == []


@pytest.mark.parametrize("sizes", [{"batch_sizes": ()}, {"objects": (0,)}, {"points": (1, -1)}])
def test_sizes_below_one_are_refused(small_model: Sam2Model, sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(sizes))} must be numbers of at least 1; got"):
        small_model.compile(**sizes)


# --- the cache on disk


@pytest.fixture
def settings() -> Iterator[None]:
    """JAX's settings of this process, put back after the test."""
    from jax.experimental.compilation_cache import compilation_cache

    kept = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in kept}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_without_the_setting_nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAM2_JAX_COMPILATION_CACHE", raising=False)
    before = jax.config.jax_compilation_cache_dir
    assert use_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir == before


def test_the_setting_makes_a_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: None
) -> None:
    monkeypatch.setenv("SAM2_JAX_COMPILATION_CACHE", str(tmp_path / "a" / "cache"))
    folder = use_compilation_cache()
    assert folder == tmp_path / "a" / "cache"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert jax.config.jax_compilation_cache_dir == str(folder)
    jax.jit(lambda x: x * 3.25 + 7)(np.ones(5, np.float32)).block_until_ready()
    assert any(folder.iterdir())


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX rights")
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ValueError, match="nobody else can write to.*mode 777.*chmod 700"):
        use_compilation_cache(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="the compilation cache cannot be made at"):
        use_compilation_cache(tmp_path / "file" / "cache")


_PROGRAM = """
import numpy as np, sys
from sam2_jax import Sam2HieraDetConfig, Sam2HieraDetModel
config = Sam2HieraDetConfig(hidden_size=8, embed_dim_per_stage=[8, 16, 32, 64], blocks_per_stage=[1, 1, 1, 1],
    num_attention_heads_per_stage=[1, 1, 2, 2], global_attention_blocks=[2])
Sam2HieraDetModel(config)(np.ones((1, 32, 32, 3), np.float32))
"""


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    environment = os.environ | {"SAM2_JAX_COMPILATION_CACHE": str(folder), "JAX_PLATFORMS": "cpu"}

    def programs() -> set[str]:
        subprocess.run([sys.executable, "-c", _PROGRAM], env=environment, check=True, capture_output=True)
        return {path.name for path in folder.iterdir() if path.name.endswith("-cache")}

    first = programs()
    assert len(first) > 2
    assert programs() == first
