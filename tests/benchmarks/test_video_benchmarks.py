"""What the benchmarks of video time is a frame tracked; the speed itself is measured by hand."""

import numpy as np
import pytest
from small_models import random_tensors, smallest_video_config

from benchmarks.common import Timing
from benchmarks.tracked import clicks, our_step
from benchmarks.video import OURS, row
from sam2_jax import Sam2VideoModel
from sam2_jax.checkpoint import names


@pytest.mark.usefixtures("quick_compilation")
def test_each_step_tracks_the_next_frame_for_all_objects() -> None:
    config = smallest_video_config()
    model = Sam2VideoModel(config, names.unflatten(names.to_flax(random_tensors(config))))
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    step = our_step(model, frame, clicks(2, 64))
    found = [step(), step()]
    assert [each.frame for each in found] == [1, 2]
    assert all(each.object_ids == (0, 1) and not each.is_conditioning.any() for each in found)


def test_ratios_are_of_medians() -> None:
    seconds = {OURS[0]: 0.2, OURS[1]: 0.1, "eager": 0.5, "autocast": 0.3}
    timings = {name: Timing(9.0, [x, x, 7 * x]) for name, x in seconds.items()}
    assert row("tiny, 1 object", timings, list(seconds))[-4:] == ["**2.50x**", "2.00x", "3.00x", "10.00"]
