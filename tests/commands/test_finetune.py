"""The `finetune` command: from a dataset to a trained model in both layouts."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_models import model_of, smallest_config

from sam2_jax import Sam2Model
from sam2_jax.checkpoint import names
from sam2_jax.commands import main
from sam2_jax.processing.rle import encode_rle
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
        assert finetune(folder, "--processes", "1") == 0
    return "\n".join(out), "\n".join(err)


def test_what_is_left_out_and_what_was_gained_is_said(said: tuple[str, str], folder: Path) -> None:
    out, err = said
    assert "3 pictures to train on, 1 held out" in out
    assert "left out: 1 crowds" in out
    assert "4.png" in err
    assert "before: mean IoU of" in out
    assert "after: mean IoU of" in out
    report = json.loads((folder / "tuned" / "report.json").read_text())
    assert report["before"]["objects"] == report["after"]["objects"] > 0


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
        (["--steps", "0"], "steps must be a whole number, 1 or more; got 0"),
        (["--corrections", "-1"], "--corrections must be 0 or more; got -1"),
        (["--processes", "-1"], "processes must be 0 or more; got -1"),
        (["--learning-rate", "0"], "learning_rate must be positive; got 0.0"),
        (["--held-out", "1"], "held_out must be a share"),
        (["--train", "decoder.*"], "trained pattern 'decoder.*' fits no parameter; there are"),
        (["--seed", "3"], "holds a training with other options (seed)"),
        (["--image-size", "50"], "must be divisible by the network's stride"),
    ],
)
@pytest.mark.usefixtures("said")
def test_what_cannot_be_meant_is_a_sentence(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(folder, *options) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("sam2-jax: error: ")
    assert message in error
