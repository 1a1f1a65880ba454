"""What we save transformers loads, what it saves we load, and both times the numbers are the same."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("transformers", reason="parity needs transformers")

import transformers
from tolerances import assert_close

from parity.oracle import Pair, predict
from sam2_jax import Sam2Model
from sam2_jax.checkpoint import names

POINTS = np.random.default_rng(4).uniform(0, 128, (2, 3, 1, 2)).astype(np.float32)


def test_transformers_loads_what_we_save(pair: Pair, pixels: np.ndarray, tmp_path: Path) -> None:
    pair.ours.save_pretrained(tmp_path, layout="transformers")
    loaded, report = transformers.Sam2Model.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    theirs = predict(loaded.eval(), pixel_values=pixels, input_points=POINTS)
    ours = pair.ours(pixels, POINTS)
    assert_close("masks", "saved by us", ours.pred_masks, theirs.pred_masks)
    assert_close("scores", "IoU, saved by us", ours.iou_scores, theirs.iou_scores)


@pytest.mark.parametrize("shard_size", ["5GB", "200KB"])
def test_we_load_what_transformers_saves(pair: Pair, tmp_path: Path, shard_size: str) -> None:
    pair.theirs.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "200KB")
    loaded = Sam2Model.from_pretrained(tmp_path)
    assert loaded.config == pair.ours.config
    expected = names.flatten(pair.ours.params)
    for name, value in names.flatten(loaded.params).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
