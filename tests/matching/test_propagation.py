from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.propagation import (
    LabelPropagator,
    Propagation,
    propagate_masks,
    propagate_points,
    read_mask,
)
from kornia_ditf.types import DescriptorMap, Frame


def random_frames(
    count: int, grid: tuple[int, int], *, width: int = 16, seed: int = 0, scale: int = 8
) -> list[DescriptorMap]:
    """Frames that resemble each other."""
    generator = torch.Generator().manual_seed(seed)
    scene = torch.randn(1, width, *grid, generator=generator)
    size = (scale * grid[0], scale * grid[1])
    return [
        DescriptorMap(
            scene + 0.5 * torch.randn(scene.shape, generator=generator), Frame(size, size)
        )
        for _ in range(count)
    ]


def full_affinity(
    tokens: Tensor, sources: list[Tensor], labels: list[Tensor], propagation: Propagation
) -> Tensor:
    """DINO's evaluation as its authors write it: all pairs of tokens, then a mask."""
    rows, columns = labels[0].shape[1:]
    y = torch.arange(rows).repeat_interleave(columns)
    x = torch.arange(columns).repeat(rows)
    target = F.normalize(tokens, dim=1)
    affinity = torch.cat(
        [
            (target @ F.normalize(source, dim=1).T / propagation.temperature).exp()
            for source in sources
        ],
        1,
    )
    if propagation.radius is not None:
        near = ((y[:, None] - y).abs() <= propagation.radius) & (
            (x[:, None] - x).abs() <= propagation.radius
        )
        affinity = affinity * near.repeat(1, len(sources))
    best = affinity.topk(min(propagation.top_k, affinity.shape[1]), 1).values[:, -1:]
    affinity = torch.where(affinity < best, 0, affinity)
    affinity = affinity / affinity.sum(1, keepdim=True)
    flat = torch.cat([label.flatten(1) for label in labels], 1)
    return (flat @ affinity.T).view(-1, rows, columns)


@settings(max_examples=20)
@given(
    grid=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    top_k=st.integers(1, 6),
    last=st.integers(0, 3),
    radius=st.one_of(st.none(), st.integers(0, 12)),
    seed=st.integers(0, 1000),
)
def test_labels_equal_the_full_affinity_with_a_mask(
    grid: tuple[int, int], top_k: int, last: int, radius: int | None, seed: int
) -> None:
    propagation = Propagation(top_k=top_k, temperature=0.2, last_frames=last, radius=radius)
    frames = random_frames(6, grid, seed=seed)
    labels = torch.rand(3, *grid, generator=torch.Generator().manual_seed(seed))
    propagator = LabelPropagator(frames[0], labels, propagation)
    sources, known = [frames[0].tokens[0]], [labels]
    for frame in frames[1:]:
        expected = full_affinity(frame.tokens[0], sources, known, propagation)
        found = propagator.step(frame)
        torch.testing.assert_close(found, expected, rtol=0, atol=3e-6)
        sources, known = [*sources, frame.tokens[0]], [*known, found]
        keep = max(0, len(sources) - 1 - last)
        sources, known = [sources[0], *sources[1 + keep :]], [known[0], *known[1 + keep :]]


def test_the_numbers_are_dinos() -> None:
    assert Propagation() == Propagation(top_k=5, temperature=0.1, last_frames=7, radius=12)


def moving_square(count: int) -> tuple[list[DescriptorMap], list[Tensor]]:
    """A square that moves a token to the right per frame before a still background."""
    generator = torch.Generator().manual_seed(0)
    background = torch.randn(32, 8, 12, generator=generator)
    square = torch.randn(32, 3, 3, generator=generator)
    frames, masks = [], []
    for step in range(count):
        data, mask = background.clone(), torch.zeros(32, 48, dtype=torch.int64)
        data[:, 2:5, step : step + 3] = square
        mask[8:20, 4 * step : 4 * step + 12] = 2
        frames.append(DescriptorMap(data[None], Frame((32, 48), (64, 96))))
        masks.append(mask)
    return frames, masks


def test_a_mask_follows_what_it_covers() -> None:
    frames, masks = moving_square(6)
    found = list(propagate_masks(frames, masks[0], Propagation(top_k=1)))
    assert torch.equal(found[0], masks[0])
    for mask, expected in zip(found, masks, strict=True):
        assert mask.shape == (32, 48) and mask.dtype == torch.int64
        assert ((mask == 2) & (expected == 2)).sum() > 0.85 * ((mask == 2) | (expected == 2)).sum()
        assert not (mask == 1).any()


