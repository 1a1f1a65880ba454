"""Training from start to end: steps, metrics, checkpoints, and going on from one to the same numbers."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.fingerprint import fingerprint
from sam2_jax.checks import read_flag, read_whole, shown
from sam2_jax.config import Sam2Config
from sam2_jax.image.model import Sam2Model
from sam2_jax.model.sam2 import Sam2
from sam2_jax.processing.image_processor import Sam2ImageProcessor
from sam2_jax.processing.processor import Sam2Processor
from sam2_jax.progress import progress_bar
from sam2_jax.training.batches import Source, batches
from sam2_jax.training.losses import LossWeights
from sam2_jax.training.optimizer import Layout, OptimizerOptions, learning_rate_schedule, make_optimizer
from sam2_jax.training.parameters import merge_parameters, split_parameters
from sam2_jax.training.placing import at_hand, brought, own_rows, placed
from sam2_jax.training.prompts import PromptOptions
from sam2_jax.training.record import Record
from sam2_jax.training.step import Metrics, TrainState, compiled_step
from sam2_jax.training.stopping import all_stop_at, ctrl_c_for_all

# The encoder stays as it is: what is trained by default is cheap, and needs few pictures.
TRAINED = ("vision_encoder.neck.*", "no_memory_embedding", "prompt_encoder.*", "mask_decoder.*")
# After this many steps in a row without an update, something is wrong that going on will not mend.
_MOST_SKIPPED = 10


class Trainable(Protocol):
    """A model of pictures or of clips, as `run_training` needs it."""

    params: Any

    @property
    def image_config(self) -> Sam2Config:
        """The image model's configuration."""

    @property
    def processor(self) -> Sam2Processor:
        """What prepares pictures for it."""

    def with_params(self, params: Mapping[str, Any]) -> Any:
        """The same model with other weights."""


@dataclass(frozen=True)
class TrainingOptions:
    """What is trained, on how much, and how.

    steps, batch_size: pictures are steps x batch_size. objects: of each picture in a step. trained, lora:
    patterns of parameter names, as `split_parameters` takes them. dtype: computing type, "float32" or
    "bfloat16"; parameters are float32. remat: compute the encoder's blocks again for gradients instead of
    keeping what they made: slower, in far less memory.
    """

    steps: int = 1000
    batch_size: int = 2
    objects: int = 4
    seed: int = 0
    trained: tuple[str, ...] = TRAINED
    lora: tuple[str, ...] = ()
    lora_rank: int = 4
    dtype: str = "float32"
    remat: bool = False
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    prompts: PromptOptions = field(default_factory=PromptOptions)
    weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        for name in ("trained", "lora"):
            given = getattr(self, name)
            is_several = isinstance(given, Iterable) and not isinstance(given, (str, np.ndarray))
            patterns = tuple(given) if is_several else (0,)
            if not all(isinstance(pattern, str) for pattern in patterns):
                raise ValueError(f"{name} must be patterns, ('mask_decoder.*',) say; got {shown(given)}")
            self._set(name, patterns)
        for name in ("steps", "batch_size", "objects", "lora_rank"):
            self._set(name, read_whole(name, getattr(self, name), 1))
        self._set("seed", read_whole("seed", self.seed, 0))
        self._set("remat", read_flag("remat", self.remat))
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16'; got {shown(self.dtype)}")
        kinds: dict[str, Any] = {
            "optimizer": OptimizerOptions,
            "prompts": PromptOptions,
            "weights": LossWeights,
        }
        for name, kind in kinds.items():
            given = getattr(self, name)
            if not isinstance(given, kind):
                raise ValueError(f"{name} must be {kind.__name__}; got {shown(given)}")
            self._set(name, given.checked())
        if self.optimizer.accumulate > self.steps:
            raise ValueError(
                f"accumulate must be at most steps, {self.steps}, or nothing would be trained; got "
                f"{self.optimizer.accumulate}"
            )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


