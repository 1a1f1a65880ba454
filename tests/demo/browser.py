"""A page of the demo in a headless Chromium, for tests."""

import json
import shutil
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from demo.serving import LOOPBACK
from PIL import Image

CHROMIUM = shutil.which("chromium")
PATIENCE = 60_000  # milliseconds: other tests and compilers may have the processors
MARGIN = 16  # CSS pixels around a picture that is seen whole


class Watched:
    """A page, and how a test looks at it. What a browser would complain of is kept in `complaints`."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda message: self._note(message.type in ("error", "warning"), message.text))
        page.on("pageerror", lambda error: self._note(True, str(error)))
        page.on(
            "requestfailed", lambda request: self._note(request.failure != "net::ERR_ABORTED", request.url)
        )
        page.on("request", lambda request: self._note(_is_foreign(request.url), request.url))

    def _note(self, is_wrong: bool, text: str) -> None:
        if is_wrong:
            self.complaints.append(text)

    def open(self, address: str) -> None:
        """Go to the page and wait for its picture."""
        self.page.goto(address)
        self.is_open("")

    def is_open(self, name: str) -> None:
        """Wait until a medium is open and its first frame is seen."""
        self.says(f"{name} is open")
        self.settle()

    def note_is(self, text: str) -> None:
        """The one complaint was to be: it holds a text."""
        assert [text in each for each in self.complaints] == [True], self.complaints
        self.complaints.clear()

    def says(self, text: str) -> None:
        """Wait until the page says so to a screen reader."""
        from playwright.sync_api import expect

        expect(self.page.locator("#status")).to_contain_text(text)

    def forget(self) -> None:
        """Take away what it says, to see what comes next."""
        self.page.evaluate("document.getElementById('status').textContent = ''")

    def settle(self) -> None:
        """Wait until the frame that is to be seen is here, and what has changed is drawn."""
        from playwright.sync_api import expect

        expect(self.page.locator("#canvas")).to_have_attribute("aria-busy", "false")
        self.page.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
        )

    def place(self, x: float, y: float, size: tuple[int, int]) -> tuple[float, float]:
        """Where the middle of a pixel of the picture, (width, height), is on the page if it is seen whole."""
        left, top, scale = self._fitted(size)
        box = self.page.locator("#canvas").bounding_box()
        return box["x"] + left + (x + 0.5) * scale, box["y"] + top + (y + 0.5) * scale

    def _fitted(self, size: tuple[int, int]) -> tuple[float, float, float]:
        """Where a picture's corner is on the canvas, and the CSS pixels of one of its own."""
        box = self.page.locator("#canvas").bounding_box()
        room = box["width"], box["height"]
        scale = min((there - 2 * MARGIN) / own for there, own in zip(room, size, strict=True))
        left, top = ((there - own * scale) / 2 for there, own in zip(room, size, strict=True))
        return left, top, scale

    def canvas(self) -> np.ndarray:
        """The canvas's pixels, int [H, W, 4]."""
        self.settle()
        url = self.page.evaluate("document.getElementById('canvas').toDataURL()")
        return np.array(Image.open(BytesIO(b64decode(url.split(",")[1]))), int)

    def mask(self, name: str, size: tuple[int, int]) -> np.ndarray:
        """The drawn mask of an object that is not selected, bool [height, width]: what hiding it changes."""
        seen = self.canvas()
        self.page.get_by_role("button", name=f"Show {name}").click()
        hidden = self.canvas()
        self.page.get_by_role("button", name=f"Show {name}").click()
        *corner, scale = self._fitted(size)
        columns, rows = (
            (start + (np.arange(length) + 0.5) * scale).astype(int)
            for start, length in zip(corner, size, strict=True)
        )
        return (seen != hidden).any(axis=2)[np.ix_(rows, columns)]

    def measured(self) -> tuple[float, float]:
        """Milliseconds from the last click to its mask being drawn, and the model's own."""
        found = json.loads(self.page.evaluate("JSON.stringify(document.documentElement.dataset)"))
        return float(found["lastClickMilliseconds"]), float(found["lastModelMilliseconds"])


def _is_foreign(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob") and parts.hostname != LOOPBACK


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window. Skips the test where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("needs the browser chromium on the path")
    with sync_api.sync_playwright() as playwright:
        sync_api.expect.set_options(timeout=PATIENCE)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
