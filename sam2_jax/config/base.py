"""What all configurations share: normalised values, JSON both ways, checks with readable errors."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self


def _tuples(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_tuples(item) for item in value)
    return value


def _lists(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_lists(item) for item in value]
    return value


@dataclass(frozen=True)
class BaseConfig:
    """What all configurations share: normalised values, JSON both ways, checks with readable errors."""

    model_type: ClassVar[str]
    # Fields that may be given as a dictionary, and the configuration each one becomes.
    nested: ClassVar[dict[str, type["BaseConfig"]]] = {}

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in self.nested:
                value = self._nested_config(f.name, value)
            elif value is None and isinstance(f.default, tuple):  # the documented default of a sequence
                value = f.default
            object.__setattr__(self, f.name, _tuples(value))
        self._check()

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
            raise ValueError(f"{type(self).__name__}.{name} must be {expected}; got {getattr(self, name)!r}")

    def _require_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            is_int = isinstance(value, int) and not isinstance(value, bool)
            self._require(is_int and value > 0, name, "a positive integer")

    def _require_numbers(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            self._require(is_number and value >= 0, name, "a number, at least 0")

    def _require_ints(self, name: str, length: int | None = None, least: int = 1) -> None:
        value = getattr(self, name)
        ok = (
            isinstance(value, tuple)
            and all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in value)
            and (length is None or len(value) == length)
        )
        count = "" if length is None else f"{length} "
        self._require(ok, name, f"a sequence of {count}integers, each at least {least}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from a dictionary such as transformers writes; its general-purpose keys are passed over.

        Raises ValueError for a key that is almost a field's name, since ignoring a misspelt field would
        silently build a different network.
        """
        names = [f.name for f in fields(cls)]
        # The parts of a video model differ in their type's name only; early files leave it empty.
        stated = values.get("model_type") or cls.model_type
        if str(stated).replace("_video", "") != cls.model_type.replace("_video", ""):
            raise ValueError(f"{cls.__name__} expects model_type {cls.model_type!r}; got {stated!r}")
        for key in values:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.9)
            if key not in names and near:
                raise ValueError(f"{cls.__name__} has no field {key!r}; did you mean {near[0]!r}?")
        return cls(**{name: values[name] for name in names if name in values})

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary with `model_type`, readable by transformers."""
        values: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            values[f.name] = value.to_dict() if isinstance(value, BaseConfig) else _lists(value)
        return values | {"model_type": self.model_type}
