"""Compiled programs kept on disk, so that only the first process ever compiles them."""

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

SETTING = "SAM2_JAX_COMPILATION_CACHE"


def use_compilation_cache(folder: str | Path | None = None) -> Path | None:
    """Keep compiled programs in a folder, from now on, and take them from there.

    folder: made if it is missing; None takes the environment variable SAM2_JAX_COMPILATION_CACHE, which every
    model reads when it is made, and does nothing where that is not set. What lies in the folder is machine
    code that runs: it must be the user's own and writable by nobody else. Returns the folder.
    Raises ValueError for a folder that others can write to, or that cannot be used.
    """
    named = folder or os.environ.get(SETTING)
    if not named:
        return None
    path = Path(named).expanduser().absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the compilation cache cannot be made at {path}: {error}") from error
    _require_trusted(path)
    if jax.config.values["jax_compilation_cache_dir"] != str(path):
        jax.config.update("jax_compilation_cache_dir", str(path))
        # The many small programs around the network would take a second together.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        compilation_cache.reset_cache()  # JAX opens its cache once, with the folder known then
    return path


def _require_trusted(path: Path) -> None:
    if not hasattr(os, "getuid"):  # Windows keeps rights elsewhere
        return
    status = path.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise ValueError(
            f"the compilation cache must be a folder of your own that nobody else can write to, since the "
            f"programs in it are run; got {path}, of user {status.st_uid}, mode {status.st_mode & 0o777:o}: "
            "name another folder, or chmod 700 it"
        )
