"""From a model's name to its files: a folder, a single file, or a repository of the Hugging Face hub.

This module stands below all others of its room: what needs to know only where files lie reads it alone.
"""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    get_session,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from sam2_jax.checks import closest, read_flag, shown
from sam2_jax.json_files import read_json

RELEASED_MODELS: dict[str, tuple[str, str]] = {
    f"facebook/sam2{'' if version == '2.0' else '.1'}-hiera-{size}": (version, size)
    for version in ("2.1", "2.0")
    for size in ("tiny", "small", "base-plus", "large")
}
"""Hub id -> (version, size) of the eight released models."""

EMBEDDED = "embedded"
"""The name by which every function and command that takes a model knows the one inside the package."""
EMBEDDED_MODEL = Path(__file__).parents[1] / "assets" / "embedded"
"""Folder of the small model that comes with the package."""
EMBEDDED_VIDEO_MODEL = EMBEDDED_MODEL.with_name("embedded_video")
"""Folder of what the small video model has beside it: its own tensors, and those of its own values."""

WEIGHT_FILES = {"transformers": "model.safetensors", "flax": "flax_model.safetensors"}
"""Layout -> its single weight file; a sharded checkpoint has the same name with `.index.json` behind it."""

PROCESSOR_FILE, IMAGE_PROCESSOR_FILE = "processor_config.json", "preprocessor_config.json"
PROCESSOR_FILES = PROCESSOR_FILE, IMAGE_PROCESSOR_FILE

GENERATION_FILE = "mask_generation.json"
"""In a model's local folder: options of automatic masks that suit it, the defaults without a preset."""

HUB_OPTIONS = ("revision", "subfolder", "token", "cache_dir", "local_files_only", "force_download")
"""What every `from_pretrained` takes to say which files of a hub repository are meant."""

TRANSFORMERS_NAME = "pretrained_model_name_or_path"
"""What transformers calls the model that `from_pretrained` reads."""

_REPOSITORY = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
_SINGLE_FILES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")


def take_source(model: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Take out of options what says which folder is meant: the model by either name, `HubFolder`'s own."""
    other = options.pop(TRANSFORMERS_NAME, None)
    if (model is None) == (other is None):
        raise ValueError(
            f"model must be given, once, also as {TRANSFORMERS_NAME}; got {shown((model, other))}"
        )
    of_hub = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
    return (other if model is None else model), of_hub


def beside_embedded(model: str | Path, model_type: str | None) -> Path | None:
    """Where the embedded video model's own files are, if that is meant; all else is the image model's.

    Raises ValueError where the package comes without one.
    """
    if model != EMBEDDED or model_type != "sam2_video":
        return None
    if not EMBEDDED_VIDEO_MODEL.is_dir():
        raise ValueError(
            f"this package comes without a model for clips: {shown(EMBEDDED)} is one for pictures, for "
            f"Sam2Model. Name a hub id, such as {next(iter(RELEASED_MODELS))}, or a folder"
        )
    return EMBEDDED_VIDEO_MODEL


def is_reachable(seconds: float = 3.0) -> bool:
    """Whether the hub answers at all, within this time; a download would try again and again."""
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds)
    except Exception:  # whose kind is that of the HTTP library that huggingface_hub happens to use
        return False
    return True


