"""The values that pass between stages: small, frozen, their shapes stated.

Points are `(x, y)`, sizes `(height, width)`, and `(0, 0)` is the centre of the first pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.utils.precision import widen
from kornia_ditf.utils.values import Check, raise_failed, require


@dataclass(frozen=True, slots=True)
class Frame:
    """How the pixels of an image map onto the pixels that the model saw.

    Both pictures cover the same area, so a pixel's edges map linearly and its centre with them.

    Args:
        image_size: height and width of the image, upright, in pixels.
        model_size: height and width of the image after fitting, in pixels.

    Example:
        >>> frame = Frame(image_size=(480, 640), model_size=(240, 320))
        >>> frame.to_model(torch.tensor([[0.5, 0.5]]))
        tensor([[0., 0.]])
    """

    image_size: tuple[int, int]
    model_size: tuple[int, int]

    def to_model(self, points: Tensor) -> Tensor:
        """Map points (x, y) of the image, shape (..., 2), into the fitted image."""
        return _rescale(points, self.image_size, self.model_size)

    def to_image(self, points: Tensor) -> Tensor:
        """Map points (x, y) of the fitted image, shape (..., 2), back into the image."""
        return _rescale(points, self.model_size, self.image_size)


def _rescale(points: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    # In float64 the way there and back stays below a thousandth of a pixel.
    wide = widen(points)
    ratio = wide.new_tensor([target[1] / source[1], target[0] / source[0]])
    return ((wide + 0.5) * ratio - 0.5).to(torch.promote_types(points.dtype, torch.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """What a transformer is told besides the latent, one row per image.

    Args:
        tensors: named tensors, each with a first axis of 1 (shared by all images) or B.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def expand(self, batch: int) -> Conditioning:
        """Repeat shared rows, so that every tensor has `batch` rows.

        Raises:
            InvalidArgumentError: a tensor has neither 1 nor a divisor of `batch` rows.
        """
        return Conditioning(
            {name: _expand_rows(name, value, batch) for name, value in self.tensors.items()}
        )

    def rows(self, start: int, stop: int) -> Conditioning:
        """Take the rows of some of the images."""
        return Conditioning({name: value[start:stop] for name, value in self.tensors.items()})

    def to(self, device: torch.device, dtype: torch.dtype) -> Conditioning:
        """Move to a device; floating-point tensors take the dtype."""
        return Conditioning(
            {
                name: value.to(device, dtype if value.is_floating_point() else None)
                for name, value in self.tensors.items()
            }
        )


