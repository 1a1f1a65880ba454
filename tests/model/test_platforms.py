"""Each platform gets a program of its own, whichever machine traces it: lowered here, compiled nowhere."""

from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, PartitionSpec
from small_models import random_tensors, smallest_config

from sam2_jax import Sam2Model
from sam2_jax.checkpoint import names
from sam2_jax.model import layers
from sam2_jax.model.layers import attend
from sam2_jax.model.mask_decoder import MaskPrediction
from sam2_jax.model.multi_scale_block import MultiScaleBlock
from sam2_jax.model.platforms import tracing_for
from sam2_jax.model.sam2 import Sam2
from sam2_jax.model.windows import WindowOrder

# So large that images and objects go one by one on a CPU, bands of windows too, and attention in steps.
CONFIG = smallest_config((512, 512))
PARAMS = names.unflatten(names.to_flax(random_tensors(CONFIG)))
PIXELS = jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.float32)
POINTS = np.full((2, 3, 1, 2), 100, np.float32)
LABELS = np.ones((2, 3, 1), np.int32)
PLATFORMS = ("cpu", "cuda", "tpu")


def lowered(traced: Any) -> dict[str, str]:
    """The programs of what was traced once, by platform."""
    return {name: traced.lower(lowering_platforms=(name,)).as_text() for name in PLATFORMS}


def loops(text: str) -> int:
    return text.count("stablehlo.while")


def as_a_researcher(dtype: Any = jnp.float32) -> Callable[..., Any]:
    module = Sam2(CONFIG, dtype=dtype)
    return lambda params, pixels: module.apply({"params": params}, pixels, POINTS, LABELS)


def test_each_platform_has_its_program_whoever_traces_it() -> None:
    predict = as_a_researcher()
    programs = lowered(jax.jit(predict).trace(PARAMS, PIXELS))
    # Over images, bands and objects, over heads and steps of attention; an accelerator takes all at once.
    assert loops(programs["cpu"]) >= 5
    assert loops(programs["tpu"]) == loops(programs["cuda"]) == 0
    assert programs["tpu"] != programs["cuda"]  # patches in depth, tokens moved by products


def test_calls_of_a_model_have_them_too() -> None:
    model = Sam2Model(CONFIG, PARAMS)
    programs = lowered(jax.jit(lambda x: model(x, POINTS).pred_masks).trace(PIXELS))
    assert loops(programs["cpu"]) >= 5
    assert loops(programs["tpu"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "transform",
    [
        lambda f: jax.grad(lambda p, x: sum(jnp.square(leaf).mean() for leaf in jax.tree.leaves(f(p, x)))),
        lambda f: lambda p, x: jax.vmap(f, (None, 0))(p, x[:, None].repeat(2, axis=1)),
        jax.checkpoint,
        lambda f: jax.shard_map(
            f,
            mesh=jax.make_mesh((1,), ("images",), axis_types=(AxisType.Auto,)),
            in_specs=(PartitionSpec(), PartitionSpec("images")),
            out_specs=PartitionSpec("images"),
        ),
    ],
    ids=["grad", "vmap", "checkpoint", "shard_map"],
)
def test_transformed_programs_are_for_their_platform(transform: Callable[..., Any]) -> None:
    programs = lowered(jax.jit(transform(as_a_researcher())).trace(PARAMS, PIXELS))
    assert loops(programs["cpu"]) >= 5
    assert loops(programs["tpu"]) < 5


def test_one_export_holds_the_programs_of_several_platforms() -> None:
    exported = export.export(jax.jit(as_a_researcher()), platforms=PLATFORMS)(PARAMS, PIXELS)
    assert exported.platforms == PLATFORMS
    text = exported.mlir_module()
    assert loops(text) >= 5
    assert "_platform_index" in text


@pytest.mark.slow
def test_an_export_may_leave_numbers_of_images_objects_and_points_open() -> None:
    config = smallest_config()
    params = names.unflatten(names.to_flax(random_tensors(config)))
    module = Sam2(config)

    def predict(params: Any, pixels: Any, points: Any, labels: Any) -> MaskPrediction:
        return module.apply({"params": params}, pixels, points, labels)

    images, objects, count = export.symbolic_shape("images, objects, points")
    shapes = (
        jax.ShapeDtypeStruct((images, 64, 64, 3), jnp.float32),
        jax.ShapeDtypeStruct((images, objects, count, 2), jnp.float32),
        jax.ShapeDtypeStruct((images, objects, count), jnp.int32),
    )
    exported = export.export(jax.jit(predict), platforms=PLATFORMS)(params, *shapes)
    if find_spec("flatbuffers"):  # which JAX needs to write an export
        exported = export.deserialize(exported.serialize())
    pixels = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
    found = exported.call(params, pixels, POINTS[:, :2] % 64, LABELS[:, :2])
    expected = jax.jit(predict)(params, pixels, POINTS[:, :2] % 64, LABELS[:, :2])
    assert isinstance(found, MaskPrediction)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


@pytest.mark.parametrize("open_dimension", ["images", "objects"])
def test_open_numbers_of_images_and_objects_are_taken_for_many(open_dimension: str) -> None:
    (n,) = export.symbolic_shape(open_dimension)
    images, objects = (n, 2) if open_dimension == "images" else (1, n)
    shapes = (
        jax.ShapeDtypeStruct((images, 512, 512, 3), jnp.float32),
        jax.ShapeDtypeStruct((images, objects, 1, 2), jnp.float32),
        jax.ShapeDtypeStruct((images, objects, 1), jnp.int32),
    )
    predict = jax.jit(lambda p, *x: Sam2(CONFIG).apply({"params": p}, *x))
    exported = export.export(predict, platforms=["cpu"])(PARAMS, *shapes)
    assert loops(exported.mlir_module()) >= 4


def test_products_of_bfloat16_are_accumulated_as_the_platform_likes_it() -> None:
    model = Sam2(smallest_config(), dtype=jnp.bfloat16)
    params = names.unflatten(names.to_flax(random_tensors(model.config)))
    encode = jax.jit(lambda x: model.apply({"params": params}, x, method="encode_image"))
    programs = lowered(encode.trace(jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)))

    def widened(text: str) -> int:
        products = (line for line in text.splitlines() if "dot_general" in line)
        return sum("xbf16>) ->" in line and "xf32>" in line for line in products)

    assert widened(programs["cpu"]) > widened(programs["tpu"])


