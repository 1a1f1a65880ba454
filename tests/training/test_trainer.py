"""Training from end to end: it learns, what is frozen stays, and it goes on where it stopped."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import model_of, smallest_config

from sam2_jax import Sam2ImageProcessor, Sam2Model, Sam2Processor
from sam2_jax.checkpoint import names
from sam2_jax.model.sam2 import Sam2
from sam2_jax.training.batches import Scenes, Shuffled, batches, cell_shares, make_batch
from sam2_jax.training.evaluate import evaluate
from sam2_jax.training.examples import Example
from sam2_jax.training.losses import LossWeights
from sam2_jax.training.optimizer import OptimizerOptions
from sam2_jax.training.prompts import PromptOptions
from sam2_jax.training.trainer import TrainingOptions, train

# One program for most tests: compiling a step takes longer than all of its steps.
SHORT = TrainingOptions(
    steps=12,
    batch_size=2,
    objects=2,
    optimizer=OptimizerOptions(learning_rate=1e-3, warmup_steps=1),
    prompts=PromptOptions(correction_rounds=1),
)
SOURCE = Scenes(1, 64)
PROCESSOR = Sam2ImageProcessor.for_config(smallest_config())
Trained = tuple[Sam2Model, list[dict[str, float]]]


pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    return model_of(smallest_config())


@pytest.fixture(scope="module")
def straight(model: Sam2Model) -> Trained:
    """A short training in one go."""
    return train(model, SOURCE, SHORT, log_every=1, progress=False)


@pytest.fixture(scope="module")
def resumed(model: Sam2Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """The same, stopped on the way and taken up again, with its folder."""
    folder = tmp_path_factory.mktemp("training") / "run"
    train(model, SOURCE, SHORT, folder, stop_at=5, log_every=1, progress=False)
    return folder, train(model, SOURCE, SHORT, str(folder), log_every=1, progress=False)


def flat(model: Sam2Model) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in names.flatten(model.params).items()}


def changed(before: Sam2Model, after: Sam2Model) -> set[str]:
    """Names of the parameters that differ in any bit."""
    values = flat(after)
    return {name for name, value in flat(before).items() if not np.array_equal(value, values[name])}


@pytest.mark.slow
def test_what_is_frozen_stays_to_the_bit_and_the_rest_learns(model: Sam2Model, straight: Trained) -> None:
    moved = changed(model, straight[0])
    assert not [name for name in moved if name.startswith("vision_encoder.backbone.")]
    assert names.FOURIER not in moved
    for part in ("vision_encoder.neck.", "prompt_encoder.", "mask_decoder.", "no_memory_embedding"):
        kernels = {name for name in flat(model) if name.startswith(part) and not name.endswith("bias")}
        # What no prompt asked for learns nothing and decays: all kernels move.
        assert kernels <= moved | {name for name in kernels if name.endswith("scale")}, part
    totals = [row["total"] for row in straight[1]]
    assert np.mean(totals[-3:]) < np.mean(totals[:3])


@pytest.mark.slow
def test_the_model_given_is_left_as_it_is(model: Sam2Model, straight: Trained) -> None:
    assert changed(model, model_of(smallest_config())) == set()


@pytest.mark.slow
def test_training_taken_up_again_comes_to_the_same_numbers(
    straight: Trained, resumed: tuple[Path, Trained]
) -> None:
    folder, (model, rows) = resumed
    assert rows == straight[1]
    assert [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] == rows
    assert changed(model, straight[0]) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "option", [partial(jax.enable_x64, True), partial(jax.numpy_dtype_promotion, "strict")]
)
def test_jax_s_options_of_types_change_nothing(model: Sam2Model, straight: Trained, option: Any) -> None:
    with option():
        trained, rows = train(model, SOURCE, SHORT, log_every=1, progress=False)
    assert rows == straight[1]
    assert changed(trained, straight[0]) == set()


@pytest.mark.slow
def test_a_finished_training_is_not_repeated(model: Sam2Model, resumed: tuple[Path, Trained]) -> None:
    again, rows = train(model, NoSource(), SHORT, resumed[0], progress=False)
    assert rows == resumed[1][1]
    assert changed(again, resumed[1][0]) == set()


class NoSource:
    def example(self, number: int) -> Example:
        raise AssertionError("no example is needed")


@pytest.mark.slow
def test_a_folder_of_another_training_is_refused(model: Sam2Model, resumed: tuple[Path, Trained]) -> None:
    with pytest.raises(ValueError, match=r"holds a training with other options \(seed\): choose another"):
        train(model, SOURCE, replace(SHORT, seed=1), resumed[0], progress=False)


def test_a_folder_of_an_older_version_is_refused(model: Sam2Model, tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text('{"steps": 12}')
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds a training of another version of sam2_jax"):
        train(model, SOURCE, SHORT, tmp_path, progress=False)
    assert (tmp_path / "training.json").read_text() == '{"steps": 12}'


def test_a_folder_of_pictures_prepared_otherwise_is_refused(model: Sam2Model, tmp_path: Path) -> None:
    train(model, SOURCE, SHORT, tmp_path, stop_at=0, progress=False)
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    other = model.with_params(model.params)
    other.processor = Sam2Processor(PROCESSOR.replace(image_mean=(0, 0, 0)))
    with pytest.raises(ValueError, match=r"with other options \(processor.image_mean\): choose another"):
        train(other, SOURCE, SHORT, tmp_path, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["model", "data", "image_size"])
def test_a_folder_of_another_model_or_data_is_refused(
    what: str, model: Sam2Model, resumed: tuple[Path, Trained]
) -> None:
    other, data = model, None
    if what == "model":
        other = Sam2Model(model.config, jax.tree.map(jnp.copy, model.params))
        other.params["no_memory_embedding"] += 1
    elif what == "image_size":
        other = model.with_image_size(96)
    else:
        data = "other pictures"
    with pytest.raises(ValueError, match=rf"holds a training with other options \({what}\): choose another"):
        train(other, SOURCE, SHORT, resumed[0], data=data, progress=False)


@pytest.mark.slow
def test_a_training_that_is_stopped_goes_on_where_it_was(
    model: Sam2Model, straight: Trained, tmp_path: Path
) -> None:
    class Stopping:
        def example(self, number: int) -> Example:
            if number == 5 * SHORT.batch_size:
                raise KeyboardInterrupt
            return SOURCE.example(number)

    with pytest.raises(KeyboardInterrupt, match=r"given again, training goes on from step [45]$"):
        train(model, Stopping(), SHORT, tmp_path, log_every=1, progress=False)
    again, rows = train(model, SOURCE, SHORT, tmp_path, log_every=1, progress=False)
    assert changed(again, straight[0]) == set()
    assert rows[-1] == straight[1][-1]
    # More steps are the same training, fewer are not.
    train(model, SOURCE, replace(SHORT, steps=13), tmp_path, stop_at=12, progress=False)
    with pytest.raises(ValueError, match=r"other options \(steps\)"):
        train(model, SOURCE, SHORT, tmp_path, progress=False)
    kept = json.loads((tmp_path / "training.json").read_text())
    assert kept["optimizer"]["learning_rate"] == SHORT.optimizer.learning_rate


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_is_an_error_and_leaves_the_last_one(
    model: Sam2Model, straight: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(model, SOURCE, SHORT, tmp_path, stop_at=5, progress=False)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("orbax.checkpoint.CheckpointManager.save", full)
        with pytest.raises(ValueError, match="cannot write a checkpoint.*No space left on device.*step 5"):
            train(model, SOURCE, SHORT, tmp_path, log_every=1, progress=False)
    again, _ = train(model, SOURCE, SHORT, tmp_path, log_every=1, progress=False)
    assert changed(again, straight[0]) == set()


@pytest.mark.slow
def test_recomputing_the_encoder_keeps_less_and_gives_the_same_gradients(model: Sam2Model) -> None:
    pixels = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64, 64, 3)), jnp.float32)

    def loss(params: Any, remat: bool) -> jax.Array:
        module = Sam2(model.config, remat=remat)
        embeddings = module.apply({"params": params}, pixels, method="encode_image")
        return sum((level**2).mean() for level in embeddings)

    kept, again = (partial(loss, remat=remat) for remat in (False, True))
    assert str(jax.make_jaxpr(jax.grad(again))(model.params)).count("remat") >= 5  # the blocks
    expected, found = (names.flatten(jax.jit(jax.grad(f))(model.params)) for f in (kept, again))
    for name, value in expected.items():
        assert np.linalg.norm(found[name] - value) <= 1e-5 * np.linalg.norm(value) + 1e-9, name


@pytest.mark.slow
def test_low_rank_updates_in_bfloat16_change_the_matrices_they_name_only(model: Sam2Model) -> None:
    pattern = "mask_decoder.transformer.*.q_proj.kernel"
    options = replace(SHORT, trained=(), lora=(pattern,), lora_rank=2, dtype="bfloat16")
    trained, rows = train(model, SOURCE, options, log_every=1, progress=False)
    moved = changed(model, trained)
    assert len(moved) == 7
    assert all(name.endswith("q_proj.kernel") for name in moved)
    before, after = flat(model), flat(trained)
    for name in moved:
        assert np.linalg.matrix_rank(after[name] - before[name], tol=1e-6) <= 2
    assert {str(value.dtype) for value in after.values()} == {"float32"}
    assert np.isfinite(rows[-1]["total"])


def test_numbers_that_are_not_finite_stop_training(model: Sam2Model) -> None:
    params = names.flatten(model.params)
    params["mask_decoder.iou_token.embedding"] = params["mask_decoder.iou_token.embedding"] * np.nan
    broken = Sam2Model(model.config, names.unflatten(params))
    with pytest.raises(ValueError, match=r"gradients of 10 steps up to 9 were not finite.*learning_rate"):
        train(broken, SOURCE, SHORT, progress=False)


class Specks:
    """Scenes, from some step on with nothing but an object of one pixel."""

    def __init__(self, begin: int) -> None:
        self.begin = begin

    def example(self, number: int) -> Example:
        scene = SOURCE.example(number)
        speck = np.zeros((1, 64, 64), bool)
        speck[0, 3, 3] = True
        return scene._replace(masks=speck) if number >= self.begin * SHORT.batch_size else scene


@pytest.mark.slow
def test_objects_too_small_to_be_learnt_are_counted_and_move_nothing(
    model: Sam2Model, straight: Trained
) -> None:
    with pytest.warns(
        UserWarning, match="8 times an object was not trained on: .* 16 x 16 of them at an image_size"
    ):
        some, _ = train(model, Specks(8), SHORT, progress=False)
    before, _ = train(model, SOURCE, SHORT, stop_at=8, progress=False)
    assert changed(some, before) == set()
    with pytest.raises(
        ValueError, match="no object in the pictures of 10 steps up to 9 covers half of a cell"
    ):
        train(model, Specks(0), SHORT, progress=False)
    with pytest.raises(
        ValueError, match="no object in the pictures of 2 steps up to 1 .*there is nothing to learn"
    ):
        train(model, Specks(0), SHORT, stop_at=2, progress=False)


@pytest.mark.slow
def test_a_trained_model_keeps_its_processor_and_training_sees_what_it_does(straight: Trained) -> None:
    own = model_of(smallest_config())
    own.processor = Sam2Processor(PROCESSOR.replace(image_mean=(0.1, 0.2, 0.3)), point_pad_value=-7)
    own.generation_options = {"pred_iou_thresh": 0.3}
    trained, rows = train(own, SOURCE, SHORT, stop_at=2, log_every=1, progress=False)
    assert trained.processor is own.processor
    assert trained.generation_options == own.generation_options
    assert rows[0]["total"] != straight[1][0]["total"]


def test_numbers_of_a_training_are_read_before_it_begins(model: Sam2Model) -> None:
    for name, value in {"workers": -1, "log_every": 0, "checkpoint_every": 0.5, "stop_at": "3"}.items():
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            train(model, NoSource(), SHORT, progress=False, **{name: value})  # type: ignore[arg-type]


def test_workers_of_a_program_that_guards_nothing_are_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("grain")
    program = tmp_path / "program.py"
    program.write_text(
        "from sam2_jax import Sam2ImageProcessor\n"
        "from sam2_jax.training.batches import Scenes, batches\n"
        "list(batches(Scenes(1, 64), Sam2ImageProcessor(size=64), 1, 1, 0, range(2), workers=1))\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ValueError: workers=1 ended before they were done" in done.stderr
    assert '`if __name__ == "__main__":`' in done.stderr


@pytest.mark.slow
def test_devices_share_a_batch_and_come_to_the_same_losses(straight: Trained) -> None:
    program = """
