"""One Chromium for all tests of pages; they are skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")

DESK, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A running browser of Playwright's; `opened` shows a page in it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(_ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, page: Path | str, size: tuple[int, int] = DESK) -> Iterator[Any]:
    """Open a file or an address; fail on console errors, uncaught exceptions and foreign requests.

    Args:
        browser: of the fixture `chromium`.
        page: a file, opened as file://, or an address on this machine.
        size: of the window, (width, height).
    """
    address = page.absolute().as_uri() if isinstance(page, Path) else page
    wrong: list[str] = []
    context = browser.new_context(viewport=dict(zip(("width", "height"), size, strict=True)))
    shown = context.new_page()
    shown.on("console", lambda line: line.type == "error" and wrong.append(line.text))
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    own = ("file:", "data:", "blob:", "about:", "http://127.0.0.1", "http://localhost")
    shown.on("request", lambda asked: asked.url.startswith(own) or wrong.append(asked.url))
    shown.goto(address)
    yield shown
    context.close()
    assert wrong == []


def overflow(shown: Any) -> int:
    """Return by how many pixels a page is wider than its window."""
    wide: int = shown.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return wide
