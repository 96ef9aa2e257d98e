"""Descriptors of videos, frame by frame; video models are tested beside their families."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import kornia_ditf as kd
from kornia_ditf.errors import InvalidArgumentError


@pytest.fixture(scope="module")
def nano() -> kd.DenseDescriptor:
    return kd.create_descriptor("nano", long_side=64)


def moving_square(frames: int, size: tuple[int, int] = (48, 64)) -> Tensor:
    """Make frames (T, 1, 3, H, W) of texture over which a bright textured square moves."""
    generator = torch.Generator().manual_seed(0)
    texture = 0.4 * torch.rand(1, 3, *size, generator=generator)
    square = 0.6 + 0.4 * torch.rand(1, 3, 16, 16, generator=generator)
    clip = texture.repeat(frames, 1, 1, 1, 1)
    for number in range(frames):
        clip[number, :, :, 16:32, 8 + 4 * number : 24 + 4 * number] = square
    return clip


def test_each_frame_has_the_map_that_it_has_alone(nano: kd.DenseDescriptor) -> None:
    frames = moving_square(5)
    maps = list(kd.describe_video(nano, frames, window=2))
    assert len(maps) == 5
    for frame, described in zip(frames, maps, strict=True):
        torch.testing.assert_close(described.data, nano(frame).data, rtol=0, atol=1e-5)


def test_at_most_a_window_of_frames_is_read_ahead(nano: kd.DenseDescriptor) -> None:
    read: list[int] = []

    def frames() -> Iterator[Tensor]:
        for number, frame in enumerate(moving_square(6)):
            read.append(number)
            yield frame

    maps = kd.describe_video(nano, frames(), window=2)
    assert not read
    next(maps)
    assert len(read) <= 3


def test_frames_may_change_their_size(nano: kd.DenseDescriptor) -> None:
    frames = [*moving_square(2), *moving_square(1, (64, 48))]
    sizes = [described.frame.image_size for described in kd.describe_video(nano, frames)]
    assert sizes == [(48, 64), (48, 64), (64, 48)]


def test_a_mask_follows_the_square_through_the_video(nano: kd.DenseDescriptor) -> None:
    frames = moving_square(4)
    mask = torch.zeros(48, 64, dtype=torch.long)
    mask[16:32, 8:24] = 1
    last = list(kd.propagate_masks(kd.describe_video(nano, frames), mask))[-1]
    columns = last.nonzero()[:, 1].float()
    assert abs(float(columns.mean()) - (20 + 7.5)) < 4


def test_a_window_of_no_frame_is_refused_at_once(nano: kd.DenseDescriptor) -> None:
    with pytest.raises(InvalidArgumentError, match="window"):
        kd.describe_video(nano, [], window=0)


def test_a_video_of_no_frame_has_no_map(nano: kd.DenseDescriptor) -> None:
    assert list(kd.describe_video(nano, [])) == []


def test_image_models_do_not_take_clips() -> None:
    ditf = kd.create_ditf("nano")
    with pytest.raises(InvalidArgumentError, match="not a video model"):
        kd.VideoDiTF(ditf.backbone, ditf.config)  # type: ignore[arg-type]