import sys, json, warnings, jax
jax.config.update("jax_num_cpu_devices", 3)
sys.path[:0] = sys.argv[1:4]
import conftest, test_trainer as t
from quick_compilation import compiling_quickly
model = t.model_of(t.smallest_config())
with compiling_quickly(), warnings.catch_warnings(record=True) as said:
    _, rows = t.train(model, t.SOURCE, t.SHORT, log_every=1, stop_at=3, progress=False)
print(json.dumps([[str(warning.message) for warning in said], rows]))
"""
    folders = [Path(__file__).parents[i] for i in range(3)]
    command = [sys.executable, "-c", program, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, rows = json.loads(done.stdout.splitlines()[-1])
    assert "a batch_size of 2 does not divide over the 3 devices: 2 of them will be used" in said[0]
    assert len(rows) == 3
    for row, expected in zip(rows, straight[1], strict=False):
        assert row["total"] == pytest.approx(expected["total"], rel=1e-4)


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(model: Sam2Model) -> None:
    with pytest.raises(ValueError, match="batch_size must divide over 2 devices; got 3"):
        train(model, SOURCE, replace(SHORT, batch_size=3), devices=jax.devices() * 2, progress=False)


class Eight:
    """The largest thing of each of eight scenes."""

    def __init__(self) -> None:
        scenes = [Scenes(3, 64).example(index) for index in range(8)]
        largest = [scene.masks.sum(axis=(1, 2)).argmax() for scene in scenes]
        self.eight = [
            scene._replace(masks=scene.masks[i : i + 1]) for scene, i in zip(scenes, largest, strict=True)
        ]

    def example(self, number: int) -> Example:
        return self.eight[number % 8]


@pytest.mark.slow
def test_a_small_network_learns_eight_pictures_by_heart() -> None:
    """Mask IoU at the network's own resolution, one click on each thing, pictures flipped at random."""
    options = TrainingOptions(
        steps=300,
        batch_size=8,
        objects=1,
        trained=("*",),
        optimizer=OptimizerOptions(
            learning_rate=3e-3, warmup_steps=20, weight_decay=0.0, layer_decay=1.0, clip_norm=1.0
        ),
        prompts=PromptOptions(point=1.0, box=0.0, correction_rounds=0, deepest=1.0),
    )
    model = model_of(smallest_config(width=16, hidden_size=64))
    _, rows = train(model, Eight(), options, progress=False)
    assert rows[-1]["last_iou"] > 0.95


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1; got 0"),
        ({"steps": None}, "steps must be a whole number of at least 1; got None"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"lora_rank": 1e400}, "lora_rank must be a whole number of at least 1; got inf"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
        ({"remat": 1}, "remat must be True or False; got 1"),
        ({"trained": "*"}, r"trained must be patterns, \('mask_decoder.*',\) say; got '\*'"),
        ({"lora": None}, r"lora must be patterns, .* got None"),
        ({"trained": [1]}, r"trained must be patterns, .* got \[1\]"),
        ({"dtype": "float16"}, "dtype must be 'float32' or 'bfloat16'; got 'float16'"),
        (
            {"optimizer": OptimizerOptions(learning_rate=-1.0)},
            "learning_rate must be a number above 0; got -1.0",
        ),
        (
            {"optimizer": OptimizerOptions(accumulate=0)},
            "accumulate must be a whole number of at least 1; got 0",
        ),
        (
            {"optimizer": OptimizerOptions(accumulate=13)},
            "accumulate must be at most steps, 12, or nothing would be trained; got 13",
        ),
        (
            {"optimizer": OptimizerOptions(layer_decay=1.5)},
            "layer_decay must be a number above 0 and at most 1",
        ),
        ({"optimizer": OptimizerOptions(clip_norm=np.nan)}, "clip_norm must be a number above 0; got nan"),
        ({"prompts": PromptOptions(point=0, box=0)}, "one of point, box and mask must be more than 0"),
        ({"prompts": PromptOptions(deepest=2)}, "deepest must be a number from 0 to 1; got 2"),
        ({"weights": None}, "weights must be LossWeights; got None"),
        ({"trained": np.array("x")}, "trained must be patterns"),
        ({"weights": LossWeights(dice=-1)}, "dice must be a number of at least 0; got -1"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SHORT, **changes)


