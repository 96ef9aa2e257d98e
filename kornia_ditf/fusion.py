"""Fusion of several dense descriptors: each of unit length, weighted, concatenated.

Source: "A Tale of Two Features" (arXiv 2305.15347), whose released code (sd-dino) fuses Stable
Diffusion and DINOv2 so: each is divided by its length at every token, and the two are concatenated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from kornia_ditf.dense import DenseDescriptor, DescriptorSpec
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.joint import PCA, check_pca
from kornia_ditf.preprocess import ImageLike
from kornia_ditf.types import DescriptorMap, Frame
from kornia_ditf.types.joining import join_maps
from kornia_ditf.utils.checks import check_integer

Grid = Literal["finest", "first"] | tuple[int, int]


class FusedDescriptor(DenseDescriptor):
    """Several dense descriptors concatenated into one, with weights.

    With weights w, the cosine of two fused descriptors is the mean of the parts' cosines, weighted
    by the squares of w.

    Args:
        parts: the descriptors.
        weights: one number per part, not negative and not all zero; None weighs all alike.
        grid: where the parts' grids differ, all are resampled (bilinear, align_corners=False) to
            the `finest` of them, to the `first` part's, or to stated (rows, columns).
        pca: joint PCA by which pairs are reduced when they are matched, in all or by part; see
            `joint_pca`.

    Raises:
        InvalidArgumentError: there is no part, or a weight, the grid or `pca` is wrong.

    Example:
        >>> from kornia_ditf import create_descriptor
        >>> coarse, fine = (create_descriptor("nano", long_side=side) for side in (64, 128))
        >>> fused = FusedDescriptor([coarse, fine], weights=[1.0, 0.5])
        >>> fused(torch.rand(1, 3, 64, 64)).data.shape
        torch.Size([1, 320, 32, 32])
    """

    def __init__(
        self,
        parts: Sequence[DenseDescriptor],
        *,
        weights: Sequence[float] | None = None,
        grid: Grid = "finest",
        pca: PCA = 0,
    ) -> None:
        super().__init__()
        if not parts or not all(isinstance(part, DenseDescriptor) for part in parts):
            raise InvalidArgumentError(f"parts must be dense descriptors, got {parts!r}")
        self.parts = nn.ModuleList(parts)
        self.weights = _check_weights(weights, len(parts))
        self.grid = _check_grid(grid)
        self.pca = check_pca(pca)

    __repr__ = nn.Module.__repr__

    def extra_repr(self) -> str:
        return f"width={self.width}, weights={self.weights}, grid={self.grid!r}"

    @property
    def width(self) -> int:
        return sum(part.width for part in self.descriptors)

    @property
    def identity(self) -> str | None:
        names = [part.identity for part in self.descriptors]
        if None in names:
            return None
        return f"fused {self.weights} {self.grid} of {names}"

    @property
    def token_norm(self) -> float:
        return math.hypot(*self.weights)

    @property
    def descriptors(self) -> list[DenseDescriptor]:
        """The parts."""
        return [part for part in self.parts if isinstance(part, DenseDescriptor)]

    @property
    def long_side(self) -> int | None:
        return self.descriptors[0].long_side

    def with_long_side(self, long_side: int) -> FusedDescriptor:
        ratio = long_side / (self.long_side or long_side)
        parts = [
            part.with_long_side(round((part.long_side or long_side) * ratio))
            for part in self.descriptors
        ]
        return self.of(parts)

    def of(self, parts: Sequence[DenseDescriptor]) -> FusedDescriptor:
        """Return the same fusion of other parts."""
        return FusedDescriptor(parts, weights=self.weights, grid=self.grid, pca=self.pca)

    def forward(
        self, image: ImageLike, prompts: str | Sequence[str] | None = None
    ) -> DescriptorMap:
        """Describe an image, or a batch of equally large ones, by every part.

        Args:
            image: as `DenseDescriptor.forward` takes it.
            prompts: given to every part.

        Returns:
            descriptors (B, D, rows, columns), float32, D the sum of the parts' widths.

        Raises:
            InvalidArgumentError: an image or the prompts do not fit one of the parts.
            ImageError: a file cannot be read, or an image is too small for one of the parts.
        """
        return self._fuse([part(image, prompts) for part in self.descriptors])

    def describe_together(
        self, images: Sequence[ImageLike], prompts: str | Sequence[str] | None = None
    ) -> list[DescriptorMap]:
        by_part = [part.describe_together(images, prompts) for part in self.descriptors]
        return [self._fuse(maps) for maps in zip(*by_part, strict=True)]

    def _fuse(self, maps: Sequence[DescriptorMap]) -> DescriptorMap:
        grid = self._choose_grid(maps)
        seen = next((each.frame for each in maps if each.grid == grid), maps[0].frame)
        frame = Frame(maps[0].frame.image_size, seen.model_size)
        resampled = [replace(each, data=resample(each.data, grid), frame=frame) for each in maps]
        return join_maps(resampled, self.weights)

    def _choose_grid(self, maps: Sequence[DescriptorMap]) -> tuple[int, int]:
        if isinstance(self.grid, tuple):
            return self.grid
        if self.grid == "first":
            return maps[0].grid
        return max((each.grid for each in maps), key=math.prod)


def resample(data: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resample descriptors (B, D, rows, columns) to another grid of the same image, bilinearly."""
    if data.shape[2:] == grid:
        return data
    return F.interpolate(data.float(), grid, mode="bilinear", align_corners=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion(DescriptorSpec):
    """A fusion of several descriptors, given by their names.

    Args:
        load: `load_fusion` of this and of what makes a part; the registry sets it.
        parts: names of descriptors.
        part_options: a part's name to the options that it is made with.
        plugins: maps a part's name to the distribution that adds it, unless it is built in.
        weights: one number per part.
        grid: see `FusedDescriptor`.
    """

    load: Callable[..., DenseDescriptor] = FusedDescriptor
    parts: tuple[str, ...]
    part_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plugins: Mapping[str, str] = field(default_factory=dict)
    weights: tuple[float, ...] | None = None
    grid: Grid = "finest"


def load_fusion(
    fusion: Fusion,
    create: Callable[..., DenseDescriptor],
    *,
    weights: Sequence[float] | None = None,
    grid: Any = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    **shared: Any,
) -> FusedDescriptor:
    """Create the parts of a fusion, and fuse them.

    Args:
        fusion: which.
        create: makes a part; called with its name, the plugin that adds it, and its options.
        weights: instead of the fusion's own.
        grid: likewise.
        options: a part's name to its options; they come before `shared`, and these before the
            fusion's own.
        shared: options of every part, such as dtype and device.

    Raises:
        InvalidArgumentError: options are for no part; or as `FusedDescriptor`.
        MissingExtraError: a part's plugin is not installed; the message says which.
    """
    by_part = options_of_parts(fusion, options or {}, shared)
    parts = [create(part, fusion.plugins.get(part), **own) for part, own in by_part]
    return FusedDescriptor(
        parts,
        weights=fusion.weights if weights is None else weights,
        grid=fusion.grid if grid is None else grid,
        pca=fusion.pca,
    )


def options_of_parts(
    fusion: Fusion, options: Mapping[str, Mapping[str, Any]], shared: Mapping[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """Return each part's name with the options that it is made with; arguments of `load_fusion`.

    Raises:
        InvalidArgumentError: options are for no part.
    """
    for part in options:
        if part not in fusion.parts:
            raise InvalidArgumentError(
                f"options must be by parts of {fusion.name} ({', '.join(fusion.parts)}), "
                f"got {part!r}"
            )
    return [
        (part, {**fusion.part_options.get(part, {}), **shared, **options.get(part, {})})
        for part in fusion.parts
    ]


FUSIONS = (
    Fusion(
        name="sd-dino",
        parts=("sd1.5", "dinov2-base"),
        part_options={"sd1.5": {"long_side": 960, "timestep": 100, "ensemble": 1}},
        plugins={"sd1.5": "kornia-ditf-sd", "dinov2-base": "kornia-ditf-dino"},
        width=1280 + 768,
        pixels_per_token=14,
        source="uncalibrated; sd-dino's weights, timestep, image sizes and DINOv2 layer "
        "(arXiv 2305.15347); of Stable Diffusion it takes one block as DIFT does, not three "
        "reduced together by PCA",
        license="CreativeML OpenRAIL-M; Apache-2.0",
    ),
    Fusion(
        name="ditf-dino",
        parts=("flux.1-dev", "dinov2-base"),
        plugins={"dinov2-base": "kornia-ditf-dino"},
        width=3072 + 768,
        pixels_per_token=14,
        source="uncalibrated; equal weights of the two presets flux.1-dev and dinov2-base",
        license="FLUX.1 [dev] Non-Commercial License; Apache-2.0",
    ),
    Fusion(
        name="ditf-dino-dagger",
        parts=("flux.1-dev-960", "dinov2-base"),
        plugins={"dinov2-base": "kornia-ditf-dino"},
        pca=1280,
        width=3072 + 768,
        pixels_per_token=14,
        source="uncalibrated; rows marked with a dagger of DiTF (arXiv 2505.18584, second-hand): "
        "DINOv2's tokens of layer 11, joint PCA to 1280. Assumed: DINOv2-B at sd-dino's 840 "
        "pixels, equal weights, PCA of the tokens of both together (sd-dino reduces the diffusion "
        "model's alone: pca=(1280, 0))",
        license="FLUX.1 [dev] Non-Commercial License; Apache-2.0",
        protocol="ditf-spair-dagger",
    ),
)


def _check_weights(weights: Sequence[float] | None, parts: int) -> tuple[float, ...]:
    found = (1.0,) * parts if weights is None else tuple(weights)
    numbers = all(isinstance(w, Real) and 0 <= w < math.inf for w in found)
    if len(found) != parts or not numbers or not any(found):
        raise InvalidArgumentError(
            f"weights must be {parts} numbers, one per part, not negative and not all zero, "
            f"got {weights!r}"
        )
    return tuple(float(weight) for weight in found)


def _check_grid(grid: Any) -> Grid:
    if isinstance(grid, str) and grid in ("finest", "first"):
        return "finest" if grid == "finest" else "first"
    if not isinstance(grid, list | tuple) or len(grid) != 2:
        raise InvalidArgumentError(
            f"grid must be 'finest', 'first' or (rows, columns), got {grid!r}"
        )
    for side in grid:
        check_integer("a side of grid", side, minimum=1)
    return (int(grid[0]), int(grid[1]))
