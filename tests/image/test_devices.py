"""A batch divided among devices: the same masks, no exchange between devices, nothing compiled again."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small_models import model_of, smallest_config

from sam2_jax import AutomaticMaskGenerator, Sam2Model
from sam2_jax.commands import main

SCRIPT = Path(__file__).parent.parent / "many_devices.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process of eight devices computed."""
    folder = tmp_path_factory.mktemp("programs")
    flags = f"--xla_force_host_platform_device_count=8 --xla_dump_to={folder} --xla_dump_hlo_as_text"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, SCRIPT, folder], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_masks_do_not_depend_on_the_number_of_devices(found: dict[str, Any]) -> None:
    assert found["same"] == dict.fromkeys("1248", True)
    assert max(found["difference"].values()) < 1e-4
    assert found["equal to the bit"]
    assert found["generated"] == {"2": True, "4": True}
    assert min(found["masks"]) > 2


@pytest.mark.slow
def test_each_device_does_its_part_and_exchanges_nothing(found: dict[str, Any]) -> None:
    assert found["exchanges of a sum"] == ["all-reduce"]
    assert found["exchanges"] == []
    assert found["of several"] > 10
    for devices, flops in found["flops"].items():
        assert flops * int(devices) / found["flops"]["1"] == pytest.approx(1, abs=0.03), devices


@pytest.mark.slow
def test_photos_of_any_size_and_number_compile_nothing_again(found: dict[str, Any]) -> None:
    assert found["compiled again"] == 0


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (10**6, "devices must be at most 1, the number there is .cpu:0.; got 1000000"),
        (0, "devices must be a whole number of at least 1; got 0"),
        ("all", "devices must be a whole number"),
        ([], "devices must be a number, or different ones of this process's"),
        ([3], "devices must be a number, or different ones of this process's"),
    ],
)
def test_devices_that_are_not_there_are_refused(small_model: Sam2Model, devices: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model.predict_batch([], devices=devices)


def test_the_command_says_how_many_devices_there_are(tmp_path: Path, capsys: Any) -> None:
    np.save(tmp_path / "photo.npy", np.zeros(3))
    command = [
        "generate",
        str(tmp_path / "photo.npy"),
        "--output",
        str(tmp_path / "out"),
        "--model",
        "embedded",
    ]
    assert main([*command, "--devices", "99"]) == 1
    assert "devices must be at most" in capsys.readouterr().err
    assert main([*command, "--batch-size", "0"]) == 1
    assert "batch_size must be a whole number from 1" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_several_photos_give_what_each_gives_alone() -> None:
    """With crops, and a last batch that is not full."""
    model = model_of(smallest_config())
    options = {"points_per_side": 4, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    generator = AutomaticMaskGenerator(model, crop_n_layers=1, output_mode="coco_rle", **options)
    rng = np.random.default_rng(2)
    photos = [rng.integers(0, 256, (50 + 9 * i, 70, 3), np.uint8) for i in range(3)]
    together = list(generator.generate_each(iter(photos), batch_size=2, readers=2))
    assert len(together) == len(photos)
    for photo, found in zip(photos, together, strict=True):
        alone = generator.generate(photo)
        assert [each["segmentation"] for each in found] == [each["segmentation"] for each in alone]
        assert [each["predicted_iou"] for each in found] == pytest.approx(
            [each["predicted_iou"] for each in alone], abs=1e-4
        )


def test_a_model_on_one_device_is_the_same_model(small_model: Sam2Model) -> None:
    placed = small_model.on_devices(jax.devices()[:1])
    assert placed is not small_model
    assert placed.device_count == small_model.device_count == 1
    assert placed.config == small_model.config
    assert small_model.mesh is None
