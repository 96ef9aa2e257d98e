"""Label propagation through a video, from the labels of its first frame.

The protocol of DINO's evaluation on DAVIS (Caron et al., ICCV 2021), which DIFT and DiTF follow: a
token takes the labels of the few tokens most similar to it, among those near its position in the
first frame and in the last few frames, weighted by a softmax of cosines. Frames are read one by
one, and only those that are still needed are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.checks import check_comparable, check_one_image, full_precision
from kornia_ditf.matching.similarity import mean_places, near_places
from kornia_ditf.types import DescriptorMap, Frame
from kornia_ditf.utils.checks import check_finite, check_integer, check_number, check_tensor

_LINES = 4
"""Lines of tokens compared at once, with the lines within reach of any of them."""

_REACH = 2
"""Tokens around its strongest position that belong to a point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Propagation:
    """Parameters of label propagation; the defaults are DINO's and DiTF's for DAVIS.

    DIFT's for its Stable Diffusion features are 15, 0.2, 28 and 15, in this order.

    Args:
        top_k: how many most similar tokens a token takes its label from, at least 1.
        temperature: of the softmax over their cosines, above 0.
        last_frames: how many frames before the present one are looked at, besides the first.
        radius: how far away in the other frame a token may lie, in tokens along x and y each;
            None is anywhere. Their code writes 0 for that.

    Raises:
        InvalidArgumentError: a number out of range.
    """

    top_k: int = 5
    temperature: float = 0.1
    last_frames: int = 7
    radius: int | None = 12

    def __post_init__(self) -> None:
        check_integer("top_k", self.top_k, 1)
        check_integer("last_frames", self.last_frames, 0)
        if self.radius is not None:
            check_integer("radius", self.radius, 0)
        check_number("temperature", self.temperature, "(0, inf]")


class LabelPropagator:
    """Propagate labels frame by frame, keeping the first frame and the last few.

    Args:
        first: descriptors of the first frame, one image.
        labels: weight of each label at each of its tokens, shape (L, rows, columns).
        propagation: the protocol's parameters.

    Raises:
        InvalidArgumentError: a map of several images, labels of another grid, or values that are
            not finite.

    Example:
        >>> frame = Frame((32, 32), (32, 32))
        >>> first = DescriptorMap(torch.eye(4).view(1, 4, 2, 2), frame)
        >>> propagator = LabelPropagator(first, torch.eye(4).view(4, 2, 2))
        >>> flipped = DescriptorMap(first.data.flip(3), frame)
        >>> propagator.step(flipped).argmax(0)
        tensor([[1, 0],
                [3, 2]])
    """

    def __init__(
        self, first: DescriptorMap, labels: Tensor, propagation: Propagation | None = None
    ) -> None:
        rows, columns = first.grid
        check_tensor(labels, "labels", f"(L, {rows}, {columns})")
        check_finite(labels, "labels")
        self.propagation = propagation or Propagation()
        self._map = first
        labels = self._by_line(labels.to(first.data.device, torch.float32)).flatten(1).T
        self._first = (self._unit_tokens(first), labels.contiguous())
        self._last: deque[tuple[Tensor, Tensor]] = deque(maxlen=self.propagation.last_frames)

    def step(self, descriptors: DescriptorMap) -> Tensor:
        """Return the labels of the next frame, and keep them for those that follow.

        Args:
            descriptors: of the next frame, one image, on the first frame's grid.

        Returns:
            shape (L, rows, columns), float32: means of the labels that went in.

        Raises:
            InvalidArgumentError: several images, another grid, width or device, or values not
                finite.
        """
        labels = self.propagate(descriptors)
        self.remember(descriptors, labels)
        return labels

    def propagate(self, descriptors: DescriptorMap) -> Tensor:
        """Return the labels of a frame as `step` does, without keeping it."""
        tokens = self._unit_tokens(descriptors)
        # Lines lie across the longer axis, along which fewer tokens are then out of reach.
        grid = (max(self._map.grid), min(self._map.grid))
        with full_precision(tokens.device):
            labels = _propagate(tokens, [self._first, *self._last], grid, self.propagation)
        return self._by_line(labels.T.reshape(-1, *grid))

    def remember(self, descriptors: DescriptorMap, labels: Tensor) -> None:
        """Store the labels of a frame, (L, rows, columns), for later frames.

        With `propagate` it replaces `step` where labels are corrected in between.
        """
        tokens = self._unit_tokens(descriptors)
        lines = self._by_line(labels.to(tokens.device, torch.float32))
        self._last.append((tokens, lines.flatten(1).T.contiguous()))

    def _unit_tokens(self, descriptors: DescriptorMap) -> Tensor:
        if descriptors.grid != self._map.grid:
            raise InvalidArgumentError(
                f"all frames must have one grid, got {self._map.grid} and then {descriptors.grid}"
            )
        check_comparable(self._map.data, descriptors.data)
        check_one_image(descriptors, "a frame")
        check_finite(descriptors.data, "a frame's descriptors")
        with full_precision(descriptors.data.device):
            tokens = self._by_line(descriptors.data[0]).flatten(1).T.float()
            return F.normalize(tokens, dim=1).contiguous()

    def _by_line(self, maps: Tensor) -> Tensor:
        """Exchange the axes of maps (C, rows, columns) where columns are more, or change back."""
        rows, columns = self._map.grid
        return maps.transpose(1, 2) if columns > rows else maps


