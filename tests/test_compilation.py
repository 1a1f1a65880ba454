"""Compiling ahead of time, few traces over a realistic workload, and the opt-in cache on disk."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small_models import model_of_its_own

from sam2_jax import AutomaticMaskGenerator, Sam2Model, use_compilation_cache

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
def test_a_first_answer_takes_a_few_programs(quick_compilation: None) -> None:
    """The encoder, the decoder and what copies arrays; not one for each constant in the network."""
    compiled: list[Any] = []

    def listen(event: str, _: float, **about: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(about.get("fun_name"))

    model = model_of_its_own()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        embeddings = model.get_image_embeddings(PIXELS[:1])
        model(image_embeddings=embeddings, input_points=np.full((1, 1, 1, 2), 20, np.float32))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert 2 <= len(compiled) <= 8, compiled


@pytest.mark.slow
def test_what_was_compiled_ahead_is_not_traced_again(
    traces: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_of_its_own()
    traces.clear()
    seconds = model.compile(objects=(1, 3), points=(2,), uses="call", progress=True)
    assert list(seconds) == [
        "encoder, 1 x 64 x 64",
        "call, 1 x 1 objects x 2 points, several masks out",
        "call, 1 x 3 objects x 2 points, several masks out",
    ]
    assert all(s > 0 for s in seconds.values())
    assert "compiling" in capsys.readouterr().err
    assert sorted(traces) == ["decode_masks", "decode_masks", "encode_image"]
    traces.clear()
    for count in (1, 3, 4):
        points = np.full((1, count, 3, 2), 20, np.float32)
        assert model(PIXELS[:1], points).pred_masks.shape == (1, count, 3, 16, 16)
    assert traces == []


_compiled: list[str] = []


def _note(event: str, *_: Any, **__: Any) -> None:
    if event.endswith("backend_compile_duration"):
        _compiled.append(event)


@pytest.fixture(scope="module")
def listening() -> None:
    jax.monitoring.register_event_duration_secs_listener(_note)


@pytest.fixture
def compiled(listening: None) -> list[str]:
    """What XLA compiles or takes from the cache on disk, helpers of one operation too."""
    _compiled.clear()
    return _compiled


def test_loading_compiles_nothing(compiled: list[str], tmp_path: Path) -> None:
    """Not even a copy for each shape of the parameters."""
    model_of_its_own().save_pretrained(tmp_path)
    jax.clear_caches()  # the small programs that other tests have made
    compiled.clear()
    Sam2Model.from_pretrained(tmp_path)
    assert compiled == []


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_after_compile_neither_sessions_nor_batches_nor_generators_compile(compiled: list[str]) -> None:
    model = model_of_its_own()
    jax.clear_caches()  # the small programs that other tests have made
    model.compile(batch_sizes=2, objects=(1, 3))
    assert len(compiled) > 5
    compiled.clear()
    photo = np.full((30, 40, 3), 120, np.uint8)

    def used(name: str) -> None:
        assert compiled == [], name

    inputs = model.processor([photo, photo], input_points=[[[[1, 2]], [[3, 4]], [[5, 6]]]] * 2)
    assert model(**inputs).pred_masks.shape == (2, 3, 3, 16, 16)
    used("a call")
    session = model.predictor(photo)
    assert session.click(3, 4).masks.shape == (3, 30, 40)
    used("a first click")
    session.click(30, 20)
    session.click(20, 20, positive=False)
    used("clicks that refine")
    session.set_box(1, 2, 30, 20)
    used("a box")
    session.predict_objects([[(1, 2)], [(3, 4)], None], boxes=[None, None, (1, 2, 30, 20)])
    used("several objects")
    one, three = ({"photo": photo, "points": [[(1, 2)]] * count} for count in (1, 3))
    assert len(list(model.predict_batch([one, three, three], batch_size=2, progress=False))) == 3
    used("batches")
    AutomaticMaskGenerator(model).generate(photo)
    used("a generator")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_generator_prepares_what_its_own_options_need(compiled: list[str]) -> None:
    model = model_of_its_own()
    options = {"points_per_side": 3, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2}
    generator = AutomaticMaskGenerator(model, use_m2m=True, pred_iou_thresh=0.3, **options)
    seconds = generator.compile()
    assert list(seconds) == [
        "encoder, 1 x 64 x 64",
        "generate, 1 clicks at a time",
        "generate, 9 clicks at a time",
    ]
    compiled.clear()
    generator.generate(np.full((30, 40, 3), 120, np.uint8))
    assert compiled == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_sizes": ()}, "batch_sizes must be numbers of at least 1"),
        ({"objects": (0,)}, "objects must be a whole number of at least 1; got 0"),
        ({"points": (1, -1)}, "points must be a whole number of at least 1; got -1"),
        ({"points": 1.5}, "points must be a whole number of at least 1; got 1.5"),
        ({"input_masks": 2}, "input_masks must be True or False; got 2"),
        ({"multimask_output": ()}, "multimask_output must be True, False or both"),
        ({"uses": "sesion"}, "unknown use 'sesion' to compile for: did you mean session?"),
        ({"uses": ()}, "unknown use"),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    small_model: Sam2Model, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small_model.compile(**arguments)


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


_PIECES = """
import os
from pathlib import Path
import jax
from sam2_jax.compilation import give_back_after_compiling

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

give_back_after_compiling()
pieces = [b"." * (2**14 + i) for i in range(6000)]  # 94 MB
del pieces[:-1]
held = resident()
for seconds in (0.1, 2.0):
    jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", seconds)
    print(held - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of other C libraries nothing is asked")
def test_what_compiling_used_goes_back_to_the_system() -> None:
    """Free memory between pieces that are in use, which is what compiling leaves. In a process of its own:
    other tests' threads are not at work there.
    """
    after_short, after_long = map(
        float, subprocess.run([sys.executable, "-c", _PIECES], check=True, capture_output=True).stdout.split()
    )
    assert abs(after_short) < 10
    assert after_long > 80