def test_options_may_be_lists_and_numbers_of_numpy() -> None:
    options = replace(SHORT, trained=["mask_decoder.*"], steps=np.int64(12), seed=np.uint32(0))
    assert options == replace(SHORT, trained=("mask_decoder.*",))
    assert hash(options) == hash(replace(SHORT, trained=("mask_decoder.*",)))


def test_cells_are_covered_in_part_where_an_object_covers_part_of_their_pixels() -> None:
    mask = np.zeros((8, 8), bool)
    mask[:3, :2] = True
    np.testing.assert_allclose(cell_shares(mask, (2, 2)), [[6 / 16, 0], [0, 0]], atol=1 / 255)


def test_batches_take_objects_again_and_flip_picture_and_masks_together() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32] = 255
    masks = np.zeros((2, 64, 64), bool)
    masks[0, :, :32] = True
    masks[1, 3, 3] = True  # half of no cell
    example = Example("halves", image, masks)
    sides = set()
    for seed in range(8):
        batch, too_small = make_batch([example], PROCESSOR, 3, np.random.default_rng(seed))
        assert batch.is_object.all()
        assert too_small == 1
        bright = batch.pixel_values[0, 0, :, 0] > 0
        np.testing.assert_array_equal(batch.masks[0, 0, 0] == 1, bright[::4])
        np.testing.assert_array_equal(batch.masks[0, 1:], batch.masks[0, :1].repeat(2, axis=0))
        sides.add(bool(bright[0]))
    assert sides == {True, False}


