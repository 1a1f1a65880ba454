"""A server of the demo on a free port of this machine, for tests."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

LOOPBACK = "127.0.0.1"


@contextmanager
def served(
    model: Any, load_video: Any, *media: Path, token: str | None = None, **limits: Any
) -> Iterator[tuple[str, Any]]:
    """A server in a thread: its address, and the application. limits: see `Limits`."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'sam2_jax[demo]'")
    pytest.importorskip("starlette", reason="needs Starlette: pip install 'sam2_jax[demo]'")
    from sam2_jax.demo.guard import LOOPBACK as NAMES
    from sam2_jax.demo.media import Media
    from sam2_jax.demo.segmenter import Models
    from sam2_jax.demo.server import Demo, Limits, create_app

    taken = Limits(**{"pixels": 100_000_000} | limits)
    opened = Media(taken.pixels, taken.media_bytes)
    for path in media:
        opened.open(path)
    demo = Demo(Models("embedded", model, load_video), opened, taken)
    app = create_app(demo, NAMES if token is None else None, token)
    listener = socket.create_server((LOOPBACK, 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{listener.getsockname()[1]}", demo
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
