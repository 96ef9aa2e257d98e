"""Upsamplers as values, with how much they enlarge; specs by name, and reading them from a text."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from kornia_ditf.errors import DiTFError, InvalidArgumentError, MissingExtraError, PluginError
from kornia_ditf.preprocess import ImageLike, as_image, squash_image
from kornia_ditf.types import DescriptorMap
from kornia_ditf.upsamplers.filters import (
    WORKING_BYTES,
    Upsampling,
    adapt_module,
    bilinear,
    joint_bilateral,
)
from kornia_ditf.upsamplers.learned import ANYUP, FEATUP, anyup, featup, lacks
from kornia_ditf.utils.checks import check_number, check_spec, did_you_mean

FACTOR = 2.0
LIMIT_GB = 2.0


class Upsampler:
    """Upsamples descriptor maps, guided by their images.

    Args:
        function: called with the image (B, 3, H, W) in [0, 1], the features (B, D, rows, columns)
            and the size (rows, columns) of the result, which covers the same area; or a module
            such as AnyUp's, `module(image, features[, output_size])` (see `adapt_module`).
        factor: how many times as many rows and columns the result has, at least 1.
        stride: instead of a factor, pixels of the fitted image from one token to the next.
        limit_gb: largest map that is made, in GB; a larger one is an error that says its size.
        name: names all that decides the numbers; None means that maps must not be cached.

    Raises:
        InvalidArgumentError: a number is out of range, or the function is not callable.

    Example:
        >>> from kornia_ditf.types import Frame
        >>> described = DescriptorMap(torch.randn(1, 8, 4, 5), Frame((64, 80), (64, 80)))
        >>> Upsampler(bilinear, factor=4)(described, torch.rand(3, 64, 80))
        DescriptorMap(80 x 64 px, 20 x 16 tokens, 8 channels, float32 on cpu)
    """

    def __init__(
        self,
        function: Upsampling | nn.Module,
        *,
        factor: float = FACTOR,
        stride: float | None = None,
        limit_gb: float = LIMIT_GB,
        name: str | None = None,
    ) -> None:
        if not callable(function):
            raise InvalidArgumentError(
                f"an upsampler is a function or a module, got {type(function).__name__}"
            )
        check_number("factor", factor, "[1, inf)")
        if stride is not None:
            check_number("stride", stride, "(0, inf)")
        check_number("limit_gb", limit_gb, "(0, inf)")
        self.function = function
        self.factor, self.stride, self.limit_gb, self.name = factor, stride, limit_gb, name

    def __repr__(self) -> str:
        by = f"factor={self.factor:g}" if self.stride is None else f"stride={self.stride:g}"
        return f"Upsampler({self.name or self.function}, {by}, limit_gb={self.limit_gb:g})"

    def __str__(self) -> str:
        return self.name or type(self.function).__name__

    def __call__(
        self, described: DescriptorMap, image: ImageLike, *, token_norm: float | None = None
    ) -> DescriptorMap:
        """Upsample the map of an image, or of a batch of them.

        Args:
            described: the map.
            image: what it describes, whole, as for `as_image`; of any size.
            token_norm: scale every descriptor to this length, where those of the map have it.

        Returns:
            a map on the finer grid, of the same frame, dtype and device. A token's centre still
            lies where `DescriptorMap.centres` says.

        Raises:
            InvalidArgumentError: the grid would be coarser than it is, the map larger than
                `limit_gb`, or the images are not as many as the map's.
        """
        grid = self.grid(described)
        data = described.data
        self.check_size(grid, data.shape[1], data.element_size(), len(described))
        pixels = as_image(image).to(data.device)
        if len(pixels) != len(described):
            raise InvalidArgumentError(
                f"a map of {len(described)} images is upsampled with as many, got {len(pixels)}"
            )
        if tuple(pixels.shape[2:]) != described.frame.model_size:
            pixels = squash_image(pixels, described.frame.model_size)[0]
        function = self.function
        if isinstance(function, nn.Module):
            function = adapt_module(function)
        fine = function(pixels.float(), data, grid)
        if fine.shape != (*data.shape[:2], *grid):
            raise InvalidArgumentError(
                f"the upsampler {self} must return the shape {(*data.shape[:2], *grid)}, got "
                f"{tuple(fine.shape)}"
            )
        if token_norm is not None:
            norms = torch.linalg.vector_norm(fine, dim=1, keepdim=True, dtype=torch.float32)
            scale = (token_norm / norms.clamp_min(torch.finfo(torch.float32).tiny)).to(fine.dtype)
            fine = fine * scale if fine.requires_grad else fine.mul_(scale)
        return replace(described, data=fine.to(data.dtype))

    def grid(self, described: DescriptorMap) -> tuple[int, int]:
        """Return the rows and columns that a map will have.

        Raises:
            InvalidArgumentError: fewer than it has.
        """
        if self.stride is None:
            rows, columns = (round(side * self.factor) for side in described.grid)
            return rows, columns
        height, width = described.frame.model_size
        grid = max(1, round(height / self.stride)), max(1, round(width / self.stride))
        if grid[0] < described.grid[0] or grid[1] < described.grid[1]:
            token = height / described.grid[0]
            raise InvalidArgumentError(
                f"a stride of {self.stride:g} px is coarser than the tokens, which are "
                f"{token:.3g} px apart"
            )
        return grid

    def times(self, pixels_per_token: float) -> float:
        """Return how many times as many tokens there will be, up to rounding."""
        each = self.factor if self.stride is None else pixels_per_token / self.stride
        return each**2

    def check_size(self, grid: tuple[int, int], width: int, itemsize: int, images: int = 1) -> None:
        """Raise InvalidArgumentError if maps of this grid and width exceed the limit."""
        needed = images * width * math.prod(grid) * itemsize / 1e9
        if needed <= self.limit_gb:
            return
        smaller = math.floor(10 * self.factor * math.sqrt(self.limit_gb / needed)) / 10
        advice = f"a factor of {smaller:g}, " if self.stride is None and smaller > 1 else ""
        typed = re.sub(r"\)$", "", self.name or "NAME(")
        raise InvalidArgumentError(
            f"upsampled by {self}, {images} map{'s' if images > 1 else ''} of {grid[1]} x "
            f"{grid[0]} tokens with {width} channels would take {needed:.2f} GB, and up to "
            f"{WORKING_BYTES / 1e9:.2f} GB more during the computation; the limit is "
            f"{self.limit_gb:g} GB. Use {advice}a larger stride or fewer images at a time, or "
            f"raise the limit: '{typed}, limit={math.ceil(needed)})'"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UpsamplerSpec:
    """Description of an upsampler, as plugins register it.

    Args:
        name: what the user types: lower-case letters, digits, `-` and `_`.
        load: returns the function, or a module (see `Upsampler`). It is called with what stands in
            the parentheses after the factor, numbers or words, when a map is first upsampled.
        source: where the method comes from.
        license: licence of code and weights.
        lacks: returns what is missing here for it to be loaded, with the command that brings it;
            an empty text where nothing is known to be missing. It must not load a model.

    Raises:
        InvalidArgumentError: the name is malformed, or a value is missing.
    """

    name: str
    load: Callable[..., Upsampling | nn.Module]
    source: str
    license: str = "Apache-2.0"
    lacks: Callable[[], str] = lambda: ""

    def __post_init__(self) -> None:
        check_spec(self, ("name", "source", "license"))
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", self.name):
            raise InvalidArgumentError(
                "the name of an upsampler must be of lower-case letters, digits, - and _, "
                f"got {self.name!r}"
            )


def _joint_bilateral(sigma_color: float = 0.3) -> Upsampling:
    if not isinstance(sigma_color, int | float) or not 0 < sigma_color < math.inf:
        raise InvalidArgumentError(
            f"sigma_color of joint_bilateral must be above 0, got {sigma_color!r}"
        )
    return partial(joint_bilateral, sigma_color=sigma_color)


UPSAMPLERS = (
    UpsamplerSpec(
        name="bilinear", load=lambda: bilinear, source="interpolation between tokens' centres"
    ),
    UpsamplerSpec(
        name="joint_bilateral", load=_joint_bilateral, source="Kopf et al., SIGGRAPH 2007"
    ),
    UpsamplerSpec(
        name="anyup",
        load=anyup,
        source="Wimmer et al., arXiv 2510.12764",
        license="CC-BY-4.0",
        lacks=partial(lacks, "anyup", ANYUP),
    ),
    UpsamplerSpec(
        name="featup",
        load=featup,
        source="Fu et al., arXiv 2403.10516",
        license="MIT",
        lacks=partial(lacks, "featup", FEATUP),
    ),
)


def parse_upsampler(text: str, specs: Iterable[UpsamplerSpec] = ()) -> Upsampler:
    """Parse an upsampler, `NAME`, `NAME(FACTOR)` or `NAME(STRIDEpx)`, without loading it.

    Args:
        text: a name, and in parentheses how many times finer the grid becomes (2 where it does not
            say), or how many pixels of the fitted image tokens are apart (`4px`); then the
            upsampler's own values, and `limit=GB`.
        specs: those of plugins (`find_upsampler` knows the installed ones), beside `UPSAMPLERS`.

    Raises:
        InvalidArgumentError: there is no such upsampler, or a value is wrong.
        MissingExtraError: a package that it needs is not installed.

    Example:
        >>> parse_upsampler("joint_bilateral(4)")
        Upsampler(joint_bilateral(4, 0.3), factor=4, limit_gb=2)
        >>> parse_upsampler("bilinear(2px, limit=8)")
        Upsampler(bilinear(2px), stride=2, limit_gb=8)
    """
    known = {spec.name: spec for spec in (*UPSAMPLERS, *specs)}
    called = re.fullmatch(r"\s*([^\s()]+)\s*(?:\(([^()]*)\))?\s*", str(text))
    spec = known.get(called[1]) if called else None
    if called is None or spec is None:
        name = called[1] if called else text
        raise InvalidArgumentError(
            f"upsample must be one of {', '.join(known)}, with a factor or a stride in "
            f"parentheses: 'bilinear(4)' or 'bilinear(2px)'; got {str(text)!r}"
            f"{did_you_mean(name, known)}"
        )
    written = [each.strip() for each in (called[2] or "").split(",") if each.strip()]
    scale: dict[str, Any] = {}
    for value in [each for each in written if each.startswith("limit=")]:
        written.remove(value)
        scale["limit_gb"] = _read_number(value.removeprefix("limit="), text)
    amount = written.pop(0) if written else f"{FACTOR:g}"
    kind = "stride" if amount.endswith("px") else "factor"
    scale[kind] = _read_number(amount.removesuffix("px").strip(), text)
    unit = "px" if kind == "stride" else ""
    values = [_read_number(v, text) if re.match(r"[\d.]", v) else v for v in written]
    values += _defaults(spec)[len(values) :]
    shown = ", ".join([f"{scale[kind]:g}{unit}", *map(str, values)])
    if len(values) > len(_defaults(spec)):
        usage = ", ".join(["FACTOR", *inspect.signature(spec.load).parameters])
        raise InvalidArgumentError(f"the upsampler is {spec.name}({usage}), got {str(text)!r}")
    reason = spec.lacks()
    if reason:
        raise MissingExtraError(f"the upsampler {spec.name} cannot be used: {reason}")
    return Upsampler(_function_of(spec, values), name=f"{spec.name}({shown})", **scale)


def _function_of(spec: UpsamplerSpec, values: list[Any]) -> Upsampling:
    """Return the function of a spec, which is loaded when it is first called."""

    @cache
    def load() -> Upsampling:
        try:
            loaded = spec.load(*values)
        except DiTFError:
            raise
        except Exception as error:
            raise PluginError(f"cannot load the upsampler {spec.name!r}: {error}") from error
        return adapt_module(loaded) if isinstance(loaded, nn.Module) else loaded

    return lambda image, features, size: load()(image, features, size)


def _defaults(spec: UpsamplerSpec) -> list[Any]:
    return [each.default for each in inspect.signature(spec.load).parameters.values()]


def _read_number(text: str, whole: object) -> float:
    if not re.fullmatch(r"\d+(?:\.\d+)?", text):
        raise InvalidArgumentError(f"upsample={str(whole)!r} must hold numbers, got {text!r}")
    return float(text)