def test_a_picture_with_nothing_large_enough_is_padding() -> None:
    masks = np.zeros((1, 64, 64), bool)
    masks[0, 3, 3] = True
    example = Example("speck", np.zeros((64, 64, 3), np.uint8), masks)
    batch, too_small = make_batch([example], PROCESSOR, 2, np.random.default_rng(0))
    assert not batch.is_object.any()
    assert too_small == 1
    assert not batch.masks.any()


def test_scenes_are_each_seen_once_and_never_by_another_stream() -> None:
    seen = [SOURCE.example(number).name for number in range(6)]
    assert seen == [f"scene {index} of stream 1" for index in range(6)]


def test_workers_make_the_same_batches_from_any_step_on() -> None:
    pytest.importorskip("grain")
    arguments = SOURCE, PROCESSOR, 2, 2, 7
    alone = list(batches(*arguments, range(5)))
    for one, other in zip(alone[1:], batches(*arguments, range(1, 5), workers=2), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_rows_of_a_batch_are_what_they_are_in_the_whole() -> None:
    arguments = SOURCE, PROCESSOR, 4, 2, 7, range(3)
    parts = [batches(*arguments, rows=rows) for rows in ([0, 1], [2, 3])]
    for (whole, too_small), *own in zip(batches(*arguments), *parts, strict=True):
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(batch for batch, _ in own))
        jax.tree.map(np.testing.assert_array_equal, whole, joined)
        assert too_small == sum(count for _, count in own)


