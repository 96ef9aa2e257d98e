"""The demo's page: requests of all kinds, and a visitor in a browser."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
from browser import DESK, PHONE, opened, overflow

httpx = pytest.importorskip("httpx")
pytest.importorskip("gradio")

DATA = Path(__file__).parents[2] / "examples/data"
PRESET = ["nano", None, None, "preset", "nothing"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the command serves the page; a signal stops it."""
    command = [sys.executable, "-m", "kornia_ditf", "demo", "--long-side", "256"]
    with Popen(command, stdout=PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
        assert found is not None
        try:
            yield found[0]
            server.terminate()  # SIGINT is ignored where the tests run in the background
            assert server.wait(30) == 0
        finally:
            server.kill()


def upload(address: str, path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        answer = httpx.post(f"{address}/gradio_api/upload", files={"files": stream}, timeout=60)
    answer.raise_for_status()
    return as_file(answer.json()[0])


def as_file(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def call(address: str, name: str, *data: Any) -> str:
    asked = httpx.post(f"{address}/gradio_api/call/{name}", json={"data": data}, timeout=60)
    if asked.status_code != 200:
        return f"refused with {asked.status_code}"
    event = asked.json()["event_id"]
    answer: str = httpx.get(f"{address}/gradio_api/call/{name}/{event}", timeout=120).text
    return answer


def test_a_request_with_two_uploads_and_a_point_is_answered(address: str) -> None:
    a, b = (upload(address, DATA / f"graffiti_{side}.jpg") for side in "ab")
    answer = call(address, "locate", a, b, 320, 256, *PRESET)
    assert answer.startswith("event: complete") and "lands at" in answer


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../../etc/passwd", "file:///etc/passwd", str(DATA / "README.md"), ""],
)
def test_a_path_in_a_request_is_never_read(address: str, path: str) -> None:
    answer = call(address, "locate", as_file(path), as_file(path), 3, 4, *PRESET)
    assert not answer.startswith("event: complete")
    assert "root:" not in answer and "licence" not in answer
    shown = httpx.get(f"{address}/gradio_api/file={path}")
    assert shown.status_code >= 400


def test_an_upload_that_is_no_usable_image_is_named_without_its_place(
    address: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.jpg").write_text("these are no pixels")
    good, bad = upload(address, DATA / "graffiti_a.jpg"), upload(address, tmp_path / "notes.jpg")
    answer = call(address, "match", good, bad, False, *PRESET)
    assert answer.startswith("event: error") and "image B: cannot read notes.jpg" in answer
    assert bad["path"] not in answer


@pytest.mark.parametrize(
    "values",
    [
        ["nano", 99, None, "preset", "nothing"],
        ["nano", "x", None, "preset", "nothing"],
        ["nano", None, 5000, "preset", "nothing"],
        ["/etc/passwd", None, None, "preset", "nothing"],
        ["nano", None, None, {"a": 1}, "nothing"],
        ["nano", None, None, "preset", ["nano"]],
        [],
    ],
)
def test_wrong_settings_are_refused_and_the_server_goes_on(address: str, values: Any) -> None:
    a, b = (upload(address, DATA / f"graffiti_{side}.jpg") for side in "ab")
    assert not call(address, "locate", a, b, 320, 256, *values).startswith("event: complete")
    assert httpx.get(address).status_code == 200


@pytest.mark.parametrize("point", [(None, 3), ("x", 3), ([1], 2), (-5, 3), (1e9, 3), ({}, 3)])
def test_a_wrong_point_is_refused(address: str, point: Any) -> None:
    a, b = (upload(address, DATA / f"graffiti_{side}.jpg") for side in "ab")
    assert call(address, "locate", a, b, *point, *PRESET).startswith("event: error")


def test_visitors_who_ask_at_once_each_get_their_own_answer(address: str) -> None:
    a, b = (upload(address, DATA / f"graffiti_{side}.jpg") for side in "ab")
    points = [(100 + 4 * number, 200) for number in range(24)]

    def ask(point: tuple[int, int]) -> str:
        return call(address, "locate", a, b, *point, *PRESET)

    with ThreadPoolExecutor(12) as pool:
        for point, answer in zip(points, pool.map(ask, points), strict=True):
            assert f"({point[0]}, {point[1]}) lands at" in answer


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_a_visitor_clicks_a_point_and_matches_two_images(
    chromium: Any, address: str, tmp_path: Path, size: tuple[int, int]
) -> None:
    with opened(chromium, address, size) as page:
        page.wait_for_selector("#image-a img", timeout=60_000)
        assert overflow(page) == 0
        page.locator("#image-a img").first.click()
        page.wait_for_selector("text=lands at", timeout=60_000)
        if size == PHONE:
            return
        page.get_by_role("tab", name="All matches").click()
        page.get_by_role("button", name="Match the two images").click()
        words = page.wait_for_selector("text=of a common homography", timeout=60_000).inner_text()
        matches, inliers = map(int, re.findall(r"\d+", words)[:2])
        assert matches > inliers > 100
        page.get_by_role("tab", name="Look inside").click()
        page.get_by_role("button", name="Channels and principal components").click()
        drawn = page.locator(".block", has_text="Principal components of B")
        drawn.locator("img").first.wait_for(timeout=60_000)
        (tmp_path / "cut.jpg").write_bytes((DATA / "graffiti_a.jpg").read_bytes()[:3000])
        page.locator("#image-a button[aria-label='Remove Image']").click()
        page.locator("#image-a input[type=file]").set_input_files(tmp_path / "cut.jpg")
        page.get_by_role("tab", name="All matches").click()
        page.get_by_role("button", name="Match the two images").click()
        page.wait_for_selector("text=image A: cannot read cut.jpg", timeout=60_000)
