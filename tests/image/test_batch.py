"""predict_batch: order, equality with each photo alone, bounded memory, faults, progress, folders."""

import gc
import json
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_models import model_of, model_of_its_own, smallest_config
from tolerances import assert_close

from sam2_jax import Sam2Model
from sam2_jax.image import batch as batch_module
from sam2_jax.image.batch import BatchResult, Task, predict_batch

POINTS = [[(3, 4)]]

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    return model_of(smallest_config())


def photo(height: int = 30, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def run(model: Sam2Model, work: Any, **options: Any) -> list[BatchResult]:
    return list(predict_batch(model, work, progress=False, **options))


def assert_alike(found: BatchResult, expected: BatchResult) -> None:
    assert (found.name, found.size, found.error) == (expected.name, expected.size, expected.error)
    for kind, field in (("masks", "logits"), ("scores", "iou_scores"), ("scores", "object_score_logits")):
        assert_close(kind, "a batch and its items alone", getattr(found, field), getattr(expected, field))


# --- results


@st.composite
def objects(draw: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Prompts on 1 to 8 objects, each of points, a box or both: few numbers, for each compiles a decoder."""
    height, width = size
    x, y = st.integers(0, width - 1), st.integers(0, height - 1)
    points, labels, boxes = [], [], []
    for _ in range(draw(st.sampled_from([1, 5, 7, 8]))):
        kind = draw(st.sampled_from(["points", "box", "both"]))
        count = 0 if kind == "box" else draw(st.integers(1, 2))
        points.append([(draw(x), draw(y)) for _ in range(count)])
        labels.append([draw(st.integers(0, 1)) for _ in range(count)])
        corner = draw(x), draw(y)
        boxes.append(
            None if kind == "points" else (*corner, corner[0] + draw(x) + 1, corner[1] + draw(y) + 1)
        )
    return {"points": points, "labels": labels, "boxes": boxes}


@st.composite
def tasks(draw: Any) -> dict[str, Any]:
    size = draw(st.tuples(st.integers(1, 99), st.integers(1, 99)))
    return {"photo": photo(*size, seed=draw(st.integers(0, 9))), **draw(objects(size))}


@pytest.mark.slow
@given(work=st.lists(tasks(), min_size=1, max_size=5))
@settings(max_examples=25)
def test_a_batch_equals_its_items_alone(work: list[dict[str, Any]]) -> None:
    model = model_of(smallest_config())
    alone = run(model, work, multimask_output=True)
    together = run(model, work, batch_size=3, multimask_output=True)
    assert len(together) == len(alone) == len(work)
    for found, expected, task in zip(together, alone, work, strict=True):
        assert found.logits is not None
        assert found.logits.shape == (len(task["points"]), 3, 16, 16)
        assert_alike(found, expected)


def test_results_equal_processor_and_model(model: Sam2Model) -> None:
    points, labels = [[(3, 4), (20, 9)], [(7, 8)]], [[1, 0], [1]]
    (found,) = run(model, [Task(photo(), points, labels)])
    inputs = model.processor(photo(), input_points=[points], input_labels=[labels])
    outputs = model(**inputs, multimask_output=False)
    assert_close("masks", "predict_batch", found.logits, outputs.pred_masks[0])
    assert_close("scores", "predict_batch", found.iou_scores, outputs.iou_scores[0])
    assert_close("scores", "predict_batch", found.object_score_logits, outputs.object_score_logits[0])
    assert found.masks is not None
    assert found.masks.shape == (2, 1, 30, 40)
    assert found.masks.dtype == bool
    expected = model.processor.post_process_masks(found.logits[None], [(30, 40)])[0]
    np.testing.assert_array_equal(found.masks, expected)


@pytest.mark.filterwarnings("ignore:1 of 1 photos failed")
def test_masks_as_prompts_are_those_of_a_session(model: Sam2Model) -> None:
    """Beside a photo without any: the two are different programs."""
    masks = np.random.default_rng(43).normal(0, 9, (1, 16, 16)).astype(np.float32)
    work = [Task(photo(), POINTS, masks=masks), Task(photo(seed=1), POINTS)]
    found = run(model, work, batch_size=2, multimask_output=True)
    for result, task in zip(found, work, strict=True):
        mask = None if task.masks is None else task.masks[0]
        expected = model.predictor(task.photo).predict(POINTS[0], mask=mask)
        assert_close("masks", "predict_batch with masks", result.logits[0], expected.logits)
        assert_close("scores", "predict_batch with masks", result.iou_scores[0], expected.scores)
    (failed,) = run(model, [Task(photo(), POINTS, masks=[masks > 0])], batch_size=1)[:1]
    assert failed.error is not None
    assert failed.error.startswith("object 0: mask must be logits")


def test_the_reference_s_padding_stays_within_a_photo(model: Sam2Model) -> None:
    compatible = Sam2Model(model.config, model.params, padding="transformers")
    work = [Task(photo(), [[(3, 4)]]), Task(photo(seed=1), [[(3, 4), (9, 9)], [(1, 1)]])]
    for found, expected in zip(run(compatible, work, batch_size=2), run(compatible, work), strict=True):
        assert_alike(found, expected)


def test_results_are_in_order_and_named(model: Sam2Model, tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.png")
    work = [
        Task(photo(9, 9), POINTS),
        {"photo": tmp_path / "a.png", "points": POINTS},
        Task(Image.fromarray(photo(5, 6)), POINTS, name="third"),
        Task(str(tmp_path / "a.png"), POINTS),
    ]
    found = run(model, iter(work), batch_size=3)
    assert [result.name for result in found] == ["photo 0", "a.png", "third", "a.png"]
    assert [result.size for result in found] == [(9, 9), (30, 40), (5, 6), (30, 40)]


def test_full_size_masks_are_made_only_when_asked_for(
    model: Sam2Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, int]] = []
    post_process = model.processor.post_process_masks

    def counted(masks: Any, sizes: Any, **options: Any) -> Any:
        made.extend(sizes)
        return post_process(masks, sizes, **options)

    monkeypatch.setattr(model.processor, "post_process_masks", counted)
    found = predict_batch(
        model, [Task(photo(), POINTS)] * 2, progress=False, max_hole_area=9, mask_threshold=0.1
    )
    made.clear()
    first, second = found
    assert made == []
    assert first.masks is first.masks
    assert made == [(30, 40)]
    assert second.logits is not None
    expected = post_process(second.logits[None], [(30, 40)], max_hole_area=9, mask_threshold=0.1)[0]
    np.testing.assert_array_equal(second.masks, expected)


# --- memory, threads and compiled programs


def generated(count: int, alive: list[Any], taken: list[int]) -> Iterator[Task]:
    """Tasks whose photos are remembered weakly."""
    for i in range(count):
        picture = photo(seed=i)
        alive.append(weakref.ref(picture))
        taken.append(i)
        yield Task(picture, POINTS)
        del picture


@pytest.fixture
def quick_collection() -> Iterator[None]:
    """Look for garbage among new objects only; among all that earlier tests left it takes a second."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("quick_collection")
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_generator_is_taken_three_batches_ahead_at_most(model: Sam2Model, batch_size: int) -> None:
    photos: list[Any] = []
    taken: list[int] = []
    results: list[Any] = []
    for i, found in enumerate(
        predict_batch(model, generated(20, photos, taken), batch_size=batch_size, progress=False)
    ):
        assert len(taken) <= (i // batch_size + 3) * batch_size
        results.append(weakref.ref(found))
        del found
        gc.collect()
        # The thread may still hold the batch it prepares, and the generator the photo it made last.
        assert sum(ref() is not None for ref in photos) <= batch_size + 1
        assert sum(ref() is not None for ref in results) <= 1
    assert len(taken) == 20
    assert i == 19


def test_the_next_batch_is_launched_before_results_are_used(
    model: Sam2Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = Sam2Model.get_image_embeddings

    def counted(self: Sam2Model, pixels: Any) -> Any:
        encoded.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(Sam2Model, "get_image_embeddings", counted)
    work = predict_batch(model, [Task(photo(), POINTS)] * 7, batch_size=3, progress=False)
    next(work)
    assert len(encoded) == 2
    list(work)
    assert encoded == [3, 3, 3], "the last batch is filled up"


def test_nothing_compiles_again_for_the_last_batch(traces: list[str]) -> None:
    model = model_of_its_own()
    traces.clear()  # building a model traces it too
    run(model, [Task(photo(), POINTS)] * 4, batch_size=3)
    assert sorted(traces) == ["decode_masks", "encode_image"]


def test_photos_with_far_more_objects_are_decoded_by_themselves(
    model: Sam2Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[tuple[int, ...]] = []
    call = Sam2Model.__call__

    def counted(self: Sam2Model, *args: Any, input_labels: Any, **kwargs: Any) -> Any:
        decoded.append(input_labels.shape[:2])
        return call(self, *args, input_labels=input_labels, **kwargs)

    monkeypatch.setattr(Sam2Model, "__call__", counted)
    few, many = Task(photo(), POINTS), Task(photo(), POINTS * 8)
    run(model, [few, few, few, few, few, many, many, many, many], batch_size=3)
    assert decoded == [(3, 1), (1, 1), (1, 1), (1, 8), (3, 8)]
    decoded.clear()
    monkeypatch.setattr(batch_module, "_OBJECTS_TOGETHER", 16)
    run(model, [many, many, many], batch_size=3)
    assert decoded == [(1, 8)] * 3


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sam2-jax")]


def test_an_early_end_leaves_no_thread(model: Sam2Model) -> None:
    for found in predict_batch(model, [Task(photo(), POINTS)] * 9, progress=False):
        assert found.error is None
        assert threads()
        break
    del found
    assert threads() == []
    work = predict_batch(model, [Task(photo(), POINTS)] * 9, progress=False)
    next(work)
    work.close()  # type: ignore[attr-defined]
    assert threads() == []
    run(model, [Task(photo(), POINTS)])
    assert threads() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_leaves_no_thread(model: Sam2Model, error: type[BaseException]) -> None:
    def interrupted() -> Iterator[Task]:
        yield from [Task(photo(), POINTS)] * 3
        raise error

    with pytest.raises(error):
        run(model, interrupted())
    assert threads() == []


# --- faults


def test_faults_are_reported_and_the_others_go_on(model: Sam2Model, tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "good.png")
    (tmp_path / "damaged.png").write_bytes((tmp_path / "good.png").read_bytes()[:200])
    good = Task(tmp_path / "good.png", POINTS)
    work = [
        Task(tmp_path / "damaged.png", POINTS),
        good,
        Task(tmp_path / "missing.png", POINTS),
        Task(photo(), [[(3, 41)]], name="outside"),
        Task(photo()),
        {"photo": photo(), "point": POINTS},
        {"points": POINTS},
        "photo.png",
        Task([photo(), photo()], POINTS),
        Task(photo(), POINTS, name="last"),
    ]
    with pytest.warns(
        UserWarning, match="8 of 10 photos failed; the first, damaged.png: .*damaged.png cannot"
    ):
        found = run(model, work, batch_size=2)
    messages = [
        "damaged.png cannot be read",
        None,
        "there is no picture",
        "object 0: points must lie in the photo, which is 40 x 30 pixels; got (3, 41)",
        "nothing to segment",
        "a task has photo, points, labels, boxes, name, masks; got 'point'",
        "a task must have a photo",
        "a task must be a Task or a mapping with photo, points, labels, boxes, name, masks; got 'photo.png'",
        "a task is for one photo; got 2",
        None,
    ]
    (expected,) = run(model, [good])
    for i, (result, message) in enumerate(zip(found, messages, strict=True)):
        if message is None:
            assert result.error is None
        else:
            assert message in (result.error or ""), i
            assert result.masks is result.logits is result.iou_scores is result.size is None
    assert [result.name for result in found[:5]] == [
        "damaged.png",
        "good.png",
        "missing.png",
        "outside",
        "photo 4",
    ]
    assert_alike(found[1], expected)
    assert found[9].masks is not None


def test_on_error_raise_names_the_photo_in_its_turn(model: Sam2Model) -> None:
    work = predict_batch(
        model, [Task(photo(), POINTS), Task(photo(), [[(99, 1)]], name="b")], progress=False, on_error="raise"
    )
    assert next(work).error is None
    with pytest.raises(ValueError, match=r"^b: object 0: points must lie in the photo"):
        next(work)
    assert threads() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"work": []} | {"batch_size": 0}, "batch_size must be a whole number from 1 to 4096; got 0"),
        ({"work": []} | {"batch_size": 2.5}, "batch_size"),
        ({"work": []} | {"on_error": "ignore"}, "on_error must be 'report' or 'raise'; got 'ignore'"),
        ({"work": []} | {"max_hole_area": -1}, "max_hole_area"),
        (
            {"work": {"photo": "a.png"}},
            r"work must be a folder or an iterable.*got dict: for one photo, \[task\]",
        ),
        ({"work": Task("a.png")}, "got Task"),
        ({"work": 3}, "got int"),
        ({"work": "no such folder"}, "there is no folder 'no such folder'"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    model: Sam2Model, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        predict_batch(model, **arguments)


def test_no_work_gives_no_results(model: Sam2Model) -> None:
    assert run(model, []) == []


# --- folders


def test_a_folder_with_prompts(model: Sam2Model, tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", ".hidden.png", "no_entry.bmp", "wrong.png"):
        Image.fromarray(photo()).save(tmp_path / name, "PNG")
    (tmp_path / "sub").mkdir()
    Image.fromarray(photo()).save(tmp_path / "sub" / "c.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    prompts = {
        "b.png": {"points": [[[3, 4], [9, 9]], []], "labels": [[1, 0], []], "boxes": [None, [1, 1, 9, 9]]},
        "a.PNG": {"boxes": [[1, 1, 9, 9]]},
        "typo.png": {"boxes": [[1, 1, 9, 9]]},
        "wrong.png": {"box": [1, 1, 9, 9]},
        "sub/c.png": {"points": [[[3, 4]]]},
    }
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    with pytest.warns(
        UserWarning, match="3 of 6 photos failed; the first, no_entry.bmp: prompts.json has no entry"
    ):
        found = {result.name: result for result in run(model, tmp_path)}
    assert list(found) == ["a.PNG", "b.png", "no_entry.bmp", "sub/c.png", "typo.png", "wrong.png"]
    assert "there is no picture" in str(found["typo.png"].error)
    assert "must have points, labels, boxes alone; got box" in str(found["wrong.png"].error)
    (expected,) = run(model, [Task(photo(), **prompts["b.png"], name="b.png")])
    assert_alike(found["b.png"], expected)
    assert found["sub/c.png"].error is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"prompts.json is missing: it says what to segment, as in \{"),
        ("{", "prompts.json is not valid JSON"),
        ("[" * 100_000, "prompts.json is not valid JSON .*nested too deep"),
        ("[]", "prompts.json must be an object with an entry for each picture"),
    ],
)
def test_a_folder_without_good_prompts_is_refused(
    model: Sam2Model, tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "prompts.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        predict_batch(model, tmp_path)


# --- progress


def test_progress_is_drawn_to_stderr(model: Sam2Model, capsys: pytest.CaptureFixture[str]) -> None:
    work = [Task(photo(), POINTS), Task(photo(), [[(99, 1)]])]
    with pytest.warns(UserWarning, match="1 of 2 photos failed"):
        list(predict_batch(model, work))
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err
    assert "photo" in err
    assert "failed=1" in err
    list(predict_batch(model, iter(work[:1]), total=7))
    assert "1/7" in capsys.readouterr().err
    list(predict_batch(model, iter(work[:1])))
    assert "1photo" in capsys.readouterr().err
    list(predict_batch(model, work[:1], progress=False))
    assert capsys.readouterr() == ("", "")
