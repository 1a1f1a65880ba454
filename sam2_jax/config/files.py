"""Configurations in files: `config.json` as transformers writes it, in folders and on the hub."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from sam2_jax.checkpoint.hub import (
    HUB_OPTIONS,
    TRANSFORMERS_NAME,
    HubFolder,
    beside_embedded,
    take_source,
)
from sam2_jax.checks import check_options, shown
from sam2_jax.json_files import read_json, to_json, write_json

CONFIG_FILE = "config.json"


class ConfigInFiles:
    """The ways of a configuration into files and out of them, which transformers' classes have too."""

    model_type: ClassVar[str]
    kinds: ClassVar[dict[str, Any]] = {}
    """The class of every model_type there is."""

    def __init_subclass__(cls) -> None:
        if "model_type" in cls.__dict__:
            ConfigInFiles.kinds[cls.model_type] = cls

    @classmethod
    def field_names(cls) -> list[str]:
        """Names of the options that a configuration of this class is made of."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **changes: Any) -> Self:
        """Build from a dictionary such as `to_dict` returns; fields given by name go first."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        raise NotImplementedError

    def part(self, kind: type) -> tuple[Any, str]:
        """Find the part that is of a kind, and where the names of its tensors begin."""
        raise NotImplementedError

    @classmethod
    def loading_options(cls) -> list[str]:
        """Names of the arguments of `from_pretrained`, but for the model."""
        return [*HUB_OPTIONS, *cls.field_names(), TRANSFORMERS_NAME, "trust_remote_code"]

    @classmethod
    def from_pretrained(cls, model: str | Path | None = None, **options: Any) -> Self:
        """Read the configuration of a hub id or local folder, whole or the part of this class in it.

        An image model's configuration is read from a video model's too, which is what the released
        checkpoints hold. model may be called pretrained_model_name_or_path, as in transformers. options:
        revision, subfolder, token, cache_dir, local_files_only and force_download say which files are meant;
        fields of this class replace what the file says; trust_remote_code changes nothing. Raises ValueError
        for other options, and if there is no such model or its file is broken.
        """
        check_options(options, cls.loading_options(), f"{cls.__name__}.from_pretrained")
        model, where = take_source(model, options)
        options.pop("trust_remote_code", None)
        found: Self = read_config_of(config_file(HubFolder(model, **where), cls.model_type), cls)
        return cls.from_dict(found.to_dict(), **options) if options else found

    @classmethod
    def from_json_file(cls, json_file: str | Path) -> Self:
        """Read one file, as `from_pretrained` does a model's. Raises ValueError if it cannot be read."""
        found: Self = read_config_of(json_file, cls)
        return found

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json to a folder, made if need be. Raises ValueError if it cannot be written."""
        write_json(Path(folder) / CONFIG_FILE, self.to_dict())

    def to_json_string(self, use_diff: bool = False) -> str:
        """The configuration as text; use_diff leaves out what is the default."""
        values = self.to_dict()
        if use_diff:
            usual = type(self)().to_dict()
            values = {k: v for k, v in values.items() if v != usual[k] or k == "model_type"}
        return to_json(values)

    def to_json_file(self, json_file: str | Path, use_diff: bool = False) -> None:
        """Write `to_json_string` to a file. Raises ValueError if it cannot be written."""
        write_json(json_file, json.loads(self.to_json_string(use_diff)))


def config_file(folder: HubFolder, model_type: str | None) -> Path:
    """Where the config.json of a model of this type lies. Raises ValueError without one."""
    beside = beside_embedded(folder.model, model_type)
    return beside / CONFIG_FILE if beside else folder.get(CONFIG_FILE)


def read_config_of(path: str | Path, *kinds: type) -> Any:
    """Read a `config.json` of one of these kinds, or of a model that has such a part: then only that.

    Raises ValueError, naming the file, if it is not JSON, is of another model, or has wrong values.
    """
    values = read_json(path)
    model_type = values.get("model_type") if isinstance(values, dict) else None
    known = ConfigInFiles.kinds
    fitting = [name for name, kind in known.items() if any(kind.contains(wanted) for wanted in kinds)]
    if not isinstance(model_type, str) or model_type not in fitting:
        raise ValueError(f"{path}: model_type must be one of {sorted(fitting)}; got {shown(model_type)}")
    try:
        found = known[model_type].from_dict(values)
        return found if type(found) in kinds else found.part(kinds[0])[0]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
