"""From a model's name to a local folder: a folder given as such, or a repository of the Hugging Face hub."""

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sam2_jax.config import RELEASED_MODELS

WEIGHT_FILES = {"transformers": "model.safetensors", "flax": "flax_model.safetensors"}
"""Layout -> its single weight file; a sharded checkpoint has the same name with `.index.json` behind it."""

PROCESSOR_FILE, IMAGE_PROCESSOR_FILE = "processor_config.json", "preprocessor_config.json"
PROCESSOR_FILES = PROCESSOR_FILE, IMAGE_PROCESSOR_FILE

_REPOSITORY = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def is_reachable(seconds: float = 3.0) -> bool:
    """Whether the hub answers at all, within this time; a download would try again and again."""
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds)
    except Exception:  # whose kind is that of the HTTP library that huggingface_hub happens to use
        return False
    return True


class HubFolder:
    """A model's folder, local or on the hub; files of a hub repository are fetched when asked for.

    Downloads show huggingface_hub's progress bars and land in its cache, from where they are read again
    without network. Raises ValueError for a name that is neither a folder nor a repository id.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> None:
        self.model = model
        self.is_local = str(model) != "" and Path(model).is_dir()
        self._options: dict[str, Any] = {
            "revision": revision,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        if self.is_local:
            if revision is not None:
                raise ValueError(f"revision {revision!r} is for hub models; {model} is a local folder")
            return
        if Path(model).is_file():
            raise ValueError(
                f"model {str(model)!r} is a file; give the folder that holds config.json and the weights. "
                "A PyTorch .pt file is converted first: python -m convert --help"
            )
        if not _REPOSITORY.match(str(model)):
            raise ValueError(
                f"model {str(model)!r} is neither an existing folder nor a hub id such as 'owner/name'. "
                f"{_known()}"
            )

    def find(self, name: str) -> Path | None:
        """Return the local path of a file of this folder, downloading it if need be; None if there is none.

        Raises ValueError if the repository or revision does not exist or the hub cannot be reached.
        """
        if self.is_local:
            path = Path(self.model) / name
            return path if path.is_file() else None
        repository = str(self.model)
        try:
            return Path(str(hf_hub_download(repository, name, **self._options)))
        except RevisionNotFoundError as error:
            raise ValueError(f"{repository} has no revision {self._options['revision']!r}") from error
        except RepositoryNotFoundError as error:
            raise ValueError(
                f"the hub has no model {repository!r}, or it is private (then log in: hf auth login). "
                f"{_known()}"
            ) from error
        except LocalEntryNotFoundError as error:
            if self._known_absent(name):
                return None
            raise ValueError(_unreachable(repository, name)) from error
        except EntryNotFoundError:
            return None
        except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
            raise ValueError(f"{_unreachable(repository, name)} ({error})") from error

    def _known_absent(self, name: str) -> bool:
        """Whether the cache remembers that the hub answered: there is no such file."""
        options = {key: self._options[key] for key in ("cache_dir", "revision")}
        found = try_to_load_from_cache(str(self.model), name, **options)
        return found is not None and not isinstance(found, str)

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
            raise ValueError(f"layout must be one of {sorted(WEIGHT_FILES)} or None; got {layout!r}")
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
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{index} is not a safetensors index with a weight_map; download it again"
            ) from error
        for shard in shards:
            if not isinstance(shard, str) or Path(shard).name != shard:
                raise ValueError(f"{index} names the shard {shard!r}; shards must lie beside the index")
        return [self.get(shard) for shard in shards]


def _known() -> str:
    return f"Released models: {', '.join(RELEASED_MODELS)}"


def _unreachable(repository: str, name: str) -> str:
    return (
        f"cannot reach the model hub for {name} of {repository!r}, and the local cache does not have it. "
        "Connect to the internet, set HF_ENDPOINT to a mirror, or download the model elsewhere and give its "
        "folder in place of the id"
    )