class HubFolder:
    """A model's folder, local or on the hub; files of a hub repository are fetched when asked for.

    model: a folder, a hub id, "embedded" for the model inside the package (a folder of that name is
    `./embedded`), or a single file of weights, whose folder then is meant; `file` is that file, else None.
    Downloads show huggingface_hub's progress bars and land in its cache, from where they are read again
    without network. Raises ValueError for a name that is none of these.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        subfolder: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool | None = False,
        force_download: bool | None = False,
    ) -> None:
        if not isinstance(model, (str, Path)):
            raise ValueError(f"model must be a hub id, a folder or a file of weights; got {shown(model)}")
        self.model = model
        self.file: Path | None = None
        self._subfolder = subfolder or ""
        flags = {"local_files_only": local_files_only, "force_download": force_download}
        self._options: dict[str, Any] = {
            "revision": _read_text("revision", revision),
            "subfolder": _read_text("subfolder", subfolder),
            "token": _read_text("token", token, bool),
            "cache_dir": _read_text("cache_dir", cache_dir, Path),
            **{name: value is not None and read_flag(name, value) for name, value in flags.items()},
        }
        path = EMBEDDED_MODEL if model == EMBEDDED else Path(model)
        kind = _kind(path) if str(model) else "absent"
        self.is_local = kind != "absent"
        if self.is_local:
            if revision is not None:
                raise ValueError(
                    f"revision {shown(revision)} is for hub models; {shown(str(model))} is local"
                )
            self.file = path if kind == "file" else None
            self._path = path.parent if kind == "file" else path / self._subfolder
        elif not _is_repository(str(model)) or path.suffix in _SINGLE_FILES:
            raise ValueError(_no_such_model(str(model)))

    def find(self, name: str) -> Path | None:
        """Return the local path of a file of this folder, downloading it if need be; None if there is none.

        Beside a single `.pt` file nothing is its own: Meta's lie together, of all sizes. Raises ValueError
        if the repository or revision does not exist or the hub cannot be reached.
        """
        if self.is_local:
            path = self._path / name
            if self.file is not None and self.file.suffix != ".safetensors":
                return None
            return path if path.is_file() else None
        try:
            if not self._options["local_files_only"] and (known := self._ask(name)) is not None:
                return known if isinstance(known, Path) else None
            return Path(str(hf_hub_download(str(self.model), name, **self._options)))
        except LocalEntryNotFoundError as error:
            if self._cached(name) is False:
                return None
            raise ValueError(self._unreachable(name)) from error
        except EntryNotFoundError:
            return None
        except Exception as error:  # of the HTTP library's kinds too, see is_reachable
            raise ValueError(self._what_went_wrong(name, error)) from error

    def _ask(self, name: str) -> Path | bool | None:
        """Ask the hub once for this file: its path if the cache has it as it is now, False if there is none.

        None if it is to be downloaded. hf_hub_download would ask six times in half a minute, with a warning
        each, where the hub fails; what is in the cache then has to do.
        """
        url = hf_hub_url(
            str(self.model), name, subfolder=self._options["subfolder"], revision=self._options["revision"]
        )
        try:
            found = get_hf_file_metadata(
                url, token=self._options["token"], timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
        except (RevisionNotFoundError, RepositoryNotFoundError):
            raise
        except EntryNotFoundError:
            return False if self._cached(name) is False else None
        except Exception:
            if (cached := self._cached(name)) is None or self._options["force_download"]:
                raise
            return cached
        cached = None if self._options["force_download"] else self._cached(name)
        return cached if isinstance(cached, Path) and found.commit_hash in cached.parts else None

    def _cached(self, name: str) -> Path | bool | None:
        """The file's path in the cache, False where the hub once said that there is none, None if unknown."""
        options = {key: self._options[key] for key in ("cache_dir", "revision")}
        found = try_to_load_from_cache(
            str(self.model), f"{self._subfolder}/{name}" if self._subfolder else name, **options
        )
        return Path(found) if isinstance(found, str) else None if found is None else False

    def get(self, name: str) -> Path:
        """As `find`, but raise ValueError if the folder has no such file."""
        path = self.find(name)
        if path is None:
            raise ValueError(f"{self.model} has no file {name}")
        return path

    def weights(self, layout: str | None = None) -> tuple[str, list[Path]]:
        """Return the layout of the weights here and their files, several if sharded.

        Raises ValueError if there are none, or both layouts and `layout` does not choose one.
        """
        if layout is not None and layout not in WEIGHT_FILES:
            raise ValueError(f"layout must be one of {sorted(WEIGHT_FILES)} or None; got {shown(layout)}")
        found = {}
        for name, file in WEIGHT_FILES.items():
            if layout in (None, name) and (paths := self._single_or_shards(file)):
                found[name] = paths
            # The hub's own checkpoints are in transformers' layout: ask for the other only without it.
            if found and not self.is_local:
                break
        if not found:
            wanted = " or ".join(file for name, file in WEIGHT_FILES.items() if layout in (None, name))
            raise ValueError(
                f"{self.model} holds no weights: expected {wanted}, whole or sharded with .index.json"
            )
        if len(found) > 1:
            raise ValueError(
                f"{self.model} holds weights in layouts {sorted(found)}; choose one with layout="
            )
        return next(iter(found.items()))

    def _single_or_shards(self, file: str) -> list[Path]:
        single = self.find(file)
        if single is not None:
            return [single]
        index = self.find(f"{file}.index.json")
        if index is None:
            return []
        values = read_json(index)
        shards = values.get("weight_map") if isinstance(values, dict) else None
        if not isinstance(shards, dict) or not shards:
            raise ValueError(f"{index} is not a safetensors index with a weight_map; download it again")
        for shard in shards.values():
            if not isinstance(shard, str) or Path(shard).name != shard:
                raise ValueError(f"{index} names the shard {shown(shard)}; shards must lie beside the index")
        return [self.get(shard) for shard in sorted(set(shards.values()))]

    def _what_went_wrong(self, name: str, error: Exception) -> str:
        model, revision = str(self.model), self._options["revision"]
        if isinstance(error, RevisionNotFoundError):
            return f"{model} has no revision {shown(revision)}"
        if isinstance(error, GatedRepoError):
            return f"{model} is gated: ask for access on its page of the hub, then log in: hf auth login"
        if isinstance(error, RepositoryNotFoundError):
            return (
                f"the hub has no model {model!r}, or it is private (then log in: hf auth login, or give "
                f"token=){_meant(model)}. {_known()}"
            )
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, HfHubHTTPError) and status is not None:
            later = (
                "; it is busy or out of order, so try again later"
                if status == 429 or status >= 500
                else "; check the name, and that you are logged in: hf auth login"
            )
            return (
                f"the model hub answered {status} when asked for {name} of {model!r}, and the local cache "
                f"does not have it{later}"
            )
        if isinstance(error, OfflineModeIsEnabled):
            return self._unreachable(name)
        return f"{self._unreachable(name)} ({shown(str(error))})"

    def _unreachable(self, name: str) -> str:
        return (
            f"cannot reach the model hub for {name} of {str(self.model)!r}, and the local cache does not "
            "have it. Connect to the internet, set HF_ENDPOINT to a mirror, or download the model elsewhere "
            "and give its folder in place of the id"
        )


