from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.sfm.pairs import choose_pairs, list_images

NAMES = ["a.jpg", "b.jpg", "c d.jpg", "e.jpg"]


def test_all_pairs_and_neighbours_in_order() -> None:
    assert len(choose_pairs(NAMES, "all", 1, lambda _: None)) == 6
    assert choose_pairs(NAMES, "sequential", 2, lambda _: None) == [
        *((0, 1), (0, 2), (1, 2), (1, 3), (2, 3))
    ]


def test_retrieval_pairs_what_looks_alike_and_leaves_out_what_cannot_be_read() -> None:
    shared, own = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0))
    scenes = [shared + own, shared - own, None, shared + own * 1.1]
    pooled = [None if each is None else each[0] for each in scenes]
    assert (0, 3) in choose_pairs(NAMES, "retrieval", 1, lambda number: pooled[number])
    assert choose_pairs(NAMES, "retrieval", 9, lambda number: pooled[number]) == [
        *((0, 1), (0, 3), (1, 3))
    ]
    assert choose_pairs(NAMES, "retrieval", 1, lambda _: None) == []


def test_a_file_names_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("# pairs\nb.jpg a.jpg\n\na.jpg b.jpg\nc d.jpg\te.jpg\n")
    assert choose_pairs(NAMES, path, 1, lambda _: None) == [(0, 1), (2, 3)]
    for line, message in (
        ("a.jpg x.jpg", "line 1 of .*: there is no image 'x.jpg'"),
        ("a.jpg", "two images"),
        ("a.jpg a.jpg", "two images"),
    ):
        path.write_text(line)
        with pytest.raises(InvalidArgumentError, match=message):
            choose_pairs(NAMES, path, 1, lambda _: None)
    with pytest.raises(InvalidArgumentError, match="did you mean 'sequential'"):
        choose_pairs(NAMES, "sequental", 1, lambda _: None)


def test_images_are_found_in_folders_too_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "in/c.tif", ".d.jpg", ".e/f.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path) == ["a.png", "b.JPG", "in/c.tif"]
    with pytest.raises(InvalidArgumentError, match="at least two images to match, got 1"):
        list_images(tmp_path / "in")
    with pytest.raises(InvalidArgumentError, match="there is no folder"):
        list_images(tmp_path / "none")
