"""The `finetune` command: from a dataset to a trained model in both layouts."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_models import model_of, smallest_config

from sam2_jax import Sam2Model
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.fingerprint import fingerprint
from sam2_jax.commands import main
from sam2_jax.processing.rle import encode_rle
from sam2_jax.training.datasets import open_dataset
from sam2_jax.training.evaluate import Evaluation
from sam2_jax.training.examples import split
from sam2_jax.training.synthetic.scenes import make_scene

# The step compiled here is that of test_training.
pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model and a COCO dataset of five pictures, the last of them damaged, one object a crowd."""
    folder = tmp_path_factory.mktemp("finetune")
    model_of(smallest_config()).save_pretrained(folder / "model")
    (folder / "photos").mkdir()
    images, annotations = [], []
    for number in range(5):
        scene = make_scene(5, number, 64)
        name = f"{number}.png"
        Image.fromarray(scene.image).save(folder / "photos" / name)
        images.append({"id": number, "file_name": name, "height": 64, "width": 64})
        for mask in scene.masks:
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": int(not annotations),
                    "segmentation": encode_rle(mask),
                }
            )
    (folder / "photos" / "4.png").write_bytes(b"damaged")
    data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "data.json").write_text(json.dumps(data))
    return folder


def finetune(folder: Path, *options: str) -> int:
    inputs = ["--data", str(folder / "data.json"), "--images", str(folder / "photos")]
    model = ["--model", str(folder / "model"), "--output", str(folder / "tuned"), "--held-out", "0.25"]
    # The numbers of test_training, for which the step is compiled already.
    size = ["--steps", "12", "--objects", "2", "--corrections", "1", "--learning-rate", "1e-3"]
    return main(["finetune", *inputs, *model, *size, *options])


@pytest.fixture(scope="module")
def said(folder: Path) -> tuple[str, str]:
    """What the command says on stdout and stderr in its first run."""
    with pytest.MonkeyPatch.context() as patch:
        out, err = [], []
        patch.setattr("builtins.print", lambda *a, file=None, **_: (err if file else out).append(str(a[0])))
        assert finetune(folder, "--workers", "1" if find_spec("grain") else "0") == 0
    return "\n".join(out), "\n".join(err)


def test_what_is_left_out_and_what_was_gained_is_said(said: tuple[str, str], folder: Path) -> None:
    out, err = said
    assert "3 pictures to train on, 1 held out" in out
    assert "left out: 1 annotations with iscrowd 1" in out
    assert "4.png" in err
    assert "before: mean IoU of" in out
    assert "after: mean IoU of" in out
    report = json.loads((folder / "tuned" / "report.json").read_text())
    assert report["before"]["objects"] == report["after"]["objects"] > 0


def test_without_a_model_the_embedded_one_is_trained(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a hub, too. Pictures to judge by may be of their own, or none."""
    trained: list[tuple[str, int]] = []

    def train(model: Sam2Model, source: Any, options: Any, output: Path, **given: Any) -> Any:
        trained.append((fingerprint(model.params), len(source.dataset)))
        return model, []

    judged: list[int] = []

    def evaluate(model: Sam2Model, examples: Any, **_: Any) -> Evaluation:
        judged.append(len(list(examples)))
        return Evaluation(0.5, (0.5,), 0.5, 1)

    monkeypatch.setattr("sam2_jax.commands.common.default_model", lambda _: ("embedded", "no hub: embedded"))
    monkeypatch.setattr("sam2_jax.training.trainer.train", train)
    monkeypatch.setattr("sam2_jax.training.evaluate.evaluate", evaluate)
    data = ["finetune", "--data", str(folder / "data.json"), "--images", str(folder / "photos")]
    output = ["--output", str(tmp_path / "tuned")]
    assert main([*data, *output, "--held-out", "0"]) == 0
    assert "note: no hub: embedded" in capsys.readouterr().err
    assert json.loads((tmp_path / "tuned" / "report.json").read_text()) == {"model": "embedded"}
    own = ["--validation", str(folder / "data.json"), "--validation-images", str(folder / "photos")]
    assert main([*data, *output, "--model", "embedded", *own]) == 0
    assert trained == [(fingerprint(Sam2Model.from_pretrained("embedded").params), 4)] * 4
    assert judged == [4, 4]


def test_another_dataset_has_another_fingerprint(folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset(folder / "data.json", folder / "photos")
    shutil.copytree(folder / "photos", tmp_path / "moved")
    shutil.copy(folder / "data.json", tmp_path)
    moved = open_dataset(tmp_path / "data.json", tmp_path / "moved")
    assert moved.fingerprint() == dataset.fingerprint() != split(dataset, 0.5)[0].fingerprint()
    (tmp_path / "data.json").write_text((folder / "data.json").read_text().replace("thing", "other"))
    assert moved.fingerprint() != dataset.fingerprint()


@pytest.mark.usefixtures("said")
def test_both_layouts_hold_the_trained_model_and_the_backbone_is_what_it_was(folder: Path) -> None:
    first, flax, torch = (
        names.flatten(Sam2Model.from_pretrained(folder / name).params)
        for name in ("model", "tuned", "tuned/transformers")
    )
    assert all(np.array_equal(flax[name], torch[name]) for name in flax)
    same = {name for name in flax if np.array_equal(first[name], flax[name])}
    assert {name for name in flax if name.startswith("vision_encoder.backbone.")} <= same
    assert "mask_decoder.iou_token.embedding" not in same


@pytest.mark.usefixtures("said")
def test_given_again_it_does_not_train_again(folder: Path) -> None:
    before = (folder / "tuned" / "metrics.jsonl").read_text()
    assert finetune(folder) == 0
    assert (folder / "tuned" / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "/no/such.json"], "/no/such.json"),
        (["--steps", "0"], "--steps must be a whole number from 1 to"),
        (["--steps", "1e12"], "--steps must be a whole number from 1 to"),
        (["--corrections", "-1"], "--corrections must be a whole number from 0 to 100; got -1"),
        (["--workers", "-1"], "--workers must be a whole number from 0 to 256; got -1"),
        (["--checkpoint-every", "0"], "--checkpoint-every must be a whole number from 1 to"),
        (["--learning-rate", "0"], "--learning-rate must be a number above 0"),
        (["--held-out", "1"], "--held-out must be a number"),
        (["--validation", "data"], "leave out --held-out, or give it 0"),
        (["--held-out", "0", "--validation", "/no/such"], "there is no /no/such"),
        (["--validation-images", "photos"], "give that, too"),
        (["--model", "embeded"], "embedded"),
        (["--train", "decoder.*"], "trained pattern 'decoder.*' fits no parameter; there are"),
        (["--seed", "3"], "holds a training with other options (data, seed)"),
        (["--image-size", "50"], "in pixels, multiples of 32 up to 65536; got 50"),
        (["--image-size", "96"], "holds a training with other options (image_size)"),
        (["--model", "embedded"], "holds a training with other options (image_size, model)"),
        (["--held-out", "0"], "holds a training with other options (data)"),
        (["--steps", "11"], "holds a training with other options (steps)"),
    ],
)
@pytest.mark.usefixtures("said")
def test_what_cannot_be_meant_is_a_sentence(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted((folder / "tuned").rglob("*")), (folder / "tuned" / "training.json").read_text()
    assert finetune(folder, *options) == 1
    assert before == (sorted((folder / "tuned").rglob("*")), (folder / "tuned" / "training.json").read_text())
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("sam2-jax: error: ")
    assert message in error
