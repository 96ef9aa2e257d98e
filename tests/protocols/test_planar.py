from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import layouts
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kornia_ditf import evaluate_pair, find_protocol, load_dataset
from kornia_ditf.metrics.functional import project
from kornia_ditf.types import DescriptorMap, Frame


def dift(data_a: torch.Tensor, data_b: torch.Tensor, pair: object) -> tuple[float, int]:
    """eval_hpatches.py and eval_homography.py of DIFT: corner error and number of matches."""
    keypoints, descriptors = [], []
    for data, points, size in (
        (data_a, pair.points_a, pair.size_a),  # type: ignore[attr-defined]
        (data_b, pair.points_b, pair.size_b),  # type: ignore[attr-defined]
    ):
        coordinates = points.numpy().astype(np.float32)
        centre = torch.tensor([(size[1] - 1) / 2.0, (size[0] - 1) / 2.0])
        grid = (torch.from_numpy(coordinates)[None] - centre) / centre
        sampled = F.grid_sample(data, grid[:, :, None], align_corners=False).squeeze(-1)[0].T
        unique, index = np.unique(coordinates, return_index=True, axis=0)
        keypoints.append(unique)
        descriptors.append(F.normalize(sampled[index]))
    similarity = descriptors[0] @ descriptors[1].T
    forth, back = similarity.argmax(1), similarity.argmax(0)
    mutual = back[forth] == torch.arange(len(forth))
    a = keypoints[0][mutual.numpy()].reshape(-1, 1, 2)
    b = keypoints[1][forth[mutual].numpy()].reshape(-1, 1, 2)
    found, _ = cv2.findHomography(a, b, cv2.LMEDS, ransacReprojThreshold=3)
    height, width = pair.size_a  # type: ignore[attr-defined]
    corners = np.array(
        [[0, 0, 1], [0, height - 1, 1], [width - 1, 0, 1], [width - 1, height - 1, 1]]
    )
    true = corners @ pair.homography.numpy().T  # type: ignore[attr-defined]
    warped = corners @ found.T
    difference = true[:, :2] / true[:, 2:] - warped[:, :2] / warped[:, 2:]
    return float(np.linalg.norm(difference, axis=1).mean()), int(mutual.sum())


@pytest.mark.parametrize("index", [0, 7])
def test_hpatches_is_scored_as_dift_scores_it(tmp_path: Path, index: int) -> None:
    layouts.hpatches(tmp_path, keypoints=200)
    keypoints = tmp_path / "superpoint-1k"
    pair = load_dataset("hpatches", tmp_path, keypoints=keypoints)[index]
    # Keypoints of B near those of A, as a detector would find them.
    moved = project(pair.homography, pair.points_a) + torch.randn(200, 2) * 0.2
    pair = replace(pair, points_b=moved)
    data = torch.randn(1, 32, 24, 24, generator=torch.Generator().manual_seed(index))
    maps = [DescriptorMap(data, Frame((768, 768), (768, 768)))] * 2
    result = evaluate_pair(*maps, pair, find_protocol("dift-hpatches"))
    error, matches = dift(data, data, pair)
    assert len(result.distances) == matches > 4
    assert result.corner_error == pytest.approx(error, abs=1e-6)
    expected = (project(pair.homography, result.sources) - result.predicted).norm(dim=1)
    assert torch.allclose(result.distances, expected)


def test_the_sampling_of_dift_moves_descriptors_at_the_border_alone(tmp_path: Path) -> None:
    layouts.hpatches(tmp_path, keypoints=300)
    pair = load_dataset("hpatches", tmp_path, keypoints=tmp_path / "superpoint-1k")[0]
    same = replace(
        pair,
        image_b=pair.image_a,
        size_b=pair.size_a,
        points_b=pair.points_a,
        homography=torch.eye(3).double(),
    )
    data = torch.randn(1, 32, 24, 24, generator=torch.Generator().manual_seed(0))
    maps = [DescriptorMap(data, Frame((768, 768), (768, 768)))] * 2
    theirs = find_protocol("dift-hpatches")
    for protocol in (theirs, replace(theirs, name="ours", compat=frozenset())):
        result = evaluate_pair(*maps, same, protocol)
        assert result.corner_error == pytest.approx(0, abs=1e-3)


def test_without_keypoints_tokens_are_matched(tmp_path: Path) -> None:
    layouts.hpatches(tmp_path)
    pair = load_dataset("hpatches", tmp_path)[0]
    eye = torch.eye(3).double()
    same = replace(pair, image_b=pair.image_a, size_b=pair.size_a, homography=eye)
    described = DescriptorMap(torch.randn(1, 16, 6, 8), Frame((96, 128), (96, 128)))
    result = evaluate_pair(described, described, same, find_protocol("plain-homography"))
    assert len(result.distances) == 48 and bool(result.hits.all())
    assert result.corner_error == pytest.approx(0, abs=1e-3)


def test_too_few_matches_are_an_infinite_error(tmp_path: Path) -> None:
    layouts.hpatches(tmp_path)
    pair = load_dataset("hpatches", tmp_path)[0]
    few = DescriptorMap(torch.randn(1, 16, 1, 3), Frame((8, 24), (8, 24)))
    result = evaluate_pair(few, few, pair, find_protocol("plain-homography"))
    assert result.corner_error == float("inf") and result.hits.shape == (10, 3)
