from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kornia_ditf.errors import InvalidArgumentError, OutputError
from kornia_ditf.utils.picture import Picture, save_picture


def test_a_saved_picture_has_its_colours(tmp_path: Path) -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[:, :15] = (200, 100, 50)
    save_picture(tmp_path / "picture.png", picture)
    read = cv2.imread(str(tmp_path / "picture.png"))
    assert read is not None
    np.testing.assert_array_equal(read[..., ::-1], picture)
    save_picture(tmp_path / "picture.JPG", picture)
    read = cv2.imread(str(tmp_path / "picture.JPG"))
    assert read is not None
    assert np.abs(read[10, 5, ::-1].astype(int) - picture[10, 5]).max() < 6


@pytest.mark.parametrize("name", ["picture.bmp", "picture", "picture.png.txt"])
def test_a_suffix_that_is_not_known_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"\.png"):
        save_picture(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "picture", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_an_array_that_is_no_picture_is_refused(tmp_path: Path, picture: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="uint8"):
        save_picture(tmp_path / "picture.png", picture)


def test_a_picture_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="mkdir"):
        save_picture(tmp_path / "missing" / "picture.png", np.zeros((4, 4, 3), np.uint8))


def test_a_notebook_shows_pictures_and_no_other_array() -> None:
    picture = Picture.of(np.full((4, 6, 3), 7))
    assert (picture._repr_png_() or b"").startswith(b"\x89PNG")
    assert picture[0]._repr_png_() is None and (picture / 2)._repr_png_() is None


def test_pictures_of_different_sizes_stand_side_by_side_and_below_each_other() -> None:
    small, large = Picture.of(np.zeros((4, 6, 3))), Picture.of(np.full((8, 5, 3), 9))
    beside, below = Picture.beside([small, large]), Picture.below([small, large])
    assert beside.shape == (8, 6 + 12 + 5, 3) and below.shape == (4 + 12 + 8, 6, 3)
    assert (beside[4:, :6] == 255).all() and (beside[:, 18:] == 9).all()
    assert (below[16:, :5] == 9).all() and (below[16:, 5:] == 255).all()
    with pytest.raises(InvalidArgumentError, match="at least one"):
        Picture.beside([])
