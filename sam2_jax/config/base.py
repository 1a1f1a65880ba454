"""What all configurations share: normalised values, dictionaries both ways, checks with readable errors."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from sam2_jax.checks import check_options, closest, read_number, shown
from sam2_jax.config.files import ConfigInFiles

LARGEST = 65536
"""Of any width or side of an image: beyond, no network was meant."""
MOST_LAYERS = 128
"""Of blocks, of layers in a row, of masks: beyond, building the network would not end."""
_DEEPEST = 4


def _plain(value: Any, depth: int = 0) -> Any:
    """Sequences as tuples, numpy's numbers and arrays as Python's; all else as it is."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        return value
    if depth == _DEEPEST:
        raise ValueError("nested too deep")
    return tuple(_plain(item, depth + 1) for item in value)


def _lists(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_lists(item) for item in value]
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class BaseConfig(ConfigInFiles):
    """What all configurations share: normalised values, JSON both ways, checks with readable errors."""

    # Fields that may be given as a dictionary, and the configuration each one becomes.
    nested: ClassVar[dict[str, type["BaseConfig"]]] = {}

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in self.nested:
                value = self._nested_config(f.name, value)
            elif value is None and isinstance(f.default, tuple):  # the documented default of a sequence
                value = f.default
            try:
                self._put(f.name, _plain(value))
            except ValueError as error:
                raise ValueError(f"{type(self).__name__}.{f.name} is {error}; got {shown(value)}") from error
        self._check()

    def _put(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _nested_config(self, name: str, value: Any) -> "BaseConfig":
        cls = self.nested[name]
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            return cls.from_dict(value)
        raise ValueError(
            f"{type(self).__name__}.{name} must be a {cls.__name__}, a dictionary or None; "
            f"got {type(value).__name__}"
        )

    def _check(self) -> None:
        """Raise ValueError where a value cannot describe a network."""

    def _require(self, condition: bool, name: str, expected: str) -> None:
        if not condition:
            raise ValueError(
                f"{type(self).__name__}.{name} must be {expected}; got {shown(getattr(self, name))}"
            )

    def _require_wholes(self, *names: str, least: int = 1, most: int = LARGEST) -> None:
        for name in names:
            value = getattr(self, name)
            lowest = "a positive integer" if least == 1 else f"an integer of at least {least}"
            self._require(_is_whole(value) and value >= least, name, lowest)
            self._require(value <= most, name, f"at most {most}")

    def _require_numbers(self, *names: str, most: float) -> None:
        for name in names:
            value = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            self._require(is_number and value >= 0, name, "a number, at least 0")
            read_number(f"{type(self).__name__}.{name}", value, 0, most)

    def _require_sequence(
        self, name: str, length: int | None = None, least: int = 1, most: int = LARGEST
    ) -> None:
        value = getattr(self, name)
        ok = (
            isinstance(value, tuple)
            and all(_is_whole(v) and v >= least for v in value)
            and (length is None or len(value) == length)
        )
        count = "" if length is None else f"{length} "
        self._require(ok, name, f"a sequence of {count}integers, each at least {least}")
        self._require(all(v <= most for v in value), name, f"integers of at most {most}")

    def _require_pair(self, name: str, least: int = 1, most: int = LARGEST) -> None:
        """Two integers, or one that stands for both."""
        value = getattr(self, name)
        if _is_whole(value):
            self._put(name, (value, value))
        self._require_sequence(name, 2, least, most)

    def _require_flags(self, *names: str) -> None:
        for name in names:
            self._require(isinstance(getattr(self, name), bool), name, "True or False")

    def _require_names(self, *names: str) -> None:
        """Text that nothing in the network reads: what transformers takes is taken."""
        for name in names:
            self._require(isinstance(getattr(self, name), str), name, "text")

    @classmethod
    def field_names(cls) -> list[str]:
        """Names of the options that a configuration of this class is made of."""
        return [f.name for f in fields(cls)]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **changes: Any) -> Self:
        """Build from a dictionary such as transformers writes; its general-purpose keys are passed over.

        null, None here, stands for the default. changes: fields that go before the dictionary's. Raises
        ValueError for other changes and for a key that is almost a field's name, since ignoring a misspelt
        field would silently build a different network.
        """
        check_options(changes, cls.field_names(), f"{cls.__name__}.from_dict")
        if not isinstance(values, Mapping):
            raise ValueError(f"{cls.__name__} is built from a dictionary; got {shown(values)}")
        names = cls.field_names()
        # The parts of a video model differ in their type's name only; early files leave it empty.
        stated = values.get("model_type") or cls.model_type
        kind = stated.replace("_video", "") if isinstance(stated, str) else None
        if kind != cls.model_type.replace("_video", ""):
            raise ValueError(f"{cls.__name__} expects model_type {cls.model_type!r}; got {shown(stated)}")
        for key in values:
            if key not in names and (near := closest(key, names, 0.9)):
                raise ValueError(f"{cls.__name__} has no field {shown(key)}; did you mean {near!r}?")
        given = {name: values[name] for name in names if values.get(name) is not None}
        return cls(**given | changes)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary with `model_type`, readable by transformers."""
        values: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            values[f.name] = value.to_dict() if isinstance(value, BaseConfig) else _lists(value)
        return values | {"model_type": self.model_type}

    @classmethod
    def contains(cls, kind: type) -> bool:
        """Whether a configuration of this class is one of a kind or has a part that is."""
        return cls is kind or any(part.contains(kind) for part in cls.nested.values())

    def part(self, kind: type) -> tuple[Any, str]:
        """Find the configuration of a kind that this one is or contains, and where its tensors' names begin.

        "vision_encoder.backbone." for the backbone of an image model, say. Raises ValueError without one.
        """
        if type(self) is kind:
            return self, ""
        for name, part in self.nested.items():
            if part.contains(kind):
                found, prefix = getattr(self, name).part(kind)
                return found, f"{_MODULES[name]}.{prefix}"
        raise ValueError(f"{type(self).__name__} has no {kind.__name__}")


# The network's module that each part configures.
_MODULES = {
    "vision_config": "vision_encoder",
    "backbone_config": "backbone",
    "prompt_encoder_config": "prompt_encoder",
    "mask_decoder_config": "mask_decoder",
}
