"""The `sam2-jax demo` command: a page to click on, in the browser."""

import argparse
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

from sam2_jax.checkpoint.embedded import EMBEDDED, SAMPLE_PICTURE
from sam2_jax.checks import read_whole
from sam2_jax.commands.common import (
    add_max_pixels,
    add_model,
    add_quiet,
    check_model,
    load_model,
    load_video_model,
    whole,
)

_EXAMPLE = """examples, the sample picture and the small model, and a clip with another one:
  sam2-jax demo
  sam2-jax demo clip.mp4 --model facebook/sam2.1-hiera-tiny --open
"""
_LOOPBACK = "127.0.0.1"
_MAX_PIXELS = 100_000_000


def add_demo(commands: Any) -> None:
    """Add the command's arguments."""
    demo = commands.add_parser(
        "demo",
        help="a page in the browser, to click on pictures and clips",
        description="Serve a page, from this machine alone, on which one clicks on objects of pictures and "
        "clips. It prints its address; Ctrl-C ends it.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "medium",
        type=Path,
        nargs="?",
        default=SAMPLE_PICTURE,
        metavar="PHOTO|FOLDER|VIDEO",
        help="what the page begins with; a folder's pictures are a clip if they are of one size (default: a "
        "sample picture)",
    )
    add_model(demo, default=EMBEDDED)
    demo.add_argument(
        "--port", type=whole, default=8000, metavar="N", help="0 for any (default: %(default)s)"
    )
    demo.add_argument(
        "--host",
        default=_LOOPBACK,
        help="address to listen at; other than this machine's own, who asks needs a token, which is part of "
        "the address that is printed (default: %(default)s)",
    )
    demo.add_argument("--open", action="store_true", help="open the page in the browser")
    add_max_pixels(demo)
    add_quiet(demo)
    demo.set_defaults(run=serve, max_pixels=_MAX_PIXELS)


def serve(arguments: argparse.Namespace) -> None:
    """The `demo` command; returns when it is stopped."""
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ValueError("the page needs Starlette and uvicorn: pip install 'sam2_jax[demo]'") from error
    from sam2_jax.demo.guard import LOOPBACK
    from sam2_jax.demo.media import Media
    from sam2_jax.demo.segmenter import Models
    from sam2_jax.demo.server import Demo, Limits, create_app

    check_model(arguments)
    limits = Limits(pixels=arguments.max_pixels)
    is_own = arguments.host in LOOPBACK
    token = None if is_own else secrets.token_urlsafe(16)
    with _listening(arguments.host, read_whole("--port", arguments.port, 0, 65535)) as listener:
        media = Media(limits.pixels, limits.media_bytes)
        try:
            media.open(arguments.medium)
            model = load_model(arguments, arguments.dtype)
            models = Models(str(arguments.model), model, lambda: load_video_model(arguments, arguments.dtype))
            app = create_app(Demo(models, media, limits), LOOPBACK if is_own else None, token)
            address = _address(arguments.host, listener.getsockname()[1], token)
            print(f"the page is at {address} (Ctrl-C ends it)", file=sys.stderr, flush=True)
            if arguments.open:
                import webbrowser

                webbrowser.open(address)
            config = uvicorn.Config(
                app, log_level="warning", access_log=False, timeout_graceful_shutdown=2, server_header=False
            )
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:  # which does not come where a shell had it ignored
            pass
        finally:
            media.close()
    print("stopped", file=sys.stderr)


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ValueError if it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:  # UnicodeError: of names that no machine can have
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"nothing can listen at {host}:{port}: {reason}. Choose another --port, or 0 for any that is free"
        ) from error
    return listener


def _address(host: str, port: int, token: str | None) -> str:
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")
