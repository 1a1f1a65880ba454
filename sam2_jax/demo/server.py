"""The server's routes: what each request is answered with."""

import asyncio
import errno
import json
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sam2_jax.checks import read_whole
from sam2_jax.demo.exports import export, read_exported
from sam2_jax.demo.guard import Guard, refusal
from sam2_jax.demo.media import Media, Medium
from sam2_jax.demo.messages import (
    MOST_POINTS_PER_SIDE,
    read_frame,
    read_multimask,
    read_object,
    read_previous,
    read_prompts,
    read_track,
)
from sam2_jax.demo.segmenter import Models, Segmenter
from sam2_jax.demo.worker import BusyError, Worker

PAGE = Path(__file__).parent / "page"
_MESSAGE_BYTES = 2**20
# Of a message that may hold masks of many frames.
_MASKS_BYTES = 2**26
_CLIENT = "sam2_jax_client"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_FAILED = "the server failed at this; what it said is in its terminal"
# Media that are read at once; each may take a gigabyte for a moment.
_READERS = 2
_WRITERS = 2

Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """What a server takes and keeps. bytes: of an upload; pixels: of a picture or frame; media_bytes: of all
    uploads that are kept; idle_seconds: after so many, what nobody asks for is dropped; chunk_seconds: so
    long a client may let wait for the next piece of what it sends.
    """

    pixels: int
    bytes: int = 2**28
    media_bytes: int = 2**31
    idle_seconds: float = 1800.0
    chunk_seconds: float = 30.0


