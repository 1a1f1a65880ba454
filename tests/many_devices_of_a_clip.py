"""Run in a process of four fake devices: objects of a clip tracked on 1, 2 and 4 of them, as JSON."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from many_devices import EXCHANGES
from quick_compilation import compiling_quickly
from small_video import small_clip, small_video_model, stacked

from sam2_jax.video import steps
from sam2_jax.video.tracker import VideoTracker

CLIP = small_clip(10)


def begun(devices: int, chunk: int) -> VideoTracker:
    model = small_video_model().on_devices(devices)
    return model.video(CLIP, chunk=chunk, memory_dtype="float32")


def tracked(devices: int, chunk: int, saved: Path) -> list[Any]:
    """Logits of a run of four objects, one of them corrected, one gone, after which a fifth comes."""
    session = begun(devices, chunk)
    for i in range(4):
        session.prompt(0, i, [(10 + 12 * i, 30)])
    found = [stacked(session.propagate(count=6))[1]]
    session.prompt(4, 2, [(34, 20)], clear_old=False)
    session.remove_object(1)
    for i in (7, 8):
        session.prompt(5, i, box=(30, 5, 60, 40))
    found.append(stacked(session.propagate(start=5))[1])
    session.save(saved)
    again = begun(devices, chunk)
    again.load(saved)
    found.append(stacked(again.propagate(start=5, reverse=True))[1])
    return found


def main() -> None:
    programs: list[str] = []
    track = steps._track

    def looked_at(*inputs: Any) -> Any:
        programs.append(track.lower(*inputs).compile().as_text())
        return track(*inputs)

    report: dict[str, Any] = {"difference": {}, "exchanges": {}, "shared": {}}
    run = partial(tracked, saved=Path(sys.argv[1]) / "session.npz")
    alone = run(1, 1)
    for devices, chunk in ((2, 1), (4, 1), (4, 4)):
        name = f"{devices} devices, {chunk} frames"
        programs.clear()
        steps._track = looked_at  # type: ignore[assignment]
        found = run(devices, chunk)
        steps._track = track
        report["difference"][name] = max(
            float(np.abs(a - b).max()) for a, b in zip(alone, found, strict=True)
        )
        report["exchanges"][name] = sorted({each for text in programs for each in EXCHANGES.findall(text)})
        report["shared"][name] = [f"num_partitions={devices}" in text for text in programs]
    print(json.dumps(report))


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    with compiling_quickly():
        main()
