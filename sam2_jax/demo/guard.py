"""`Guard`: who may ask: names of this machine alone, no foreign pages, and a token where the network may."""

import secrets
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def refusal(status: int, sentence: str) -> Response:
    """An error as the page is told it."""
    return JSONResponse({"error": sentence}, status)


class Guard:
    """Lets through what may be asked, and gives every answer the headers that keep the page to this server.

    hosts: names by which the server may be called; a foreign page that had its own name lead here (DNS
    rebinding) is refused. None: any, and then there must be a token. token: what every request but for the
    page's own files must carry.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None, token: str | None) -> None:
        if hosts is None and token is None:
            raise ValueError("a server that any machine may ask must have a token")
        self.app = app
        self.hosts = hosts
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refused(Request(scope))
        await (self.app if answer is None else answer)(scope, receive, guarded)

    def _refused(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            names = ", ".join(self.hosts)
            return refusal(
                403, f"this server is called by the names {names} alone; it was called {host[:99]!r}"
            )
        if request.method not in ("GET", "HEAD") and not _is_own(request.headers, host):
            return refusal(403, "another page must not ask this server: open its own address")
        if self.token is not None and not request.url.path.startswith("/static/"):
            given = request.headers.get("x-token") or request.query_params.get("token") or ""
            if not secrets.compare_digest(given.encode(), self.token.encode()):
                return refusal(401, "the token is missing or wrong: open the address that the server printed")
        return None


def _name(host: str) -> str | None:
    """A Host header's name without its port, None for what is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_own(headers: Headers, host: str) -> bool:
    """Whether a request comes from the page itself, or from no page at all."""
    origin: Any = headers.get("origin")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    return origin is None or origin.partition("://")[2] == host