def test_workers_without_grain_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ValueError, match=r"Grain, which is not installed: pip install 'sam2_jax\[grain\]'"):
        next(batches(SOURCE, PROCESSOR, 1, 1, 0, range(2), workers=1))


def test_what_a_worker_cannot_read_is_said_by_the_training() -> None:
    pytest.importorskip("grain")
    source = Shuffled(Listed({0, 1, 2, 3}), seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no picture of the dataset can be used"):
        list(batches(source, PROCESSOR, 1, 1, 0, range(2), workers=1))


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
    epochs = [[source.example(4 * step + i).name for i in range(4)] for step in range(4)]
    assert all(sorted(epoch) == ["0", "1", "2", "3"] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert epochs[1] == [source.example(4 + i).name for i in range(4)]


def test_damaged_examples_are_replaced_and_a_dataset_of_them_is_refused() -> None:
    source = Shuffled(Listed({0, 2}), seed=0)  # type: ignore[arg-type]
    assert {source.example(number).name for number in range(4)} <= {"1", "3"}
    with pytest.raises(
        ValueError, match=r"no picture of the dataset can be used \(1 problems; the first: number 0 is dam"
    ):
        Shuffled(Listed({0, 1, 2, 3}), seed=0).example(0)  # type: ignore[arg-type]


def test_evaluation_hands_masks_back_as_a_session_does() -> None:
    """Clamped: beyond that a network was never taught, and would be judged by what nobody gets of it."""
    given = []

    class Sure:
        """A model that is surer than any mask may be that is handed back."""

        processor = Sam2Processor(PROCESSOR)

        def get_image_embeddings(self, pixels: Any) -> None:
            return None

        def __call__(self, *, input_points: Any = None, input_boxes: Any = None, **inputs: Any) -> Any:
            if inputs["input_masks"] is not None:
                given.append(np.abs(inputs["input_masks"]).max())
            objects = np.shape(input_points if input_boxes is None else input_boxes)[1]
            count = 3 if inputs["multimask_output"] else 1
            masks = np.full((1, objects, count, 16, 16), 100, np.float32)
            return SimpleNamespace(iou_scores=masks[..., 0, 0], pred_masks=masks)

    evaluate(Sure(), [SOURCE.example(0)], clicks=3)  # type: ignore[arg-type]
    assert given == [32, 32]


@pytest.mark.slow
def test_evaluation_counts_what_a_perfect_and_an_empty_answer_are_worth(model: Sam2Model) -> None:
    example = SOURCE.example(0)
    found = evaluate(model, [example], clicks=2)
    assert found.objects == len(example.masks)
    assert len(found.clicks) == 2
    for value in (found.box, *found.clicks, found.best_of_three):
        assert 0 <= value <= 1
    assert found.best_of_three >= found.clicks[0]
    with pytest.raises(ValueError, match="must not be empty: there is no picture to judge by"):
        evaluate(model, [])
    with pytest.raises(ValueError, match="clicks must be a whole number of at least 1; got 0"):
        evaluate(model, [example], clicks=0)