def _kind(path: Path) -> str:
    """Whether there is a "folder", a "file" or nothing ("absent"). Raises ValueError if that is unclear."""
    try:
        return "folder" if path.is_dir() else "file" if path.is_file() else "absent"
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a link to itself, a zero byte
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"model {shown(str(path))} cannot be a folder: {shown(reason)}") from error


def _is_repository(model: str) -> bool:
    """Whether the hub could have a repository of this name."""
    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return _REPOSITORY.match(model) is not None


def _no_such_model(model: str) -> str:
    if Path(model).suffix in _SINGLE_FILES:
        return f"model {shown(model)} does not exist; check the path"
    return (
        f"model {shown(model)} is neither an existing folder or file nor a hub id such as 'owner/name'"
        f"{_meant(model)}. {_known()}"
    )


def _meant(model: str) -> str:
    """The name that was meant, if one is close."""
    close = closest(model, [EMBEDDED, *RELEASED_MODELS])
    return f" (did you mean {close}?)" if close and close != model else ""


def _known() -> str:
    return f"Released models: {', '.join(RELEASED_MODELS)}"


def _read_text(name: str, value: Any, other: type | None = None) -> Any:
    """An option of the hub: text, of another type as well perhaps, or None."""
    if value is None or isinstance(value, str) or (other is not None and isinstance(value, other)):
        return value
    also = "" if other is None else f", a {other.__name__}"
    raise ValueError(f"{name} must be text{also} or None; got {shown(value)}")