class Demo:
    """The application: media, a model, and the worker that shares it out."""

    def __init__(self, models: Models, media: Media, limits: Limits) -> None:
        self.media = media
        self.limits = limits
        self.segmenter = Segmenter(models, media.folder)
        self.worker = Worker()
        self._reading = asyncio.Semaphore(_READERS)
        self._writing = asyncio.Semaphore(_WRITERS)

    # Life ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def lifespan(self, _: Any) -> AsyncIterator[None]:
        """Warm up behind the first requests, drop what is idle, and clean up in the end."""
        tasks = [asyncio.create_task(self._warm_up()), asyncio.create_task(self._sweep())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            self.worker.close()
            await run_in_threadpool(self.worker.join)  # Python does not end well in the midst of a program
            self.media.close()

    async def _warm_up(self) -> None:
        async for _ in self.worker.stream("warm-up", self.segmenter.warm_up()):
            pass

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(self.limits.idle_seconds / 2, 60))
            await run_in_threadpool(self.media.drop_idle, self.limits.idle_seconds)
            self.segmenter.drop_idle(self.limits.idle_seconds)

    # Requests -----------------------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        """The page; with it the browser gets the name under which its work is queued."""
        answer = FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})
        if _CLIENT not in request.cookies:
            answer.set_cookie(_CLIENT, secrets.token_urlsafe(9), httponly=True, samesite="strict")
        return answer

    async def state(self, request: Request) -> Response:
        """The model's name, the limits, and the media that were named at the start."""
        return JSONResponse(
            {
                "model": self.segmenter.models.name,
                "maximum_bytes": self.limits.bytes,
                "maximum_pixels": self.limits.pixels,
                "opened": [medium.to_json() for medium in self.media.opened],
            }
        )

    async def upload(self, request: Request) -> Response:
        """Take a file in; it is written to disk as it comes."""
        path = await run_in_threadpool(self.media.new_file)
        name = Path(request.query_params.get("name") or "upload").name[-120:] or "upload"
        try:
            with path.open("wb") as file:
                async for chunk in self._chunks(request, self.limits.bytes):
                    file.write(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            path.parent.rmdir()
            raise
        async with self._reading:
            medium = await run_in_threadpool(self.media.take, path, name)
        return JSONResponse(medium.to_json())

    async def medium(self, request: Request) -> Response:
        """What a medium is."""
        return JSONResponse(self._medium(request).to_json())

    async def frame(self, request: Request) -> Response:
        """A frame as a picture."""
        medium = self._medium(request)
        t = request.path_params["frame"]
        if t >= len(medium.source):
            raise ValueError(f"frame must be from 0 to {len(medium.source) - 1}; got {t}")
        async with self._reading:
            written = await run_in_threadpool(medium.shown, t, self.media.shown)
        return Response(
            written, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"}
        )

    async def predict(self, request: Request) -> Response:
        """Masks for the prompts on one object."""
        medium, values = await self._asked(request, _MASKS_BYTES)
        return await _while_there(request, self._predicted(_client(request), medium, values))

    async def _predicted(self, client: str, medium: Medium, values: dict[str, Any]) -> Response:
        frame, prompts = read_frame(values, medium), read_prompts(values, medium)
        multimask = read_multimask(values, prompts)
        is_kept = partial(self.segmenter.keeps, medium, frame)
        previous = await run_in_threadpool(read_previous, values, medium, is_kept)
        picture = None
        if not self.segmenter.knows(medium, frame):
            picture = await self._picture(medium, frame)
        answer = await self.worker.run(
            client,
            partial(self.segmenter.predict, medium, frame, picture, prompts, previous, multimask),
        )

        found = answer.prediction
        drawn = await run_in_threadpool(found.run_lengths)
        scores = found.scores.tolist()
        return _json(
            {
                "masks": [{"mask": rle, "score": score} for rle, score in zip(drawn, scores, strict=True)],
                "best": found.best,
                "keys": answer.keys,
                "milliseconds": answer.milliseconds,
            }
        )

    async def everything(self, request: Request) -> Response:
        """All masks of a frame, with progress."""
        medium, values = await self._asked(request)
        frame = read_frame(values, medium)
        side = read_whole("points_per_side", values.get("points_per_side", 16), 1, MOST_POINTS_PER_SIDE)
        picture = await self._picture(medium, frame)
        return self._streamed(request, medium, self.segmenter.everything(picture, side))

    async def track(self, request: Request) -> Response:
        """Objects through a clip, frame by frame."""
        medium, values = await self._asked(request, _MASKS_BYTES)
        prompts, direction = await run_in_threadpool(read_track, values, medium)
        steps = self.segmenter.track(_client(request), medium, prompts, direction)
        return self._streamed(request, medium, steps)

    async def export(self, request: Request) -> Response:
        """What was found, as a file."""
        medium, values = await self._asked(request, _MASKS_BYTES)
        folder = Path(await run_in_threadpool(tempfile.mkdtemp, dir=self.media.folder))
        tidy = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
        try:
            async with self._writing:
                path = await run_in_threadpool(lambda: export(folder, medium, *read_exported(values, medium)))
        except BaseException:
            await tidy()
            raise
        return FileResponse(path, filename=path.name, background=tidy)

    # What they have in common -------------------------------------------------------------------------------

    def _medium(self, request: Request) -> Medium:
        found = self.media.get(request.path_params["id"])
        if found is None:
            raise HTTPException(404, "this picture or clip is not, or no longer, here: upload it again")
        return found

    async def _picture(self, medium: Medium, frame: int) -> np.ndarray:
        async with self._reading:
            return await run_in_threadpool(medium.frame, frame)

    def _streamed(self, request: Request, medium: Medium, steps: Iterator[dict[str, Any]]) -> Response:
        """An answer line by line; what goes wrong in the midst of it is the last line."""

        async def lines() -> AsyncIterator[bytes]:
            try:
                async with aclosing(self.worker.stream(_client(request), steps)) as results:
                    async for line in results:
                        self.media.get(medium.id)  # is in use
                        yield _line(line)
            except (ValueError, BusyError) as error:
                yield _line({"error": str(error)})
            except Exception:
                yield _line({"error": _FAILED})
                raise

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def _asked(self, request: Request, most: int = _MESSAGE_BYTES) -> tuple[Medium, dict[str, Any]]:
        """The medium and the message of a request."""
        medium = self._medium(request)
        body = bytearray()
        async for chunk in self._chunks(request, most):
            body += chunk
        return medium, read_object(bytes(body))

    async def _chunks(self, request: Request, most: int) -> AsyncIterator[bytes]:
        """A request's body as it comes, of so many bytes at most."""
        length = request.headers.get("content-length", "")
        total = int(length) if length.isdecimal() and len(length) < 20 else 0
        chunks = request.stream()
        if total <= most:
            total = 0
            while True:
                try:
                    chunk = await asyncio.wait_for(anext(chunks, None), self.limits.chunk_seconds)
                except TimeoutError as error:
                    raise HTTPException(408, "what was to be sent did not come: send it again") from error
                if chunk is None:
                    return
                total += len(chunk)
                if total > most:
                    break
                yield chunk
        raise HTTPException(
            413, f"a body may have {most:,} bytes here; got {total:,} or more: make it smaller"
        )


def _json(values: Any) -> Response:
    return Response(_line(values), media_type="application/json")


def _line(values: Any) -> bytes:
    return json.dumps(values, allow_nan=False).encode() + b"\n"


def _client(request: Request) -> str:
    """Under which name work is queued: the page's, or else the machine's."""
    return request.cookies.get(_CLIENT) or (request.client.host if request.client else "")


async def _while_there(request: Request, answer: Coroutine[Any, Any, Result]) -> Result:
    """An answer that is given up when its client goes, so that what waits for the device is dropped.

    The request's body must have been read: what comes after it is that the client is gone.
    """
    task = asyncio.create_task(answer)
    gone: asyncio.Future[Any] = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _refused(request: Request, error: Exception) -> Response:
    """Say what was wrong."""
    if isinstance(error, HTTPException):
        sentence = error.detail if error.detail[:1].islower() else f"{error.detail}: there is no such address"
        return refusal(error.status_code, sentence)
    if isinstance(error, BusyError):
        return refusal(429, str(error))
    if isinstance(error, ClientDisconnect):
        return refusal(499, "the client is gone")  # to nobody
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return refusal(507, f"the server cannot keep this: {error.strerror}")
    return refusal(400, str(error)) if isinstance(error, ValueError) else refusal(500, _FAILED)


def create_app(demo: Demo, hosts: Any, token: str | None) -> Starlette:
    """The ASGI application; hosts and token: see `Guard`."""
    posts = {
        "predict": demo.predict,
        "everything": demo.everything,
        "track": demo.track,
        "export": demo.export,
    }
    routes = [
        Route("/", demo.page),
        Mount("/static", StaticFiles(directory=PAGE)),
        Route("/api/state", demo.state),
        Route("/api/media", demo.upload, methods=["POST"]),
        Route("/api/media/{id}", demo.medium),
        Route("/api/media/{id}/frames/{frame:int}", demo.frame),
        *(Route(f"/api/media/{{id}}/{name}", endpoint, methods=["POST"]) for name, endpoint in posts.items()),
    ]
    handlers: Any = {
        HTTPException: _refused,
        ValueError: _refused,
        BusyError: _refused,
        ClientDisconnect: _refused,
        Exception: _refused,  # and then it is raised again
    }
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts=hosts, token=token)],
        exception_handlers=handlers,
        lifespan=demo.lifespan,
    )
