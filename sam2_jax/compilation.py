"""Compiled programs kept on disk, so that only the first process compiles; what compiling leaves behind."""

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

SETTING = "SAM2_JAX_COMPILATION_CACHE"
_COMPILED = "/jax/core/compile/backend_compile_duration"
# What compiles in less takes no memory to speak of.
_LONG_SECONDS = 1.0


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


@cache
def give_back_after_compiling() -> None:
    """Return to the system what compiling a program used, from now on, where the allocator is glibc's.

    Compiling takes hundreds of MB in small pieces, which glibc keeps for this process when they are free
    again, and where little else of their size is ever asked for: a process would hold on to them to its end.
    """
    # Other systems, and other C libraries of Linux, have no such function and hold on to less.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None:
        return

    def after(event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILED and duration_secs >= _LONG_SECONDS:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(after)
