"""Training on clips: it computes what the tracker does, learns through memory, and freezes what it should."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import random_tensors, smallest_video_config

from sam2_jax import Sam2ImageProcessor, Sam2VideoModel
from sam2_jax.checkpoint import names
from sam2_jax.model.memory_bank import Plan
from sam2_jax.training.clip_batches import ClipExample, SyntheticClips, make_clip_batch
from sam2_jax.training.clip_plan import clip_plan
from sam2_jax.training.clip_step import ClipBatch, ClipLosses, clip_losses
from sam2_jax.training.clip_trainer import ClipTrainingOptions, train_on_clips
from sam2_jax.training.losses import LossWeights
from sam2_jax.training.optimizer import OptimizerOptions
from sam2_jax.training.parameters import merge_parameters, split_parameters
from sam2_jax.training.prompts import PromptOptions, Prompts, correct, first_prompts

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")

FRAMES, OBJECTS, SIZE = 4, 2, 64
# On a frame without a prompt it is one token's mask that is learnt and shown.
CONFIG = smallest_video_config(num_maskmem=3, max_object_pointers_in_encoder=4, multimask_min_pt_num=1)
CONFIG = replace(
    CONFIG,
    mask_decoder_config=replace(CONFIG.mask_decoder_config, dynamic_multimask_via_stability=False),
)
PROCESSOR = Sam2ImageProcessor.for_config(CONFIG.image_config)
MEMORY = ("memory_*", "object_pointer_proj.*")
CLICKS = PromptOptions(point=1, box=0, mask=0, correction_rounds=1)
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def model() -> Sam2VideoModel:
    params = names.unflatten(names.to_flax(random_tensors(CONFIG)))
    # Objects are there, and what follows is not the same for all of them.
    params["mask_decoder"]["pred_obj_score_head"]["proj_out"]["bias"] += 4
    return Sam2VideoModel(CONFIG, params)


def example(frames: int = FRAMES, seed: int = 1, index: int = 0) -> ClipExample:
    return SyntheticClips(seed, SIZE, frames, strides=(1,)).example(index)


def clip_of(given: ClipExample, corrected: tuple[int, ...] = ()) -> ClipBatch:
    """The clip as it is, neither turned nor mirrored, without the axis of a batch."""
    pixels = np.asarray(PROCESSOR([*given.images])["pixel_values"], np.float32)
    first = given.masks[:, np.argsort(-given.masks[0].sum(axis=(1, 2)))[:OBJECTS]]
    shares = first.reshape(len(first), -1, SIZE // 4, 4, SIZE // 4, 4).mean(axis=(3, 5), dtype=np.float32)
    shares = shares.repeat(OBJECTS, axis=1)[:, :OBJECTS]
    plans = clip_plan(CONFIG, len(first), corrected, 1, OBJECTS)
    return ClipBatch(pixels, shares, np.ones(OBJECTS, bool), plans)


@partial(jax.jit, static_argnames="module")
def losses_of(params: Any, clip: ClipBatch, *, module: Any) -> ClipLosses:
    return clip_losses(module, params, clip, KEY, CLICKS, LossWeights())


@pytest.mark.slow
def test_frames_are_tracked_and_corrected_as_the_tracker_does_it(model: Sam2VideoModel) -> None:
    """Two clicks on the first frame, one on the third; then all others follow of their memories."""
    given, corrected = example(), 2
    clip = clip_of(given, (corrected,))
    found = losses_of(model.params, clip, module=model.module)

    session = model.video(given.images, memory_dtype=jnp.float32)
    first_key = jax.random.split(jax.random.fold_in(KEY, 0))
    prompts = first_prompts(first_key[0], jnp.asarray(clip.masks[:1] > 0.5), (SIZE, SIZE), CLICKS)
    logits = prompt(session, 0, prompts)
    logits = prompt(session, 0, click(first_key[1], prompts, logits, clip.masks[0]))
    expected = [logits]
    for t in range(1, FRAMES):
        (tracked,) = session.propagate(start=t, count=0)
        logits = tracked.logits
        if t == corrected:
            nothing = Prompts(
                jnp.zeros((1, OBJECTS, 3, 2)),
                jnp.full((1, OBJECTS, 3), -10),
                logits[None],
                jnp.ones((1, OBJECTS), bool),
            )
            logits = prompt(session, t, click(jax.random.fold_in(KEY, t), nothing, logits, clip.masks[t]))
        expected.append(logits)
    assert (np.stack(expected) > -1000).mean() > 0.9
    np.testing.assert_allclose(found.logits, np.stack(expected), rtol=0, atol=2e-4)


def click(key: jax.Array, prompts: Prompts, logits: Any, targets: np.ndarray) -> Prompts:
    logits = jnp.clip(jnp.asarray(logits), -32, 32)[None]
    of_round = jax.random.fold_in(key, 0)
    return correct(
        of_round, prompts, jnp.int32(0), logits, jnp.asarray(targets[None] > 0.5), (SIZE, SIZE), CLICKS
    )


def prompt(session: Any, t: int, prompts: Prompts) -> np.ndarray:
    found = []
    for i in range(OBJECTS):
        labels = np.asarray(prompts.labels[0, i])
        used = labels >= 0
        result = session.prompt(t, i, points=np.asarray(prompts.points[0, i])[used], labels=labels[used])
        found.append(result.logits[0])
    return np.stack(found)


def test_plans_are_those_of_the_tracker() -> None:
    """Of five frames of which the third is corrected; 2 recent memories, pointers of 3 frames back."""
    plans = clip_plan(CONFIG, 5, [2], 1, OBJECTS)
    last: Plan = jax.tree.map(lambda x: x[4, 0], plans)
    # Slots: two of conditioning frames (0 and 2), then the ring, whose two frames are 1 and 3.
    assert last.valid.tolist() == [True, True, False, True]
    assert last.row[last.valid].tolist() == [2, 2, 0]
    np.testing.assert_allclose(last.offset[last.pointer_valid] * 3, [4, 2, 3, 1], atol=1e-6)
    assert plans.tracked[:, 0].tolist() == [False, True, False, True, True]
    assert plans.slot[:, 0].tolist() == [0, 2, 1, 3, 2]
    assert plans.row.shape == (5, OBJECTS, 4)


SHORT = PromptOptions(point=0, box=0, mask=1, correction_rounds=0)


def gradients(model: Sam2VideoModel, clip: ClipBatch, patterns: tuple[str, ...], *, remat: bool) -> Any:
    split = split_parameters(model.params, patterns)

    def loss(trained: Any, clip: ClipBatch) -> jax.Array:
        params = merge_parameters(trained, split.frozen)
        found = clip_losses(model.module, params, clip, KEY, SHORT, LossWeights())
        return found.losses.total

    with pytest.MonkeyPatch.context() as patch:
        if not remat:
            patch.setattr(jax, "checkpoint", lambda function: function)
        return jax.jit(jax.grad(loss))(split.trained, clip)


@pytest.mark.slow
def test_gradients_pass_through_time_and_are_the_same_without_rematerialisation(
    model: Sam2VideoModel,
) -> None:
    clip = clip_of(example(3))
    kept, again = (gradients(model, clip, MEMORY, remat=remat) for remat in (False, True))
    for name, value in kept.items():
        assert np.linalg.norm(again[name] - value) <= 1e-4 * np.linalg.norm(value) + 1e-7, name
        # The bias of keys moves all scores of a query alike.
        if not name.endswith("k_proj.bias"):
            assert np.abs(value).max() > 0, name


@pytest.mark.slow
def test_the_loss_of_a_clip_falls_and_what_is_frozen_stays(model: Sam2VideoModel) -> None:
    class One:
        def example(self, number: int) -> ClipExample:
            return example(3)

    options = ClipTrainingOptions(
        steps=100,
        objects=OBJECTS,
        trained=("memory_*", "*object_pointer*", "mask_decoder.*"),
        corrected_frames=0,
        optimizer=OptimizerOptions(learning_rate=3e-3, warmup_steps=2, clip_norm=1.0, weight_decay=0),
        prompts=SHORT,
    )
    trained, rows = train_on_clips(model, One(), options, log_every=10, progress=False)
    assert rows[-1]["total"] < 0.5 * rows[0]["total"]
    before, after = names.flatten(model.params), names.flatten(trained.params)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {name for name in before if name.startswith("memory_attention.") and "kernel" in name} <= moved
    assert not {name for name in moved if name.startswith(("vision_encoder.", "prompt_encoder."))}


def test_batches_are_of_objects_seen_in_the_first_frame_forward_and_backward() -> None:
    given = example()
    orders = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        batch, _ = make_clip_batch([given], PROCESSOR, CONFIG, 3, 1, rng)
        assert batch.pixel_values.shape == (1, 4, SIZE, SIZE, 3)
        assert batch.masks.shape == (1, 4, 3, SIZE // 4, SIZE // 4)
        assert (batch.masks[0, 0].max(axis=(1, 2)) > 0.5).all()
        assert batch.is_object.all()
        assert (~batch.plans.tracked).sum(axis=1).max() <= 2
        means = [
            np.abs(batch.pixel_values[0, 0] - PROCESSOR(images)["pixel_values"][0]).mean()
            for images in (
                given.images[0],
                given.images[0][:, ::-1],
                given.images[-1],
                given.images[-1][:, ::-1],
            )
        ]
        orders.add(int(np.argmin(means)))
    assert orders == {0, 1, 2, 3}


@pytest.mark.slow
def test_clips_of_a_batch_are_each_as_alone(model: Sam2VideoModel) -> None:
    clips = [clip_of(example(index=index), corrected) for index, corrected in ((0, (2,)), (1, ()))]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *clips)
    together = jax.vmap(partial(losses_of, module=model.module), in_axes=(None, 0))(model.params, batch)
    for i, clip in enumerate(clips):
        alone = losses_of(model.params, clip, module=model.module)
        np.testing.assert_allclose(together.logits[i], alone.logits, rtol=0, atol=2e-4)
        np.testing.assert_allclose(together.losses.total[i], alone.losses.total, rtol=1e-4)