def propagate_masks(
    frames: Iterable[DescriptorMap], mask: Tensor, propagation: Propagation | None = None
) -> Iterator[Tensor]:
    """Propagate a mask of objects through a video.

    As the protocol reads masks: the first one is reduced to the token grid (nearest); labels are
    enlarged to the model's pixels (bilinear), each label is stretched to [0, 1], the largest wins,
    and the result is brought to the image's size (nearest).

    Args:
        frames: descriptors of the frames, one image each; read one by one, as results are taken.
        mask: which object each pixel of the first frame shows, 0 being none, shape (H, W),
            integers or bool.
        propagation: the protocol's numbers.

    Yields:
        the mask of every frame, int64, shape (H, W), the first one as it was given.

    Raises:
        InvalidArgumentError: another shape or dtype, or as `LabelPropagator` does.

    Example:
        >>> first = DescriptorMap(torch.eye(4).view(1, 4, 2, 2), Frame((8, 8), (8, 8)))
        >>> flipped = DescriptorMap(first.data.flip(3), first.frame)
        >>> mask = torch.zeros(8, 8, dtype=torch.int64)
        >>> mask[:4, :4] = 1
        >>> [mask[1, ::3].tolist() for mask in propagate_masks([first, flipped], mask)]
        [[1, 1, 0], [0, 0, 1]]
    """
    check_tensor(mask, "mask", "(H, W)")
    if mask.is_floating_point() or mask.is_complex() or bool((mask < 0).any()):
        raise InvalidArgumentError(
            f"mask must hold whole numbers of 0 and more, got {mask.dtype} from {mask.min()}"
        )
    propagator: LabelPropagator | None = None
    for descriptors in frames:
        if propagator is None:
            if mask.shape != descriptors.frame.image_size:
                raise InvalidArgumentError(
                    f"mask must have the first frame's size {descriptors.frame.image_size}, "
                    f"got {tuple(mask.shape)}"
                )
            small = _resize_nearest(mask, descriptors.grid)
            labels = F.one_hot(small, int(mask.max()) + 1).permute(2, 0, 1)
            propagator = LabelPropagator(descriptors, labels.float(), propagation)
            yield mask.long()
        else:
            yield read_mask(propagator.step(descriptors), descriptors.frame)