def test_points_follow_what_they_lie_on() -> None:
    frames, _ = moving_square(6)
    # The centre of the square's middle token, and the middle between four background tokens.
    points = torch.tensor([[5.5, 13.5], [43.5, 27.5]])
    for step, (places, strength) in enumerate(
        propagate_points(frames, points, Propagation(top_k=1))
    ):
        moved = points + torch.tensor([[4.0 * step, 0], [0, 0]])
        torch.testing.assert_close(places, moved, rtol=0, atol=1e-4)
        assert strength.shape == (2,) and bool((strength > 0.24).all())


def test_a_point_whose_label_is_lost_has_no_place() -> None:
    token = torch.eye(2)[:, :, None].expand(2, 2, 2).transpose(1, 2)
    frame = Frame((4, 4), (4, 4))
    # Every token of the second frame resembles the first frame's right column alone.
    first = DescriptorMap(token[None], frame)
    second = DescriptorMap(token[None, :, :, 1:].expand(1, 2, 2, 2), frame)
    *_, (places, strength) = propagate_points(
        [first, second], torch.tensor([[0.5, 0.5]]), Propagation(top_k=2)
    )
    assert strength.tolist() == [0.0]
    assert bool(places.isnan().all())


def test_frames_are_read_one_by_one() -> None:
    frames, masks = moving_square(4)
    read = 0

    def stream() -> Iterator[DescriptorMap]:
        nonlocal read
        for frame in frames:
            read += 1
            yield frame

    found = propagate_masks(stream(), masks[0])
    assert read == 0
    next(found)
    next(found)
    assert read == 2


def test_only_the_last_frames_are_kept() -> None:
    frames = random_frames(6, (3, 4))
    propagator = LabelPropagator(frames[0], torch.ones(1, 3, 4), Propagation(last_frames=2))
    for frame in frames[1:]:
        propagator.step(frame)
    assert len(propagator._last) == 2


def test_labels_are_stretched_before_the_largest_wins() -> None:
    # The first label is never below 0.4, the second reaches 0.3: stretched, it wins at its peak.
    labels = torch.tensor([[[0.4, 0.7, 1.0]], [[0.3, 0.1, 0.0]], [[0.0, 0.0, 0.0]]])
    frame = Frame((1, 3), (1, 3))
    assert read_mask(labels, frame).tolist() == [[1, 0, 0]]
    assert read_mask(labels, Frame((2, 6), (1, 3))).tolist() == [[1, 1, 0, 0, 0, 0]] * 2


def test_grids_that_change_are_refused() -> None:
    a, b = random_frames(1, (3, 4))[0], random_frames(1, (4, 3))[0]
    propagator = LabelPropagator(a, torch.ones(1, 3, 4))
    with pytest.raises(InvalidArgumentError, match=r"one grid, got \(3, 4\) and then \(4, 3\)"):
        propagator.step(b)
    with pytest.raises(InvalidArgumentError, match=r"labels must have the shape \(L, 4, 3\), got"):
        LabelPropagator(b, torch.ones(1, 3, 4))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(24, 31, dtype=torch.int64), r"first frame's size \(24, 32\)"),
        (torch.zeros(24, 32), "whole numbers"),
        (torch.full((24, 32), -1), "whole numbers"),
        (torch.zeros(1, 24, 32, dtype=torch.int64), r"shape \(H, W\)"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask: Tensor, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        list(propagate_masks(random_frames(2, (3, 4)), mask))


def test_frames_that_are_not_finite_are_refused() -> None:
    frames = random_frames(2, (3, 4))
    frames[1].data[0, 0, 0, 0] = torch.nan
    with pytest.raises(InvalidArgumentError, match="frame's descriptors must be finite"):
        list(propagate_points(frames, torch.zeros(1, 2)))


@pytest.mark.parametrize(
    ("name", "value"),
    [("top_k", 0), ("temperature", 0.0), ("last_frames", -1), ("radius", -1), ("radius", 1.5)],
)
def test_a_wrong_number_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{name} must"):
        Propagation(**{name: value})  # type: ignore[arg-type]
