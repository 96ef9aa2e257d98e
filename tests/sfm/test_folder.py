"""A folder is matched pair by pair, and a run goes on where another ended."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kornia_ditf.errors import ImageError
from kornia_ditf.registry.matchers import load_matcher
from kornia_ditf.sfm import folder as engine
from kornia_ditf.sfm.folder import match_folder


@pytest.fixture
def images(photographs: Path, tmp_path: Path) -> Path:
    copied = tmp_path / "photographs"
    shutil.copytree(photographs, copied)
    return copied


def shift_between(graph: Any, pair: int) -> list[float]:
    matches = graph.matches(pair)
    kept = graph.pairs[pair].inliers
    moved: list[float] = (matches.points_a - matches.points_b)[kept].median(0).values.tolist()
    return moved


@pytest.mark.parametrize("name", ["sift", "nano"])
def test_images_of_one_scene_are_joined_and_another_is_not(photographs: Path, name: str) -> None:
    options = {"long_side": 160} if name == "nano" else {}
    found = match_folder(photographs, load_matcher(name, **options))
    names = [each.name for each in found.graph.images]
    assert names == ["a.png", "b.png", "d.png", "in/c.png"]
    joined = {(names[p.first], names[p.second]) for p in found.graph.pairs}
    assert joined == {("a.png", "b.png"), ("a.png", "in/c.png"), ("b.png", "in/c.png")}
    assert (found.matched, found.resumed, found.weak) == (6, 0, 3)
    assert shift_between(found.graph, 0) == pytest.approx([8, 0], abs=0.5)
    lengths = found.graph.track_lengths()
    assert int((lengths == 3).sum()) > 30


def test_retrieval_finds_the_images_of_one_scene(photographs: Path) -> None:
    found = match_folder(
        photographs, load_matcher("sift"), "retrieval", count=1, min_inliers=0, min_share=0
    )
    names = [each.name for each in found.graph.images]
    pairs = {(names[p.first], names[p.second]) for p in found.graph.pairs}
    assert ("a.png", "b.png") in pairs and len(pairs) < 5


def test_a_second_run_matches_only_what_changed(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(settings: str = "") -> tuple[int, int]:
        cache = tmp_path / "pairs"
        found = match_folder(images, load_matcher("sift"), cache=cache, settings=settings)
        return found.matched, found.resumed

    assert run() == (6, 0)
    assert run() == (0, 6)
    assert run("ratio=0.7") == (6, 0)
    files = sorted((tmp_path / "pairs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    files[0].write_bytes(files[0].read_bytes()[:-1])
    assert run() == (1, 5)
    shutil.copy(images / "b.png", images / "d.png")
    assert run() == (1, 5)  # two of the three new pairs are of the same bytes as old ones
    again = match_folder(images, load_matcher("sift")).graph
    monkeypatch.setattr(engine, "_LIMIT_BYTES", 0)  # every image is read again for each pair
    tight = match_folder(images, load_matcher("sift")).graph
    for one, other in zip(again.images, tight.images, strict=True):
        assert torch.equal(one.keypoints, other.keypoints)


def test_an_interrupted_run_keeps_its_pairs(images: Path, tmp_path: Path) -> None:
    def two(pairs: Any) -> Any:
        for number, pair in enumerate(pairs):
            if number == 2:
                raise KeyboardInterrupt
            yield pair

    with pytest.raises(KeyboardInterrupt):
        match_folder(images, load_matcher("sift"), cache=tmp_path / "pairs", progress=two)
    found = match_folder(images, load_matcher("sift"), cache=tmp_path / "pairs")
    assert (found.matched, found.resumed) == (4, 2)


def test_a_bad_image_is_named_once_and_left_out(images: Path) -> None:
    (images / "b.png").write_bytes(b"no image")
    said: list[str] = []
    found = match_folder(
        images, load_matcher("sift"), on_error=lambda error: said.append(str(error))
    )
    assert list(found.failed) == ["b.png"] and len(said) == 1 and "b.png" in said[0]
    assert [each.name for each in found.graph.images] == ["a.png", "d.png", "in/c.png"]
    with pytest.raises(ImageError, match=r"b\.png"):
        match_folder(images, load_matcher("sift"))