def test_attention_in_bfloat16_takes_cudnn_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if JAX's CUDA plugin was installed, which tells the version of cuDNN that the program is for."""
    versions = "jax._src.cudnn.fused_attention_stablehlo.cuda_versions"
    monkeypatch.setattr(versions, SimpleNamespace(cudnn_get_version=lambda: 91000))
    shape = jax.ShapeDtypeStruct((1, 1, 1024, 2, 64), jnp.bfloat16)
    programs = lowered(jax.jit(lambda q, k, v: attend(q, k, v)[0]).trace(shape, shape, shape))
    cudnn = {name: "__cudnn$fmha" in text for name, text in programs.items()}
    assert cudnn == {"cpu": False, "cuda": True, "tpu": False}
    assert loops(programs["cpu"]) == 2, "over heads and over steps"


@pytest.mark.parametrize("order", [None, WindowOrder(4, 1, 2)], ids=["map", "laid out"])
def test_where_a_stage_begins_a_gpu_launches_few_products(order: WindowOrder | None) -> None:
    """Those of any block and the shortcut's: what others do in parts to save memory costs a GPU launches."""
    backbone = smallest_config().vision_config.backbone_config
    block = MultiScaleBlock(8, 16, num_heads=2, window=4, pool=True, config=backbone)
    x = jax.ShapeDtypeStruct((1, 8, 8, 8) if order is None else (1, 4, 16, 8), jnp.float32)
    params = jax.eval_shape(block.init, jax.random.key(0), x, order)
    products = {}
    for platform in ("cpu", "gpu", "tpu"):
        with tracing_for(platform):
            traced = jax.make_jaxpr(lambda *operands: block.apply(*operands, order))(params, x)
        products[platform] = str(traced).count("dot_general[")
    moves = 2 if order is None else 0  # windows of a map, on a TPU
    assert products == {"cpu": 15, "gpu": 7, "tpu": 15 + moves}


def test_small_programs_are_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = smallest_config()
    params = names.unflatten(names.to_flax(random_tensors(config)))  # shapes are traced here
    traced: list[int] = []
    attention = layers._attend_plain
    monkeypatch.setattr(layers, "_attend_plain", lambda *args: (traced.append(1), attention(*args))[1])
    encode = jax.jit(lambda x: Sam2(config).apply({"params": params}, x, method="encode_image"))
    encode.trace(jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
    assert len(traced) == sum(config.vision_config.backbone_config.blocks_per_stage)
