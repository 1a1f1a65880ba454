"""Training from end to end: it learns, what is frozen stays, and it goes on where it stopped."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from small_models import model_of, smallest_config

from sam2_jax import Sam2Model
from sam2_jax.checkpoint import names
from sam2_jax.training.batches import Scenes, Shuffled, cell_shares, make_batch
from sam2_jax.training.datasets import Example
from sam2_jax.training.evaluate import evaluate
from sam2_jax.training.optimizer import OptimizerOptions
from sam2_jax.training.prompts import PromptOptions
from sam2_jax.training.trainer import TrainingOptions, train

SHORT = TrainingOptions(
    steps=6,
    batch_size=2,
    objects=2,
    optimizer=OptimizerOptions(learning_rate=1e-3, warmup_steps=2),
    prompts=PromptOptions(correction_rounds=1),
)
SOURCE = Scenes(1, 64)


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    return model_of(smallest_config())


@pytest.fixture(scope="module")
def straight(model: Sam2Model) -> tuple[Sam2Model, list[dict[str, float]]]:
    """A short training in one go."""
    return train(model, SOURCE, SHORT, log_every=1, progress=False)


def flat(model: Sam2Model) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in names.flatten(model.params).items()}


def test_what_is_frozen_stays_to_the_bit_and_the_rest_moves(
    model: Sam2Model, straight: tuple[Sam2Model, list[dict[str, float]]]
) -> None:
    before, after = flat(model), flat(straight[0])
    for name, value in before.items():
        is_frozen = name.startswith("vision_encoder.backbone.") or name == names.FOURIER
        assert np.array_equal(value, after[name]) == is_frozen or name in UNUSED, name


# Nothing of a loss reaches these: keys' biases, and the point kinds that no prompt had.
UNUSED = {name for name in names.flatten(model_of(smallest_config()).params) if "k_proj.bias" in name}


def test_the_model_given_is_left_as_it_is(model: Sam2Model, straight: tuple[Sam2Model, list]) -> None:
    again = flat(model_of(smallest_config()))
    assert all(np.array_equal(value, again[name]) for name, value in flat(model).items())


def test_training_taken_up_again_comes_to_the_same_numbers(
    model: Sam2Model, straight: tuple[Sam2Model, list[dict[str, float]]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    train(model, SOURCE, SHORT, folder, stop_at=3, log_every=1, progress=False)
    resumed, rows = train(model, SOURCE, SHORT, folder, log_every=1, progress=False)
    assert rows == straight[1]
    assert [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] == rows
    expected = flat(straight[0])
    assert all(np.array_equal(value, expected[name]) for name, value in flat(resumed).items())


def test_a_finished_training_is_not_repeated(model: Sam2Model, tmp_path: Path) -> None:
    options = replace(SHORT, steps=2)
    first, rows = train(model, SOURCE, options, tmp_path, log_every=1, progress=False)
    again, same = train(model, SOURCE, options, tmp_path, log_every=1, progress=False)
    assert same == rows
    assert all(np.array_equal(value, flat(first)[name]) for name, value in flat(again).items())


def test_a_folder_of_another_training_is_refused(model: Sam2Model, tmp_path: Path) -> None:
    train(model, SOURCE, SHORT, tmp_path, stop_at=1, progress=False)
    with pytest.raises(ValueError, match=r"holds a training with other options \(seed\): choose another"):
        train(model, SOURCE, replace(SHORT, seed=1), tmp_path, progress=False)


def test_recomputing_the_encoder_gives_the_same_gradients(model: Sam2Model) -> None:
    options = replace(SHORT, steps=2, trained=("vision_encoder.backbone.*",), remat=True)
    _, rows = train(model, SOURCE, options, log_every=1, progress=False)
    _, kept = train(model, SOURCE, replace(options, remat=False), log_every=1, progress=False)
    for row, expected in zip(rows, kept, strict=True):
        assert row["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-4)


def test_bfloat16_computes_with_parameters_of_float32(model: Sam2Model) -> None:
    options = replace(SHORT, steps=2, dtype="bfloat16")
    trained, rows = train(model, SOURCE, options, log_every=1, progress=False)
    assert {str(value.dtype) for value in flat(trained).values()} == {"float32"}
    assert np.isfinite(rows[-1]["total"])


def test_low_rank_updates_change_the_matrices_they_name_only(model: Sam2Model) -> None:
    pattern = "vision_encoder.backbone.blocks_*.attn.qkv.kernel"
    options = replace(SHORT, steps=3, trained=(), lora=(pattern,), lora_rank=2)
    trained, _ = train(model, SOURCE, options, progress=False)
    before, after = flat(model), flat(trained)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert all(name.endswith("attn.qkv.kernel") and ".blocks_" in name for name in changed)
    for name in changed:
        assert np.linalg.matrix_rank(after[name] - before[name], tol=1e-6) <= 2


def test_numbers_that_are_not_finite_stop_training_and_keep_the_parameters(tmp_path: Path) -> None:
    broken = model_of(smallest_config())
    params = names.flatten(broken.params)
    params["mask_decoder.iou_token.embedding"] = params["mask_decoder.iou_token.embedding"] * np.nan
    broken = Sam2Model(broken.config, names.unflatten(params))
    with pytest.raises(ValueError, match="gradients of 10 steps up to 9 were not finite.*learning_rate"):
        train(broken, SOURCE, replace(SHORT, steps=30), progress=False)


def test_devices_share_a_batch_and_come_to_the_same_losses(tmp_path: Path) -> None:
    program = """
