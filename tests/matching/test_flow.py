from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from independent import smooth_map

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.flow import dense_flow
from kornia_ditf.types import DescriptorMap, Frame


def test_every_pixel_of_an_image_flows_to_itself() -> None:
    scene = smooth_map((0, 0))
    flow = dense_flow(scene, scene)
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    off = (flow.points - torch.stack([x, y], -1)).norm(dim=-1)
    # The parabola is a model of the peak, and half a cell the most that it moves anything.
    assert off.median() < 1 and off.max() < 6
    assert bool(flow.consistent.all())
    torch.testing.assert_close(flow.confidence, torch.ones(1, 1, 96, 96))


def test_pixels_flow_by_the_shift_that_there_is() -> None:
    a, b = smooth_map((0, 0)), smooth_map((10.0, -6.0))
    flow = dense_flow(a, b)
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    truth = torch.stack([x - 10, y + 6], -1)
    seen = ((truth > 8) & (truth < 87)).all(-1)
    off = (flow.points - truth).norm(dim=-1)
    assert off[seen].median() < 1
    assert flow.consistent[0, 0][seen].float().mean() > 0.95
    # What B does not show does not come back to where it began.
    assert dense_flow(a, b, tolerance=4.0).consistent[0, 0][:, :4].float().mean() < 0.2


def test_a_warped_image_lies_on_the_other() -> None:
    a, b = smooth_map((0, 0)), smooth_map((10.0, -6.0))
    flow = dense_flow(a, b)
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    picture_a, picture_b = (
        torch.sin((x + dx) / 9)[None] + torch.cos((y + dy) / 7) for dx, dy in ((0, 0), (10, -6))
    )
    warped = flow.warp(picture_b)
    assert warped.shape == (1, 96, 96)
    seen = flow.consistent[0, 0]
    assert (warped - picture_a)[0][seen].abs().median() < 0.1
    hidden = flow.warp(picture_b[None], only_consistent=True)
    assert hidden.shape == (1, 1, 96, 96) and not hidden[0, 0][~seen].any()


def test_the_grid_is_one_for_grid_sample_from_edge_to_edge() -> None:
    scene = DescriptorMap(torch.eye(24).view(1, 24, 4, 6), Frame((40, 60), (8, 12)))
    flow = dense_flow(scene, scene)
    still = F.affine_grid(torch.eye(2, 3)[None], [1, 1, 40, 60], align_corners=False)
    torch.testing.assert_close(flow.grid, still, rtol=0, atol=1e-5)
    image = torch.rand(1, 3, 40, 60)
    torch.testing.assert_close(flow.warp(image), image, rtol=0, atol=1e-3)


def test_images_of_different_sizes_flow_at_the_size_of_the_first() -> None:
    data = torch.eye(24).view(1, 24, 4, 6)
    a, b = (
        DescriptorMap(data, Frame((40, 60), (8, 12))),
        DescriptorMap(data, Frame((80, 30), (8, 12))),
    )
    flow = dense_flow(a, b)
    assert flow.grid.shape == (1, 40, 60, 2) and flow.size_b == (80, 30)
    expected = Frame((40, 60), (80, 30)).to_model(torch.tensor([[10.0, 20.0]]))
    torch.testing.assert_close(flow.points[20, 10], expected[0], rtol=0, atol=1e-3)
    assert flow.warp(torch.zeros(80, 30, dtype=torch.uint8)[None], mode="nearest").shape == (
        1,
        40,
        60,
    )


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_masks_keep_their_numbers(dtype: torch.dtype) -> None:
    scene = smooth_map((0, 0))
    flow = dense_flow(scene, smooth_map((3.0, 2.0)))
    mask = (torch.rand(1, 96, 96) > 0.5).to(dtype)
    warped = flow.warp(mask, mode="nearest")
    assert warped.dtype == dtype
    assert set(warped.unique().tolist()) <= {0, 1}
    with pytest.raises(InvalidArgumentError, match="mode must be 'nearest' for whole numbers"):
        flow.warp(mask)


def test_one_token_is_no_obstacle() -> None:
    one = DescriptorMap(torch.ones(1, 3, 1, 1), Frame((4, 5), (8, 8)))
    flow = dense_flow(one, one)
    assert flow.points.shape == (4, 5, 2)


def test_wrong_arguments_are_refused_by_name() -> None:
    scene = smooth_map((0, 0))
    with pytest.raises(InvalidArgumentError, match="tolerance must be above 0"):
        dense_flow(scene, scene, tolerance=0)
    flow = dense_flow(scene, scene)
    with pytest.raises(InvalidArgumentError, match="mode must be"):
        flow.warp(torch.zeros(1, 96, 96), mode="bicubic")
    with pytest.raises(InvalidArgumentError, match=r"shape \(C, H, W\)"):
        flow.warp(torch.zeros(2, 3, 96, 96))
