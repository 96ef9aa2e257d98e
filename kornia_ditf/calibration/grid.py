"""The settings that a calibration chooses among, and what each costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, NamedTuple

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.config import DiTFConfig
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.treatments import TREATMENTS, parse_treatment
from kornia_ditf.utils.checks import check_integer, check_timestep

TIMESTEPS = (0, 25, 50, 100, 150, 200, 250, 300, 400, 500, 650, 800)
"""The timesteps that are tried where none are named."""

_ASPECT = 0.75  # of a usual photograph, shorter side to longer
_LEFT = frozenset({"prompt", "seed", "rows_per_forward", "checks"})


def check_options(names: Iterable[str]) -> None:
    """Refuse options of a descriptor that calibration chooses itself, or that no preset holds.

    Raises:
        InvalidArgumentError: one of them is named.
    """
    chosen = {field.name for field in fields(DiTFConfig)} - _LEFT
    for name in names:
        if name in chosen | {"preset", "projection", "tiles", "upsample"}:
            raise InvalidArgumentError(
                f"calibration has no option {name}: the grid is set by blocks, timesteps, "
                "long-sides, draws and treatment, and a preset holds one block's input at one "
                "timestep"
            )


class Forward(NamedTuple):
    """What one forward pass of an image depends on; it serves all blocks and treatments."""

    timestep: float
    long_side: int
    draws: int


class Cell(NamedTuple):
    """One setting of the grid."""

    timestep: float
    long_side: int
    draws: int
    block: int
    treatment: str

    @property
    def forward(self) -> Forward:
        """The forward pass that serves this setting."""
        return Forward(self.timestep, self.long_side, self.draws)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The settings among which a calibration chooses.

    Args:
        blocks: counted from 0 through all block lists.
        timesteps: the paper's, in [0, 1000].
        long_sides: of the fitted image, in pixels.
        treatments: as in `DiTFConfig`.
        draws: numbers of noise draws; the smallest is searched, the others are tried last.

    Raises:
        InvalidArgumentError: a list is empty or a value is out of range.
    """

    blocks: tuple[int, ...]
    timesteps: tuple[float, ...]
    long_sides: tuple[int, ...]
    treatments: tuple[str, ...] = TREATMENTS
    draws: tuple[int, ...] = (1, 2, 4, 8)

    def __post_init__(self) -> None:
        for field in fields(self):
            values = getattr(self, field.name)
            if not values:
                raise InvalidArgumentError(f"{field.name} must not be empty")
            object.__setattr__(self, field.name, tuple(dict.fromkeys(values)))
        for name, least in (("blocks", 0), ("long_sides", 1), ("draws", 1)):
            for value in getattr(self, name):
                check_integer(name, value, minimum=least)
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))
        for timestep in self.timesteps:
            check_timestep(timestep)
        object.__setattr__(self, "treatments", tuple(map(parse_treatment, self.treatments)))

    @classmethod
    def of(cls, spec: BackboneSpec, **given: Iterable[object] | None) -> Grid:
        """Return the grid of a backbone: all its blocks, and its preset's side from 1/2 to 3/2.

        Args:
            spec: of the backbone.
            given: fields that replace the usual ones; those that are None do not.

        Raises:
            InvalidArgumentError: a value is out of range.
        """
        token = spec.pixels_per_token
        sides = [
            max(token, round(spec.long_side * f / token) * token) for f in (0.5, 2 / 3, 1, 1.5)
        ]
        usual: dict[str, Any] = {
            "blocks": range(spec.blocks),
            "timesteps": TIMESTEPS,
            "long_sides": sides,
        }
        grid = cls(**usual | {name: value for name, value in given.items() if value is not None})
        check_integer(f"blocks of {spec.name}", grid.blocks[-1], 0, spec.blocks - 1)
        return grid

    def whole(self, images: int, cost: CostModel) -> tuple[int, float]:
        """Return the noisy images and operations of every setting on so many images."""
        forwards = [
            Forward(timestep, side, self.draws[-1] if timestep else 1)
            for timestep, side in product(self.timesteps, self.long_sides)
        ]
        flops = sum(cost.flops(forward, self.blocks[-1]) for forward in forwards)
        return images * sum(forward.draws for forward in forwards), images * flops

    @property
    def size(self) -> int:
        """Number of settings."""
        noisy = sum(bool(timestep) for timestep in self.timesteps)
        draws = noisy * len(self.draws) + len(self.timesteps) - noisy
        return draws * len(self.long_sides) * len(self.blocks) * len(self.treatments)


@dataclass(frozen=True, slots=True)
class CostModel:
    """Estimates floating-point operations from the width and the size of a token.

    A block takes 24 N D^2 + 4 N^2 D operations for N tokens of D channels (queries, keys, values,
    output and a feed-forward of 4 D; attention). The image encoder is not counted.

    Args:
        width: channels D.
        pixels_per_token: side of the square of pixels that a token covers.

    Example:
        >>> CostModel(width=100, pixels_per_token=16).flops(Forward(0, 320, 1), block=0)
        108000000.0
    """

    width: int
    pixels_per_token: int

    def tokens(self, long_side: int) -> float:
        """Return the number of tokens of a photograph of 4:3 with a longest side."""
        return _ASPECT * (long_side / self.pixels_per_token) ** 2

    def flops(self, forward: Forward, block: int) -> float:
        """Return the operations of describing one image up to a block's input."""
        tokens, width = self.tokens(forward.long_side), self.width
        return forward.draws * (block + 1) * (24 * tokens * width**2 + 4 * tokens**2 * width)

    def cell_flops(self, cell: Cell) -> float:
        """Return the operations of describing one image with a setting."""
        values = self.tokens(cell.long_side) * self.width
        treatment = parse_treatment(cell.treatment).cost(self.width)
        return self.flops(cell.forward, cell.block) + values * treatment
