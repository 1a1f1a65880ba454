"""The steps of a video give the references' masks, scores and pointers: prompted on frame 0, then tracked."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import random_tensors, smallest_video_config
from video_references import forward_plan, load, pixels

from sam2_jax.checkpoint import names
from sam2_jax.model import memory_attention, sam2_video
from sam2_jax.model.memory_bank import FrameOutput, Plan, VideoState, store
from sam2_jax.model.sam2_video import Sam2Video, resize_mask

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")
# Absolute, of logits, pointers and scores; memories rounded to bfloat16 may differ by a flipped bit.
LIMITS = {"float32": (2e-4, 1e-4, 1e-4), "bfloat16": (3e-3, 1e-3, 1e-3)}


class Clip:
    """A scenario of the references, its network and its steps, compiled."""

    def __init__(self, reference_dir: Path, name: str, dtype: Any = jnp.float32) -> None:
        folder = reference_dir / "reference" / "video"
        self.expected = np.load(folder / f"{name}.npz")
        self.spec = json.loads(str(self.expected["spec"]))
        self.pixels = pixels(folder, self.spec["clip"])[self.spec["frames"]]
        self.config, params = load(folder, self.spec["model"], self.pixels.shape[1])
        self.params = jax.tree.map(jnp.asarray, params)
        for path, value in self.spec["weights"].items():
            *levels, last = path.split(".")
            node = self.params
            for level in levels:
                node = node[level]
            node[last] = jnp.full_like(node[last], value)
        self.module = Sam2Video(self.config, dtype=dtype)
        self.prompts = [op for op in self.spec["operations"] if op["do"] != "propagate"]

    def call(self, method: str, *inputs: Any, **options: Any) -> Any:
        return self._compiled(method, tuple(options.items()))(self.params, *inputs)

    def _compiled(self, method: str, options: Any) -> Any:
        key = method, options
        kept: dict[Any, Any] = self.__dict__.setdefault("kept", {})
        if key not in kept:
            kept[key] = jax.jit(
                lambda params, *inputs: self.module.apply(
                    {"params": params}, *inputs, method=method, **dict(options)
                )
            )
        return kept[key]

    def prompt(self, features: Any, op: dict[str, Any]) -> FrameOutput:
        """The output of one object's first prompt."""
        height, width = self.spec["size"]
        if op["do"] == "mask":
            _, x, y, radius = op["mask"]
            ys, xs = np.mgrid[:height, :width]
            mask = ((xs - x) ** 2 + (ys - y) ** 2 < radius**2)[None]
            return self.call("mask_step", features, resize_mask(jnp.asarray(mask), self.pixels.shape[1:3]))
        scale = self.pixels.shape[1] / np.float32([width, height])
        points = np.float32(op["points"]) * scale
        return self.call(
            "prompt_step",
            features,
            points[None],
            np.int32(op["labels"])[None],
            multimask=self.config.uses_multimask(len(points), is_first=True),
        )

    def begin(self) -> tuple[Any, VideoState, FrameOutput]:
        """Prompt all objects on frame 0: the frame's features, the state, the output."""
        features = self.call("encode_frame", self.pixels[:1])
        outputs = [self.prompt(features, op) for op in self.prompts]
        output = FrameOutput(*map(jnp.concatenate, zip(*outputs, strict=True)))
        objects = len(outputs)
        is_binary = np.ones(objects, bool)
        memory = self.call("remember", features, output.low, output.score, is_binary)
        state = VideoState.empty(self.config, objects, 1, jnp.dtype(self.spec["memory_dtype"]))
        slot = np.zeros(objects, np.int32)
        return features, store(state, slot, slot, is_binary, memory, output.pointer), output

    def plan(self, t: int) -> Plan:
        return forward_plan(self.config, t, len(self.prompts), len(self.pixels))

    def track(self) -> tuple[VideoState, FrameOutput]:
        """The last state and all frames' outputs, [T, P, ...]."""
        _, state, first = self.begin()
        outputs = [first]
        for t in range(1, len(self.pixels)):
            features = self.call("encode_frame", self.pixels[t : t + 1])
            state, (output, *_) = self.call("track_step", features, state, self.plan(t))
            outputs.append(output)
        return state, FrameOutput(*map(np.stack, zip(*outputs, strict=True)))

    def check(self, found: FrameOutput) -> None:
        """Compare with the reference."""
        last = len(self.prompts)
        expected = {name: self.expected[f"{last}/{name}"] for name in ("low", "pointer", "score")}
        for (name, value), limit in zip(expected.items(), LIMITS[self.spec["memory_dtype"]], strict=True):
            np.testing.assert_allclose(getattr(found, name), value, rtol=0, atol=limit, err_msg=name)
        if self.spec["memory_dtype"] == "float32":
            is_there = expected["score"] > 0
            error = np.linalg.norm((found.low - expected["low"])[is_there])
            assert error <= 1e-4 * np.linalg.norm(expected["low"][is_there])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["click_float32_memory", "click_20", "mask_prompt", "two_objects", "disappears", "click_192"]
)
def test_tracking_equals_the_reference(reference_dir: Path, name: str) -> None:
    clip = Clip(reference_dir, name)
    _, found = clip.track()
    clip.check(found)


