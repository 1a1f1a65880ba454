"""The reference scenarios of videos: small networks, short clips, operations and what the references gave.

Each file names the reference that is right in it. Played on a session, its operations give the same keys.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from sam2_jax import Sam2VideoModel
from sam2_jax.checkpoint import names
from sam2_jax.video.tracker import VideoTracker


class Scenario:
    """One file: its model, its clip, its operations and what came of them."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.data = np.load(folder / f"{name}.npz")
        self.spec = json.loads(str(self.data["spec"]))
        self.operations: list[dict[str, Any]] = self.spec["operations"]

    @property
    def frames(self) -> np.ndarray:
        """The clip, uint8 [T, S, S, 3], at the network's size."""
        return clip(self.folder, self.spec["clip"])[self.spec["frames"]]

    @property
    def is_stream(self) -> bool:
        """Whether frames come one by one."""
        return any(operation["do"] == "stream" for operation in self.operations)

    def model(self) -> Sam2VideoModel:
        """The network, its weights changed as the scenario wants it."""
        model = network(self.folder, self.spec["model"], self.frames.shape[1])
        if not self.spec["weights"]:
            return model
        flat = names.flatten(model.params)
        for name, value in self.spec["weights"].items():
            flat[name] = np.full_like(flat[name], value)
        return Sam2VideoModel(model.config, names.unflatten(flat))

    def session(self, **options: Any) -> VideoTracker:
        """A session with the scenario's options."""
        frames: Any = iter(self.frames) if self.is_stream else self.frames
        options = {
            "size": self.spec["size"],
            "memory_dtype": self.spec["memory_dtype"],
            "max_cond_frame_num": self.spec["config"].get("max_cond_frame_num"),
            "memory_temporal_stride": self.spec["options"].get("memory_temporal_stride_for_eval", 1),
            "compat": "meta_legacy" if self.spec["truth"] == "meta_legacy" else None,
            **options,
        }
        return self.model().video(frames, **options)

    def expected(self, operation: int) -> dict[str, np.ndarray]:
        """What the reference gave for an operation, by name; nothing for those that are not compared."""
        start = f"{operation}/"
        found = {k.removeprefix(start): self.data[k] for k in self.data.files if k.startswith(start)}
        if "memory" in found and found["memory"].dtype == np.uint16:
            found["memory"] = found["memory"].view(ml_dtypes.bfloat16)
        return found


def play(session: VideoTracker, operation: dict[str, Any]) -> dict[str, np.ndarray]:
    """Do an operation and return what is to be compared; nothing for those that only change the session."""
    kind = operation["do"]
    if kind == "clear_prompts":
        session.clear_prompts(operation["frame"], operation["object"])
        return {}
    if kind == "remove_object":
        session.remove_object(operation["object"])
        return {}
    if kind in ("points", "mask"):
        frame, object_id = operation["frame"], operation["object"]
        if kind == "mask":
            found = session.prompt(frame, object_id, mask=mask_of(operation, session.size))
        else:
            prompts = {name: operation[name] for name in ("points", "labels", "box")}
            found = session.prompt(frame, object_id, **prompts, clear_old=operation["clear"])
        output = session.output(object_id, frame)
        assert output is not None
        return {"low": found.logits[0], "score": found.object_scores[0], "pointer": output.pointer}
    if kind == "stream":
        yields = session.propagate(operation["start"], operation["count"] - 1)
    else:
        yields = session.propagate(operation["start"], operation["count"], operation["reverse"])
    return played(session, yields)


def played(session: VideoTracker, yields: Any) -> dict[str, np.ndarray]:
    """What a run over frames gave: frames, objects, low, score and pointer [F, P, ...], cond, memories."""
    found: dict[str, list[Any]] = {k: [] for k in ("frames", "low", "score", "pointer", "cond", "memory")}
    ids: tuple[Any, ...] = ()
    for each in yields:
        ids = each.object_ids
        outputs = [session.output(id_, each.frame) for id_ in ids]
        found["frames"].append(each.frame)
        found["low"].append(each.logits)
        found["score"].append(each.object_scores)
        found["cond"].append(each.is_conditioning)
        found["pointer"].append([output.pointer for output in outputs])
        found["memory"].append([output.memory for output in outputs])
    return {k: np.array(v) for k, v in found.items()} | {"objects": np.array(ids)}


def mask_of(operation: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The mask that an operation describes: a disc, or nothing."""
    height, width = operation["size"] or size
    if operation["mask"][0] == "empty":
        return np.zeros((height, width), bool)
    _, x, y, radius = operation["mask"]
    rows, columns = np.mgrid[:height, :width]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


@lru_cache
def clip(folder: Path, name: str) -> np.ndarray:
    """All frames of a clip."""
    frames: np.ndarray = np.load(folder / "clips" / f"{name}.npz")["frames"]
    return frames


@lru_cache
def network(folder: Path, name: str, size: int) -> Sam2VideoModel:
    """A reference network for frames of a size."""
    model = Sam2VideoModel.from_pretrained(folder / "models" / name)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(model.params))
    return model if model.config.image_config.image_size == (size, size) else model.with_image_size(size)