@contextmanager
def _usual_types() -> Iterator[None]:
    """A training is the same whatever types JAX is told to take: in 64 bits it would draw other numbers."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def train(
    model: Sam2Model,
    source: Source,
    options: TrainingOptions,
    folder: str | Path | None = None,
    *,
    workers: int = 0,
    **running: Any,
) -> tuple[Sam2Model, list[dict[str, float]]]:
    """Train a model; returns the trained one, the given one being left as it is, and the metrics logged.

    workers: so many processes of Grain make the batches, the same ones, for a device that a thread cannot
    keep busy.
    folder and running: see `run_training`. Stopped by Ctrl-C, training saves a checkpoint first.

    Warns of objects that are too small to be learnt at the network's resolution. Raises ValueError for
    options that do not fit, gradients that stay not finite, pictures without any object that is large enough,
    and a folder that cannot be written or has another training's checkpoints.
    """
    workers = read_whole("workers", workers, 0)
    module = Sam2(model.config, dtype=jnp.dtype(options.dtype), remat=options.remat)

    def coming(numbers: range, rows: Sequence[int]) -> Iterator[tuple[Any, int]]:
        processor = input_processor(model)
        count, objects = options.batch_size, options.objects
        return batches(source, processor, count, objects, options.seed, numbers, rows, workers)

    return run_training(model, module, compiled_step, coming, options, folder, **running)


@_usual_types()
def run_training(
    model: Trainable,
    module: Sam2,
    compiled: Callable[..., Any],
    coming: Callable[[range, Sequence[int]], Iterator[tuple[Any, int]]],
    options: TrainingOptions,
    folder: str | Path | None = None,
    *,
    stop_at: int | None = None,
    checkpoint_every: int = 500,
    log_every: int = 10,
    devices: Sequence[Any] | None = None,
    data: Any = None,
    progress: bool = True,
) -> tuple[Any, list[dict[str, float]]]:
    """Train a model's module on what comes: these rows of the batches of steps, and what was too small.

    compiled: makes the compiled step, `compiled_step` say.
    folder: where checkpoints and metrics.jsonl go; training found there goes on, to the same numbers as if it
    had never stopped. stop_at: stop there, before all of options.steps are done. devices: over which the
    pictures of a batch are spread, all parameters being on each; by default as many as divide batch_size,
    with a warning if these are not all there are. data: of JSON's types, what tells the source's data from
    other data, `Dataset.fingerprint()` say.

    Several processes (`sam2_jax.scale.initialize`) are given the same and train on one batch: each makes its
    own pictures of it; all of their devices are used. The first writes the metrics. Ctrl-C or SIGTERM, of
    any of them, stops all after the same step, with a checkpoint.

    A folder goes on only with the same weights, image size, values of pixels, data and options, of which
    steps may be more: the learning rate then follows the schedule of all of them.
    """
    folder = None if folder is None else Path(folder)
    checkpoint_every = read_whole("checkpoint_every", checkpoint_every, 1)
    log_every = read_whole("log_every", log_every, 1)
    stop_at = options.steps if stop_at is None else read_whole("stop_at", stop_at, 0)
    float32 = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), model.params)
    split = split_parameters(float32, options.trained, options.lora, options.lora_rank, seed=options.seed)
    trained_shapes = tuple(names.shapes(split.trained).items())
    layout, optimizer, step = _program(compiled, module, options, trained_shapes)
    spread, everywhere = _shardings(devices, options.batch_size)
    # Copies: a vector of one parameter is the model's own, and a step uses its state up.
    trained = jax.tree.map(jnp.copy, layout.pack(split.trained))
    state = placed(TrainState(jnp.int32(0), trained, optimizer.init(trained)), everywhere)
    end = min(options.steps, stop_at)
    belongs_to = {} if folder is None else _belongs_to(model, data, options)
    with closing(Record(folder, belongs_to, checkpoint_every)) as record:
        state = record.restore(state)
        frozen = placed(split.frozen, everywhere)
        key = jax.jit(lambda: jax.random.key(options.seed), out_shardings=everywhere)()
        start = int(state.step)
        rate = learning_rate_schedule(options.optimizer, options.steps)
        watch = _Watch(rate, options, log_every, model.image_config.image_size)
        numbers, rows = range(start, end), own_rows(spread, options.batch_size)
        progress = progress and jax.process_index() == 0
        stopped_together = False
        shown = progress_bar(total=end, initial=start, unit="step", desc="training", show=progress)
        with shown as bar, ctrl_c_for_all():
            try:
                bar.set_postfix_str("compiling")
                for number, (batch, too_small) in zip(numbers, coming(numbers, rows), strict=True):
                    watch.too_small += too_small
                    state, metrics = step(state, frozen, brought(batch, spread, options.batch_size), key)
                    # Looked at one step late, while the device works on the next.
                    record.log(watch.see(number, metrics))
                    bar.set_postfix(watch.shown, refresh=False)
                    bar.update()
                    record.save(number + 1, state, is_last=number + 1 == end)
                    if all_stop_at(number + 1):
                        stopped_together = True
                        raise KeyboardInterrupt
            except KeyboardInterrupt as stop:
                # Stopped alone, one of several cannot save: all must.
                if folder is None or (jax.process_count() > 1 and not stopped_together):
                    raise
                last = record.save_stopped(state)
                raise KeyboardInterrupt(f"given again, training goes on from step {last}") from stop
            record.log(watch.finish())
    params = merge_parameters(layout.unpack(at_hand(state.trained)), split.frozen)
    return model.with_params(params), record.rows


def input_processor(model: Trainable) -> Sam2ImageProcessor:
    """What the model's own processor does to a picture's values, while resizing all of it to the input."""
    return Sam2ImageProcessor.for_config(model.image_config).replace(**_values_of(model))


def _values_of(model: Trainable) -> dict[str, Any]:
    own = model.processor.image_processor
    names = ("resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    return {name: getattr(own, name) for name in (*names, "do_convert_rgb")}


def _belongs_to(model: Trainable, data: Any, options: TrainingOptions) -> dict[str, Any]:
    """What a training's checkpoints belong to: with anything else they would be of two trainings."""
    given: dict[str, Any] = {
        "model": fingerprint(model.params),
        "image_size": list(model.image_config.image_size),
    }
    given["processor"] = _values_of(model)
    given["data"] = data
    for name, value in asdict(options).items():
        given[name] = value._asdict() if hasattr(value, "_asdict") else value
    return given


