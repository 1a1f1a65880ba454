"""A training's folder: checkpoints to go on from, what they belong to, and the metrics so far."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from sam2_jax.atomic import write_text
from sam2_jax.json_files import json_text, read_json_object
from sam2_jax.training.step import TrainState

# How checkpoints are made up. In 1, the optimiser had each parameter for itself.
_CHECKPOINTS = 2
# More of these is the same training, longer; the warm-up is a part of all steps.
_MAY_GROW = {"steps", "optimizer.warmup_steps"}


class Record:
    """A training's folder: checkpoints, what they belong to, and metrics.jsonl.

    belongs_to: of JSON's types; what differs from what the folder's training.json says is another training,
    but that it may have more steps. every: steps between checkpoints. Raises ValueError for the folder of
    another training.
    """

    def __init__(self, folder: Path | None, belongs_to: Mapping[str, Any], every: int) -> None:
        self.rows: list[dict[str, float]] = []
        self.every = every
        self.folder = folder
        self.is_writing = jax.process_index() == 0  # of processes that train together the first; Orbax is all
        self.manager: ocp.CheckpointManager | None = None
        if folder is None:
            return
        given = json.loads(json.dumps({"checkpoints": _CHECKPOINTS, **belongs_to}))
        path = folder / "training.json"
        if path.exists() and any((folder / "checkpoints").glob("[0-9]*")):
            _check_belonging(folder, read_json_object(path, "choose another folder"), given)
        if self.is_writing:
            write_text(path, json_text(given, indent=2) + "\n")
        self.manager = ocp.CheckpointManager(
            (folder / "checkpoints").resolve(),
            options=ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False),
        )

    def restore(self, state: TrainState) -> TrainState:
        """The last checkpoint's state, or if there is none the given one."""
        if self.manager is None or self.manager.latest_step() is None:
            return state
        step = self.manager.latest_step()
        restored = self.manager.restore(step, args=ocp.args.StandardRestore(_arrays(state)))
        path = self._metrics
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows = [row for row in map(json.loads, lines) if row["step"] <= step]
        if self.is_writing:
            write_text(path, "".join(json.dumps(row) + "\n" for row in self.rows))
        return jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(restored))

    @property
    def _metrics(self) -> Path:
        assert self.folder is not None
        return self.folder / "metrics.jsonl"

    def log(self, row: dict[str, float] | None) -> None:
        """Keep a row of metrics, in the file too."""
        if row is None:
            return
        self.rows.append(row)
        if self.folder is not None and self.is_writing:
            with self._metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def save_stopped(self, state: TrainState) -> int:
        """Save a checkpoint of a training that is stopped; returns from which step it will go on."""
        if self.manager is None:
            return 0
        try:
            step = int(state.step)
            if step and step != self.manager.latest_step():
                self.save(step, state, is_last=True)
        except (ValueError, RuntimeError):  # stopped while a step used the state up, or the disk is full
            pass
        return self.manager.latest_step() or 0

    def save(self, step: int, state: TrainState, *, is_last: bool) -> None:
        """Save a checkpoint if it is time."""
        if self.manager is None or not (is_last or step % self.every == 0):
            return
        try:
            with _errors_not_logged():
                self.manager.save(step, args=ocp.args.StandardSave(_arrays(state)))
        # A full disk is another error in each of the libraries that write.
        except (OSError, ValueError, RuntimeError) as error:
            last = self.manager.latest_step() or 0
            raise ValueError(
                f"cannot write a checkpoint to {self.folder}: {error}. Make room there and give the same "
                f"command again: training goes on from step {last}"
            ) from error

    def close(self) -> None:
        """Finish writing."""
        if self.manager is not None:
            self.manager.close()


def _check_belonging(folder: Path, before: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse a folder whose checkpoints are of another training than the one that is given."""
    if before.get("checkpoints") != _CHECKPOINTS:
        raise ValueError(
            f"{folder} holds a training of another version of sam2_jax, whose checkpoints this one does not "
            "read: choose another folder, or go on with that version"
        )
    old, new = _by_name(before), _by_name(given)
    changed = {name for name in new if new[name] != old.get(name)}
    if "processor" not in before:  # it was not always kept
        changed = {name for name in changed if not name.startswith("processor.")}
    if isinstance(before.get("steps"), int) and given["steps"] > before["steps"]:
        changed -= _MAY_GROW
    if changed:
        raise ValueError(
            f"{folder} holds a training with other options ({', '.join(sorted(changed))}): choose another "
            "folder, or the same options to go on with it; steps may be more"
        )


def _by_name(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by the names of all levels, joined by dots."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, dict)
        found |= _by_name(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return found


@contextmanager
def _errors_not_logged() -> Iterator[None]:
    """Keep Orbax from logging, with tracebacks of all its threads, the error that it raises anyway."""
    logger = logging.getLogger("absl")

    def nothing(record: logging.LogRecord) -> bool:  # one for each time, so that threads end only their own
        return False

    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)


def _arrays(state: TrainState) -> dict[str, Any]:
    """A state as numbered arrays, for a file that does not depend on the optimiser's classes."""
    return {f"{i:05}": leaf for i, leaf in enumerate(jax.tree.leaves(state))}
