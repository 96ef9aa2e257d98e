"""The photographs that ship with the repository agree with their ground truth."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kornia_ditf.preprocess import read_image

FOLDER = Path(__file__).parent.parent / "examples" / "data"


def grey(name: str) -> np.ndarray:
    return read_image(FOLDER / name)[0].mean(0).numpy()


def difference(warped: np.ndarray, image: np.ndarray, seen: np.ndarray) -> float:
    return float(np.abs(warped - image)[seen].mean())


@pytest.mark.parametrize("name", ["graffiti", "motorcycle"])
def test_a_pair_is_two_photographs_of_one_modest_size(name: str) -> None:
    first, second = grey(f"{name}_a.jpg"), grey(f"{name}_b.jpg")
    assert first.shape == second.shape and max(first.shape) == 640


def test_the_homography_maps_graffiti_a_onto_b_better_than_its_neighbours() -> None:
    truth = json.loads((FOLDER / "graffiti.json").read_text())
    homography = np.array(truth["homography_a_to_b"])
    first, second = grey(truth["image_a"]), grey(truth["image_b"])
    size = second.shape[::-1]

    def shifted(x: float, y: float) -> float:
        moved = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]) @ homography
        seen = cv2.warpPerspective(np.ones_like(first), moved, size) == 1
        return difference(cv2.warpPerspective(first, moved, size), second, seen)

    here = shifted(0, 0)
    assert all(here < shifted(x, y) for x, y in [(0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)])


def test_the_disparity_maps_motorcycle_a_onto_b_better_than_its_neighbours() -> None:
    stored = cv2.imread(str(FOLDER / "motorcycle_disparity.png"), cv2.IMREAD_UNCHANGED)
    assert stored is not None and stored.dtype == np.uint16
    first, second = grey("motorcycle_a.jpg"), grey("motorcycle_b.jpg")
    y, x = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float32)

    def shifted(pixels: float) -> float:
        target = (x - stored / 16 + pixels).astype(np.float32)
        warped = cv2.remap(second, target, y, cv2.INTER_LINEAR)
        return difference(warped, first, stored > 0)

    assert all(shifted(0) < shifted(pixels) for pixels in (-0.5, 0.5))
