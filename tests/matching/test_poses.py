from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from local import Local, texture

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.poses import POSES, instance_distance, view_in_pose
from kornia_ditf.matching.views import View, transform_points
from kornia_ditf.search.verified import match_images
from kornia_ditf.types import DescriptorMap, Frame


def random_map(seed: int, rows: int = 5, columns: int = 6) -> DescriptorMap:
    data = torch.randn(1, 16, rows, columns, generator=torch.Generator().manual_seed(seed))
    return DescriptorMap(data, Frame((48, 48), (48, 48)))


def test_instance_distance_equals_the_sources_rule_computed_token_by_token() -> None:
    a, b = random_map(0), random_map(1, 4, 7)
    mask_a = torch.rand(5, 6, generator=torch.Generator().manual_seed(2)) > 0.4
    mask_b = torch.rand(4, 7, generator=torch.Generator().manual_seed(3)) > 0.4
    of_a, of_b = (
        F.normalize(each.data[0].double(), dim=0)[:, mask].T
        for each, mask in ((a, mask_a), (b, mask_b))
    )
    least = [min(float((one - other).norm()) for other in of_b) for one in of_a]
    found = instance_distance(a, b, mask_a=mask_a, mask_b=mask_b)
    assert found == pytest.approx(sum(least) / len(least), abs=1e-6)
    distances = torch.cdist(of_a, of_b)
    near, back = distances.argmin(1), distances.argmin(0)
    mutual = back[near] == torch.arange(len(of_a))
    expected = distances.amin(1)[mutual].mean()
    whole = [DescriptorMap(each.T.reshape(1, 16, 1, -1).float(), a.frame) for each in (of_a, of_b)]
    assert instance_distance(*whole, mutual=True) == pytest.approx(float(expected), abs=1e-6)


def test_a_wrong_mask_is_an_error() -> None:
    for mask in (torch.zeros(5, 6, dtype=torch.bool), torch.ones(6, 5, dtype=torch.bool)):
        with pytest.raises(InvalidArgumentError, match=r"mask of map_a must be bool of its grid"):
            instance_distance(random_map(0), random_map(1), mask_a=mask)


@pytest.mark.parametrize("pose", POSES["both"])
def test_a_planted_pose_is_found_and_points_come_back_exactly(pose: str) -> None:
    image_b = texture(96, 144)
    # A is such that this pose of it is B.
    undone = image_b.rot90(-int(pose[-3:]) // 90 if pose[-1] == "0" else 0, (2, 3))
    image_a = undone.flip(3) if pose.startswith("mirrored") else undone
    assert torch.equal(view_in_pose(View(image_a), pose).image, image_b)
    found = match_images(image_a, image_b, Local(), pose="both", search="none", refined=False)
    assert found.pose == pose and set(found.poses) == set(POSES["both"])
    assert found.poses[pose] == pytest.approx(0, abs=1e-3)
    view = view_in_pose(View(image_a), pose)
    moved = transform_points(view.matrix, found.matches.points_a)
    torch.testing.assert_close(moved, found.matches.points_b)
    assert len(moved) > 150
    assert found.verification.matrix is not None and bool(found.verification.inliers.all())
    matrix = found.verification.matrix / found.verification.matrix[2, 2]
    torch.testing.assert_close(matrix.double(), torch.from_numpy(view.matrix), atol=1e-3, rtol=0)


def test_without_a_pose_nothing_is_tried() -> None:
    image = texture(96, 144)
    found = match_images(image.flip(3), image, Local(), search="none")
    assert found.pose == "upright" and not found.poses
    with pytest.raises(InvalidArgumentError, match="pose must be one of none, flips, turns, both"):
        match_images(image, image, Local(), pose="flip")  # type: ignore[arg-type]