def read_mask(labels: Tensor, frame: Frame) -> Tensor:
    """Read which label wins at every pixel, as DINO's evaluation does.

    Args:
        labels: shape (L, rows, columns).
        frame: of the image.

    Returns:
        numbers of labels, int64, shape (H, W) of the image.
    """
    enlarged = F.interpolate(labels[None].float(), frame.model_size, mode="bilinear")[0]
    low, high = enlarged.aminmax(dim=2)
    low, high = low.amin(1)[:, None, None], high.amax(1)[:, None, None]
    # A label that is nowhere stays as it is, as theirs does.
    stretched = (enlarged - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    winners = torch.where(high > 0, stretched, enlarged).argmax(0)
    return _resize_nearest(winners, frame.image_size)


def propagate_points(
    frames: Iterable[DescriptorMap], points: Tensor, propagation: Propagation | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Propagate points through a video.

    Each point is a label of its own, distributed at first over the four tokens around it; its
    position in a frame is the mean of its label within two tokens of where it is strongest. So
    positions lie between tokens, and never beyond the outermost tokens' centres.

    Args:
        frames: descriptors of the frames, one image each; read one by one, as results are taken.
        points: (x, y) in pixels of the first frame, shape (K, 2).
        propagation: the protocol's numbers.

    Yields:
        for every frame, points (x, y) in its pixels, shape (K, 2), and how strong their labels
        are there, in [0, 1], shape (K,), both float32; NaN and 0 where a point's label is lost.
        The first frame's points are as they were given.

    Raises:
        InvalidArgumentError: another shape, points not finite, or as `LabelPropagator` does.

    Example:
        >>> first = DescriptorMap(torch.eye(4).view(1, 4, 2, 2), Frame((8, 8), (8, 8)))
        >>> flipped = DescriptorMap(first.data.flip(3), first.frame)
        >>> [places for places, _ in propagate_points([first, flipped], torch.tensor([[1.5, 1.5]]))]
        [tensor([[1.5000, 1.5000]]), tensor([[5.4996, 1.5004]])]
    """
    check_tensor(points, "points", "(K, 2)")
    check_finite(points, "points")
    propagator: LabelPropagator | None = None
    for descriptors in frames:
        cells = Frame(descriptors.frame.image_size, descriptors.grid)
        if propagator is None:
            labels = _share_out(cells.to_model(points.to(descriptors.data.device)), cells)
            propagator = LabelPropagator(descriptors, labels, propagation)
            yield points.to(labels), labels.flatten(1).amax(1)
        else:
            places, strength = _strongest_places(propagator.step(descriptors))
            yield cells.to_image(places), strength


def _propagate(
    tokens: Tensor,
    known: list[tuple[Tensor, Tensor]],
    grid: tuple[int, int],
    propagation: Propagation,
) -> Tensor:
    """Mix labels (lines * places, L) for the tokens, from known (tokens, labels) of frames.

    The grid's tokens come line by line. Lines are compared with the lines within the radius alone;
    within these, tokens too far along the line are barred.
    """
    lines, places = grid
    radius = max(grid) if propagation.radius is None else propagation.radius
    line, place = (torch.arange(count, device=tokens.device) for count in grid)
    aside = (place[:, None] - place).abs() > radius
    out = []
    for start in range(0, lines, _LINES):
        stop = min(lines, start + _LINES)
        low, high = max(0, start - radius), min(lines, stop + radius)
        away = (line[start:stop, None] - line[low:high]).abs() > radius
        far = (away[:, None, :, None] | aside[None, :, None, :]).flatten(2).flatten(0, 1)
        barrier = tokens.new_zeros(far.shape).masked_fill_(far, -torch.inf)
        queries, near = tokens[start * places : stop * places], slice(low * places, high * places)
        best, labels = [], []
        for their_tokens, their_labels in known:
            cosines = torch.addmm(barrier, queries, their_tokens[near].T)
            found = cosines.topk(min(propagation.top_k, cosines.shape[1]), 1)
            best.append(found.values)
            labels.append(their_labels[near][found.indices])
        values = torch.cat(best, 1)
        found = values.topk(min(propagation.top_k, values.shape[1]), 1)
        weights = (found.values / propagation.temperature).softmax(1)
        chosen = found.indices[..., None].expand(-1, -1, labels[0].shape[-1])
        out.append((torch.cat(labels, 1).gather(1, chosen) * weights[..., None]).sum(1))
    return torch.cat(out)


def _resize_nearest(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize whole numbers (H, W) as Pillow's NEAREST does: the pixel under each centre."""
    y, x = (_nearest(old, new).to(mask.device) for old, new in zip(mask.shape, size, strict=True))
    return mask.long()[y[:, None], x]


def _nearest(old: int, new: int) -> Tensor:
    # Pillow adds steps up, one by one; where a centre lies on an edge, their rounding decides.
    steps = torch.full((new,), old / new, dtype=torch.float64, device="cpu")
    steps[0] /= 2
    return steps.cumsum(0).long().clamp_max(old - 1)


def _share_out(places: Tensor, cells: Frame) -> Tensor:
    """Share points (K, 2), in tokens, out among the tokens around them: (K, rows, columns)."""
    weights = []
    for axis, count in ((1, cells.model_size[0]), (0, cells.model_size[1])):
        place = places[:, axis : axis + 1].clamp(0, count - 1)
        token = torch.arange(count, device=places.device)
        weights.append((1 - (place - token).abs()).clamp_min(0))
    return weights[0][:, :, None] * weights[1][:, None, :]


def _strongest_places(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Read places (x, y) in tokens, shape (K, 2), and strengths, from labels (K, rows, columns)."""
    rows, columns = labels.shape[1:]
    # Sums over 3 x 3 tokens: a label between tokens must not yield to a stray part of it on one.
    best = F.avg_pool2d(labels[None], 3, 1, 1)[0].flatten(1).argmax(1)
    peak = torch.stack([best % columns, best // columns], 1)
    mass = labels * near_places(peak, (rows, columns), _REACH)
    return mean_places(mass / mass.sum((1, 2), keepdim=True)), mass.flatten(1).amax(1)