@lru_cache(maxsize=8)
def _program(
    compiled: Callable[..., Any],
    module: Sam2,
    options: TrainingOptions,
    trained: tuple[tuple[str, tuple[int, ...]], ...],
) -> tuple[Layout, optax.MultiSteps, Any]:
    """The optimiser and the compiled step: the same ones for the same training, taken up again say."""
    blocks = sum(module.config.vision_config.backbone_config.blocks_per_stage)
    layout = Layout(dict(trained), blocks, options.optimizer.layer_decay)
    optimizer = make_optimizer(options.optimizer, options.steps, layout)
    return layout, optimizer, compiled(module, layout, optimizer, options.prompts, options.weights)


def _shardings(devices: Sequence[Any] | None, batch_size: int) -> tuple[NamedSharding, NamedSharding]:
    """How batches and parameters lie on devices: spread over pictures, and everywhere."""
    if devices is None:
        there = jax.devices()
        used = max(count for count in range(1, len(there) + 1) if batch_size % count == 0)
        if jax.process_count() > 1:  # each must have its part
            used = len(there)
        if used < len(there):
            warnings.warn(
                f"a batch_size of {batch_size} does not divide over the {len(there)} devices: {used} of them "
                f"will be used, all with a multiple of {len(there)}; or say devices=",
                stacklevel=3,
            )
        devices = there[:used]
    if batch_size % len(devices):
        raise ValueError(f"batch_size must divide over {len(devices)} devices; got {batch_size}")
    # What a process makes of a batch then is one part of it.
    mesh = Mesh(np.asarray(sorted(devices, key=lambda device: device.process_index)), ("pictures",))
    return NamedSharding(mesh, PartitionSpec("pictures")), NamedSharding(mesh, PartitionSpec())


class _Watch:
    """Looks at the metrics of each step: averages those between logs, and stops what went wrong."""

    def __init__(self, rate: Any, options: TrainingOptions, log_every: int, size: tuple[int, int]) -> None:
        self.rate, self.options, self.log_every, self.size = rate, options, log_every, size
        self.waiting: tuple[int, Metrics] | None = None
        self.number = 0  # of the step looked at last
        self.seen: list[dict[str, float]] = []
        self.skipped = 0
        self.empty = 0  # steps in a row without an object
        self.too_small = 0  # objects, counted by who makes batches
        self.shown: dict[str, str] = {}

    def see(self, number: int, metrics: Metrics) -> dict[str, float] | None:
        """Take a step's metrics, and return the averages that are to be logged, if any are."""
        row = self._look()
        self.waiting = number, metrics
        return row

    def finish(self) -> dict[str, float] | None:
        """Return what is still to be logged; say what was too small to learn from."""
        if self.waiting is None:
            return None
        row = self._look() or self._row()
        if self.empty == self.number + 1:
            raise ValueError(self._nothing_to_learn())
        if self.too_small:
            warnings.warn(
                f"{self.too_small} times an object was not trained on: it covers no half of any cell "
                f"of the network's masks, {self._cells()}. A larger image_size has smaller cells",
                stacklevel=3,
            )
        return row

    def _cells(self) -> str:
        height, width = self.size
        return f"{width // 4} x {height // 4} of them at an image_size of {width} x {height}"

    def _nothing_to_learn(self) -> str:
        return (
            f"no object in the pictures of {self.empty} steps up to {self.number} covers half of a cell of "
            f"the network's masks, {self._cells()}: there is nothing to learn. A larger image_size has "
            "smaller cells"
        )

    def _look(self) -> dict[str, float] | None:
        if self.waiting is None:
            return None
        self.number, metrics = self.waiting
        values = jax.device_get(metrics)
        self.skipped = self.skipped + 1 if values.skipped else 0
        if self.skipped == _MOST_SKIPPED:
            raise ValueError(
                f"the gradients of {_MOST_SKIPPED} steps up to {self.number} were not finite, and training "
                f"stopped; lower learning_rate (now {self.options.optimizer.learning_rate}), or use float32"
            )
        self.empty = 0 if values.objects else self.empty + 1
        if self.empty == _MOST_SKIPPED:
            raise ValueError(self._nothing_to_learn())
        seen = {name: float(value) for name, value in values.losses._asdict().items()}
        seen |= {"first_iou": float(values.first_iou), "last_iou": float(values.last_iou)}
        seen |= {"gradient_norm": float(values.gradient_norm), "skipped": float(values.skipped)}
        self.seen.append(seen)
        return self._row() if (self.number + 1) % self.log_every == 0 else None

    def _row(self) -> dict[str, float] | None:
        if not self.seen:
            return None
        row: dict[str, float] = {"step": self.number + 1}
        row |= {name: float(np.mean([s[name] for s in self.seen])) for name in self.seen[0]}
        row["learning_rate"] = float(self.rate(self.number // self.options.optimizer.accumulate))
        self.shown = {name: f"{row[name]:.3f}" for name in ("total", "first_iou", "last_iou")}
        self.seen = []
        return row