import sys, json, jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_default_matmul_precision", "highest")
sys.path[:0] = sys.argv[1:2]
import test_training as t
model = t.model_of(t.smallest_config())
rows = [t.train(model, t.SOURCE, t.replace(t.SHORT, steps=2), log_every=1, progress=False, devices=d)[1]
        for d in (jax.devices()[:1], jax.devices())]
print(json.dumps([len(jax.devices()), rows]))
"""
    command = [sys.executable, "-c", program, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, (one, two) = json.loads(done.stdout.splitlines()[-1])
    assert count == 2
    for row, expected in zip(two, one, strict=True):
        assert row["total"] == pytest.approx(expected["total"], rel=1e-5)


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(model: Sam2Model) -> None:
    with pytest.raises(ValueError, match="batch_size must divide over 2 devices; got 3"):
        train(model, SOURCE, replace(SHORT, batch_size=3), devices=jax.devices() * 2, progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be a whole number, 1 or more; got 0"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"dtype": "float16"}, "dtype must be 'float32' or 'bfloat16'; got 'float16'"),
        ({"optimizer": OptimizerOptions(learning_rate=-1.0)}, "learning_rate must be positive; got -1.0"),
        ({"optimizer": OptimizerOptions(accumulate=0)}, "accumulate must be at least 1; got 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SHORT, **changes)


def test_cells_are_covered_in_part_where_an_object_covers_part_of_their_pixels() -> None:
    mask = np.zeros((8, 8), bool)
    mask[:3, :2] = True
    np.testing.assert_allclose(cell_shares(mask, (2, 2)), [[6 / 16, 0], [0, 0]], atol=1 / 255)


def test_batches_fill_up_objects_and_flip_picture_and_masks_together() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32] = 255
    masks = np.zeros((2, 64, 64), bool)
    masks[0, :, :32] = True
    masks[1, 3, 3] = True  # half of no cell
    example = Example("halves", image, masks)
    sides = set()
    for seed in range(8):
        batch = make_batch([example], smallest_config(), 3, np.random.default_rng(seed))
        assert batch.is_object.tolist() == [[True, False, False]]
        bright = batch.pixel_values[0, 0, :, 0] > 0
        np.testing.assert_array_equal(batch.masks[0, 0, 0] == 1, bright[::4])
        assert not batch.masks[0, 1:].any()
        sides.add(bool(bright[0]))
    assert sides == {True, False}


def test_scenes_are_each_seen_once_and_never_by_another_stream() -> None:
    seen = [example.name for step in range(3) for example in SOURCE.examples(step, 2)]
    assert seen == [f"scene {index} of stream 1" for index in range(6)]


class Listed:
    """A dataset in memory, some of its examples damaged."""

    def __init__(self, damaged: set[int]) -> None:
        self.damaged, self.problems = damaged, ["number 0 is damaged"]

    def __len__(self) -> int:
        return 4

    def readable(self, order: list[int]) -> list[Example]:
        scene = SOURCE.example(0)
        return [Example(str(i), scene.image, scene.masks) for i in order if i not in self.damaged]


def test_an_epoch_has_each_example_once_and_the_next_another_order() -> None:
    source = Shuffled(Listed(set()), seed=0)  # type: ignore[arg-type]
    epochs = [[example.name for example in source.examples(step, 4)] for step in range(4)]
    assert all(sorted(epoch) == ["0", "1", "2", "3"] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert epochs[1] == [example.name for example in source.examples(1, 4)]


def test_damaged_examples_are_replaced_and_a_dataset_of_them_is_refused() -> None:
    drawn = Shuffled(Listed({0, 2}), seed=0).examples(0, 4)  # type: ignore[arg-type]
    assert {example.name for example in drawn} <= {"1", "3"}
    with pytest.raises(ValueError, match="no picture of the dataset can be used; .* number 0 is damaged"):
        Shuffled(Listed({0, 1, 2, 3}), seed=0).examples(0, 1)  # type: ignore[arg-type]


def test_evaluation_counts_what_a_perfect_and_an_empty_answer_are_worth(model: Sam2Model) -> None:
    example = SOURCE.example(0)
    found = evaluate(model, [example], clicks=2)
    assert found.objects == len(example.masks)
    assert len(found.clicks) == 2
    for value in (found.box, *found.clicks, found.best_of_three):
        assert 0 <= value <= 1
    assert found.best_of_three >= found.clicks[0]
    with pytest.raises(ValueError, match="examples must not be empty"):
        evaluate(model, [])
    with pytest.raises(ValueError, match="clicks must be at least 1; got 0"):
        evaluate(model, [example], clicks=0)