def _expand_rows(name: str, value: Tensor, batch: int) -> Tensor:
    rows = value.shape[0]
    if rows == 0 or batch % rows:
        raise InvalidArgumentError(
            f"conditioning {name!r} has {rows} rows, which do not fit {batch} images: "
            "give one prompt, or one per image"
        )
    # Image-major, as the ensemble is: rows [a, b] for 4 become [a, a, b, b].
    return value.repeat_interleave(batch // rows, dim=0)


@dataclass(frozen=True, slots=True, eq=False)
class TokenNorm:
    """The normalisation of a block's first AdaLN, as the block itself has it.

    Args:
        kind: "layer" (mean and variance) or "rms" (root mean square only).
        eps: the block's own epsilon.
        weight: the affine weight (D,), where the family has one.
        bias: the affine bias (D,), where the family has one.
    """

    kind: Literal["layer", "rms"] = "layer"
    eps: float = 1e-6
    weight: Tensor | None = None
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise each token of x, shape (..., D), over its channels."""
        shape = x.shape[-1:]
        # Tokens may have been averaged in float32 where the block's weights are in bfloat16.
        weight = None if self.weight is None else self.weight.to(x)
        bias = None if self.bias is None else self.bias.to(x)
        if self.kind == "layer":
            return F.layer_norm(x, shape, weight, bias, self.eps)
        return F.rms_norm(x, shape, weight, self.eps)


@dataclass(frozen=True, slots=True, eq=False)
class Tap:
    """A block's input, and the modulation that the block is about to apply to it.

    Args:
        x: the image tokens at the block's first normalisation, shape (B, N, D).
        shift: added after scaling, shape (B, D) or (B, N, D); None where the family has none.
        scale: applied as 1 + scale, same shapes; None where the family has none.
        grid: rows and columns of the tokens; N = rows * columns.
        norm: the block's own normalisation.
    """

    x: Tensor
    shift: Tensor | None
    scale: Tensor | None
    grid: tuple[int, int]
    norm: TokenNorm = field(default_factory=TokenNorm)

    def mean(self, ensemble: int) -> Tap:
        """Average each image's consecutive noise draws: (B * ensemble, ...) -> (B, ...), float32.

        DiTF averages x, shift and scale before it normalises; the order does not commute.
        """
        return self._map(
            lambda value: value.float().reshape(-1, ensemble, *value.shape[1:]).mean(1)
        )

    def __add__(self, other: Tap) -> Tap:
        return Tap._combine([self, other], lambda values: values[0] + values[1])

    def __mul__(self, factor: float) -> Tap:
        return self._map(lambda value: value * factor)

    def rows(self, index: Tensor) -> Tap:
        """Take the rows of some of the images, in any order and as often as they are named."""
        return self._map(lambda value: value[index.to(value.device)])

    @staticmethod
    def cat(taps: Sequence[Tap]) -> Tap:
        """Join the images of several taps of one block."""
        return taps[0] if len(taps) == 1 else Tap._combine(taps, torch.cat)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Tap:
        return Tap._combine([self], lambda values: function(values[0]))

    @staticmethod
    def _combine(taps: Sequence[Tap], function: Callable[[list[Tensor]], Tensor]) -> Tap:
        def combine(values: list[Tensor | None]) -> Tensor | None:
            present = [value for value in values if value is not None]
            return function(present) if present else None

        x = function([tap.x for tap in taps])
        shift, scale = combine([t.shift for t in taps]), combine([t.scale for t in taps])
        return replace(taps[0], x=x, shift=shift, scale=scale)


@dataclass(frozen=True, slots=True)
class Discarded:
    """Channels that were discarded from an image's tokens, and who named them.

    Args:
        channels: in ascending order.
        source: `preset`, `configuration`, `calibration`, `calibration file`, `images described
            together` or `this image`; a fusion joins those of its parts.
    """

    channels: tuple[int, ...]
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class DescriptorMap:
    """Dense descriptors of one image or of a batch of equally large ones.

    Args:
        data: descriptors on the token grid, shape (B, D, rows, columns), not normalised.
        frame: how the image's pixels map onto the model's.
        discarded: what was discarded from each image, B of them; empty where nothing was, or
            nobody told.
        checks: conditions on an accelerator's values that were not read yet; see `check`.

    Raises:
        InvalidArgumentError: data has not four axes, or one is empty.

    Example:
        >>> frame = Frame(image_size=(32, 32), model_size=(32, 32))
        >>> descriptors = DescriptorMap(torch.randn(1, 8, 4, 4), frame)
        >>> descriptors.at(torch.tensor([[[3.5, 3.5]]])).shape
        torch.Size([1, 1, 8])
    """

    data: Tensor
    frame: Frame
    discarded: tuple[Discarded, ...] = ()
    checks: list[Check] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if self.data.ndim != 4 or 0 in self.data.shape:
            raise InvalidArgumentError(
                "descriptor data must have the shape (B, D, rows, columns), "
                f"got {tuple(self.data.shape)}"
            )

    def __len__(self) -> int:
        return self.data.shape[0]

    def __getitem__(self, index: int) -> DescriptorMap:
        """Take one image of the batch, as a map with B = 1."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of a batch of {len(self)}")
        index %= len(self)
        discarded = self.discarded[index : index + 1]
        return DescriptorMap(self.data[index : index + 1], self.frame, discarded, self.checks)

    def __iter__(self) -> Iterator[DescriptorMap]:
        return (self[index] for index in range(len(self)))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the token grid."""
        return self.data.shape[2], self.data.shape[3]

    def check(self) -> None:
        """Raise the error of an image or a model whose values are not sound.

        Describing on an accelerator does not wait for it, so this is known later. `tokens` and `at`
        ask first; call it before anything else is made of `data`.

        Raises:
            InvalidArgumentError: the image is not finite or not in [0, 1].
            CaptureError: a block's input is not finite.
        """
        raise_failed(self.checks)
        self.checks.clear()

    @property
    def tokens(self) -> Tensor:
        """The descriptors token by token, shape (B, rows * columns, D), row by row."""
        self.check()
        return self.data.flatten(2).transpose(1, 2)

    def centres(self) -> Tensor:
        """Return each token's centre (x, y) in image pixels, shape (rows * columns, 2)."""
        rows, columns = self.grid
        height, width = self.frame.image_size
        y = (torch.arange(rows, dtype=torch.float64) + 0.5) * (height / rows) - 0.5
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) * (width / columns) - 0.5
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        return torch.stack([grid_x.flatten(), grid_y.flatten()], -1).float().to(self.data.device)

    def at(self, points: Tensor) -> Tensor:
        """Read descriptors at points of the image.

        Equals upsampling the map to the image's size (bilinear, align_corners=False) and
        indexing it, without making that tensor; between pixels it interpolates likewise.
        A point beyond the image takes the descriptor at its border.

        Args:
            points: (x, y) in image pixels, shape (B, K, 2), or (1, K, 2) for all images.

        Returns:
            descriptors of unit length, shape (B, K, D), float32.

        Raises:
            InvalidArgumentError: a wrong shape, or a point that is not finite.
        """
        if not isinstance(points, Tensor):
            raise InvalidArgumentError(f"points must be a tensor, got {type(points).__name__}")
        if points.ndim != 3 or points.shape[2] != 2 or points.shape[0] not in (1, len(self)):
            raise InvalidArgumentError(
                f"points must have the shape ({len(self)}, K, 2), got {tuple(points.shape)}"
            )
        wrong = InvalidArgumentError("points must be finite, got NaN or infinity among them")
        require(torch.isfinite(points).all(), lambda: wrong)
        self.check()
        height, width = self.frame.image_size
        wide = widen(points)
        grid = (2 * wide + 1) / wide.new_tensor([width, height]) - 1
        grid = grid.float().to(self.data.device).expand(len(self), -1, -1).unsqueeze(2)
        data = self.data.float()
        sampled = F.grid_sample(data, grid, padding_mode="border", align_corners=False)
        return unit_length(sampled.squeeze(3).transpose(1, 2))


def unit_length(vectors: Tensor) -> Tensor:
    """Scale float32 vectors, the last axis, to unit length; zero vectors stay zero."""
    # First by the largest value: the squares of small or large ones would vanish or overflow.
    tiny = torch.finfo(torch.float32).tiny
    largest = vectors.detach().abs().amax(-1, keepdim=True).clamp_min(tiny)
    return F.normalize(vectors / largest, dim=-1, eps=tiny)


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Correspondences between two images, in the pixels of each; or between B pairs of images.

    Args:
        points_a: (x, y) in image A, shape (K, 2) or (B, K, 2).
        points_b: (x, y) in image B, same shape; row i belongs to row i of points_a.
        scores: cosine similarities in [-1, 1], shape (K,) or (B, K).
    """

    points_a: Tensor
    points_b: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return self.scores.shape[-1]

    def best(self, count: int) -> Matches:
        """Keep the matches of highest score, best first, in each pair of images."""
        order = self.scores.argsort(dim=-1, descending=True, stable=True)[..., :count]
        rows = order.unsqueeze(-1).expand(*order.shape, 2)
        return Matches(
            self.points_a.gather(-2, rows),
            self.points_b.gather(-2, rows),
            self.scores.gather(-1, order),
        )