@pytest.mark.slow
def test_objects_and_slots_one_by_one_equal_the_reference(
    reference_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a CPU takes large maps."""
    monkeypatch.setattr(memory_attention, "_LARGE_MAP", 1)
    monkeypatch.setattr(sam2_video, "_LARGE_MAP", 1)
    clip = Clip(reference_dir, "two_objects")
    assert " cond[" in str(jax.make_jaxpr(partial(clip.call, "track_step"))(*example(clip)))
    clip.check(clip.track()[1])


def example(clip: Clip) -> tuple[Any, VideoState, Plan]:
    features, state, _ = clip.begin()
    return features, state, clip.plan(1)


@pytest.mark.slow
def test_bfloat16_gives_float32_logits_scores_and_pointers(reference_dir: Path) -> None:
    clip = Clip(reference_dir, "click_float32_memory", jnp.bfloat16)
    clip.pixels = clip.pixels[:2]
    clip.spec["memory_dtype"] = "bfloat16"
    state, found = clip.track()
    assert state.memory.dtype == jnp.bfloat16
    assert {x.dtype for x in (*found, state.pointer)} == {np.dtype(np.float32)}
    assert clip.call("encode_frame", clip.pixels[:1]).coarse.dtype == jnp.bfloat16
    expected = clip.expected["1/low"][:2]
    assert np.linalg.norm(found.low - expected) < 0.1 * np.linalg.norm(expected)


@pytest.mark.slow
@pytest.mark.parametrize("one_by_one", [False, True])
def test_an_object_with_nothing_to_see_disturbs_nobody(
    reference_dir: Path, monkeypatch: pytest.MonkeyPatch, one_by_one: bool
) -> None:
    """One that is not tracked, with no valid slot: nothing of it is written, and the other is as alone."""
    if one_by_one:
        monkeypatch.setattr(memory_attention, "_LARGE_MAP", 1)
        monkeypatch.setattr(sam2_video, "_LARGE_MAP", 1)
    clip = Clip(reference_dir, "two_objects")
    features, state, plan = example(clip)
    alone = (
        jax.tree.map(lambda x: x[:1], state),
        plan._replace(
            **{name: getattr(plan, name)[:1] for name in plan._fields if np.ndim(getattr(plan, name))}
        ),
    )
    dormant = plan._replace(
        valid=plan.valid & [[True], [False]],
        pointer_valid=plan.pointer_valid & [[True], [False]],
        tracked=np.array([True, False]),
    )
    after, (found, *_) = clip.call("track_step", features, state, dormant)
    _, (found_alone, *_) = clip.call("track_step", features, *alone)
    close = partial(np.testing.assert_allclose, rtol=0, atol=1e-4)
    jax.tree.map(lambda both, one: close(both[:1], one), found, found_alone)
    jax.tree.map(lambda before, after: np.testing.assert_array_equal(before[1], after[1]), state, after)
    assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in (*found, *after))


@pytest.mark.slow
def test_images_may_be_oblong() -> None:
    config = smallest_video_config(image_size=(64, 96))
    module = Sam2Video(config)
    params = names.unflatten(names.to_flax(random_tensors(config)))
    frames = np.random.default_rng(0).standard_normal((2, 64, 96, 3)).astype(np.float32)

    def track(module: Sam2Video, frames: jax.Array) -> FrameOutput:
        first, second = (module.encode_frame(frames[t : t + 1]) for t in range(2))
        output = module.prompt_step(first, jnp.full((1, 1, 2), 40.0), jnp.ones((1, 1), int), multimask=True)
        yes = np.ones(1, bool)
        memory = module.remember(first, output.low, output.score, yes)
        state = VideoState.empty(config, 1, 1)
        state = store(state, np.zeros(1, int), np.zeros(1, int), yes, memory, output.pointer)
        return module.track_step(second, state, forward_plan(config, 1, 1, 2))[1].output

    found = jax.jit(partial(module.apply, method=track))({"params": params}, frames)
    assert found.low.shape == (1, 16, 24)
    assert all(np.isfinite(x).all() for x in found)
