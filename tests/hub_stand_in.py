"""A stand-in for the model hub: a local HTTP server that answers as the hub does for file downloads."""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""The one commit of every repository here; its branch is main, its tag v1."""


@contextmanager
def serve(
    repositories: dict[str, Path], failing: Mapping[str, int] | None = None, tokens: list[str] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Serve folders as hub repositories; yields the endpoint's URL and the list of requests for files.

    failing: statuses with which it answers for files of these names, "" for all. tokens gets what is sent.
    """
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            if "/resolve/" in self.path:  # once in a process huggingface_hub asks about itself, too
                requests.append(f"{self.command} {self.path}")
            repository, _, rest = self.path.lstrip("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            folder = repositories.get(repository)
            if tokens is not None:
                tokens.append(self.headers.get("Authorization", ""))
            if status := (failing or {}).get(name, (failing or {}).get("")):
                self.send_response(status)
                self.send_header("Retry-After", "1000")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            if folder is None:
                return self.refuse("RepoNotFound")
            if revision not in ("main", "v1", COMMIT):
                return self.refuse("RevisionNotFound")
            if not (folder / name).is_file():
                return self.refuse("EntryNotFound")
            data = (folder / name).read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if with_body:
                self.wfile.write(data)
            return None

        def refuse(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            if code == "EntryNotFound":
                self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def use(endpoint: str) -> Iterator[None]:
    """Let huggingface_hub talk to another endpoint, as HF_ENDPOINT does for a new process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", endpoint)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield
    close_session()


@contextmanager
def hub_of(repositories: dict[str, Path], cache: Path) -> Iterator[list[str]]:
    """A hub that has these repositories and a cache that is empty; yields the growing list of requests."""
    with serve(repositories) as (endpoint, requests), use(endpoint), pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        yield requests
