"""Descriptors and descriptor maps that the demo keeps, and what it computes with them.

Nothing here knows of a browser: a page, a notebook or a test calls the same methods.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import blake2b
from threading import RLock
from typing import Any, TypeAlias

import torch
from torch import Tensor

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.config import DiTFConfig
from kornia_ditf.dense import DenseDescriptor, DescriptorSpec
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.fusion import FusedDescriptor
from kornia_ditf.matching.keypoints import TopK, match_points
from kornia_ditf.matching.similarity import token_cosines
from kornia_ditf.registry.lookup import create_descriptor, create_ditf, find_descriptor
from kornia_ditf.search.verified import ImageMatches, match_images
from kornia_ditf.types import DescriptorMap
from kornia_ditf.utils.checks import check_one_of
from kornia_ditf.viz.inspection import Inspection, inspect_channels

Point: TypeAlias = tuple[float, float]
_KEPT_MAPS = 16
_PLACES = 5
_SEPARATION = 40
"""The other places that look alike lie at least an image's longest side over this apart."""
_MOST_CELLS = 24


@dataclass(frozen=True, slots=True)
class Setting:
    """A descriptor and the settings that a user chose for it; None keeps the preset's.

    Args:
        descriptor: one of the names that the studio offers.
        block: the transformer block whose input is taken.
        timestep: the amount of noise, from 0 to 1000.
        treatment: one of `kornia_ditf.TREATMENTS`.
        fused_with: a second descriptor, at its preset, that is fused with the first.
    """

    descriptor: str
    block: int | None = None
    timestep: float | None = None
    treatment: str | None = None
    fused_with: str | None = None

    def changes(self) -> dict[str, Any]:
        """The settings that differ from the preset, as options of `create_descriptor`."""
        return {
            name: value
            for name in ("block", "timestep", "treatment")
            if (value := getattr(self, name)) is not None
        }


@dataclass(frozen=True, slots=True)
class Location:
    """Where a point of image A lies in image B.

    Args:
        point: (x, y) in pixels of A.
        places: the most similar places of B, best first, (x, y) in pixels of B.
        scores: their cosines.
        similarity: cosine of each token of B with the point's descriptor, shape (rows, columns).
        returned: where the best place lies in A when it is looked up in turn.
    """

    point: tuple[float, float]
    places: tuple[tuple[float, float], ...]
    scores: tuple[float, ...]
    similarity: Tensor
    returned: tuple[float, float]

    @property
    def cycle_error(self) -> float:
        """Distance in pixels of A between the point and what the best place returns to."""
        (x, y), (u, v) = self.point, self.returned
        return float(((x - u) ** 2 + (y - v) ** 2) ** 0.5)


class Studio:
    """Descriptors for a demo: loaded once, used by one request at a time, with a bounded cache.

    Args:
        names: the descriptors on offer, as `create_descriptor` takes them.
        options: further options for all of them, such as `device` or `dtype`.

    Raises:
        InvalidArgumentError: no name is given.
        UnknownBackboneError: there is no such descriptor.

    Example:
        >>> studio = Studio(["nano"])
        >>> image = torch.rand(1, 3, 64, 64)
        >>> studio.locate(Setting("nano"), image, image, (20.0, 30.0)).places[0]
        (20.0, 30.0)
    """

    def __init__(self, names: Sequence[str], **options: Any) -> None:
        if not names:
            raise InvalidArgumentError("name at least one descriptor for the demo, such as nano")
        self.specs = {name: find_descriptor(name) for name in names}
        self.options = options
        self._lock = RLock()
        self._loaded: dict[str, DenseDescriptor] = {}
        self._maps: OrderedDict[Hashable, DescriptorMap] = OrderedDict()

    def descriptor(self, setting: Setting) -> DenseDescriptor:
        """Return the descriptor of a setting; weights are loaded when first used.

        Raises:
            InvalidArgumentError: it is not on offer, or a setting is out of range.
        """
        with self._lock:
            first = self._single(setting)
            if setting.fused_with is None:
                return first
            return FusedDescriptor([first, self._single(Setting(setting.fused_with))])

    def describe(self, setting: Setting, image: Tensor) -> DescriptorMap:
        """Describe an image (1, 3, H, W); maps of the last images are kept."""
        pixels = image.detach().cpu().contiguous().numpy()
        key = setting, pixels.shape, blake2b(pixels.tobytes()).digest()
        with self._lock:
            if key not in self._maps:
                self._maps[key] = self.descriptor(setting)(image)
                while len(self._maps) > _KEPT_MAPS:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(key)
            return self._maps[key]

    def locate(self, setting: Setting, image_a: Tensor, image_b: Tensor, point: Point) -> Location:
        """Find a point of image A in image B.

        Args:
            setting: the descriptor.
            image_a: shape (1, 3, H, W), RGB in [0, 1].
            image_b: the same for image B; its size may differ.
            point: (x, y) in pixels of A.

        Raises:
            InvalidArgumentError: the point lies outside A, or the setting is not usable.
        """
        _check_point(point, image_a)
        map_a, map_b = self.describe(setting, image_a), self.describe(setting, image_b)
        best = TopK(count=_PLACES, apart=max(image_b.shape[-2:]) // _SEPARATION)
        found = match_points(map_a, torch.tensor([point]), map_b, decode=best)
        kept = found.scores[0].isfinite()
        places, scores = found.points_b[0][kept], found.scores[0][kept]
        back = match_points(map_b, places[:1], map_a).points_b[0]
        return Location(
            point,
            tuple((x, y) for x, y in places.tolist()),
            tuple(scores.tolist()),
            token_cosines(map_a, point, map_b),
            (float(back[0]), float(back[1])),
        )

    def match(
        self, setting: Setting, image_a: Tensor, image_b: Tensor, *, search: bool = False
    ) -> ImageMatches:
        """Match two images and verify the matches by a homography; see `match_images`."""
        maps = [self.describe(setting, image) for image in (image_a, image_b)]
        with self._lock:
            return match_images(
                image_a,
                image_b,
                self.descriptor(setting),
                search="both" if search else "none",
                maps=maps,
            )

    def inspect(self, setting: Setting, image: Tensor, point: Point) -> Inspection:
        """Measure the channels of every block, and what the treatments make of one image.

        Raises:
            InvalidArgumentError: the descriptor is no Diffusion Transformer.
        """
        with self._lock:
            ditf = self._ditf(setting, reach=self._backbone_spec(setting).blocks - 1)
            return inspect_channels(ditf, [image], point=point)

    def sweep(
        self,
        setting: Setting,
        image_a: Tensor,
        image_b: Tensor,
        point: Point,
        blocks: Sequence[int],
        timesteps: Sequence[float],
    ) -> dict[tuple[int, float], Tensor]:
        """Compare a point of A with B's tokens at several blocks and timesteps.

        Returns:
            cosines of shape (rows, columns) by (block, timestep).

        Raises:
            InvalidArgumentError: the descriptor is no Diffusion Transformer, or the grid is empty
                or has more than 24 cells.
        """
        _check_point(point, image_a)
        if not 0 < len(blocks) * len(timesteps) <= _MOST_CELLS:
            raise InvalidArgumentError(
                f"choose 1 to {_MOST_CELLS} combinations of block and timestep, got "
                f"{len(blocks)} x {len(timesteps)}"
            )
        cells: dict[tuple[int, float], Tensor] = {}
        with self._lock:
            for timestep in timesteps:
                ditf = self._ditf(replace(setting, timestep=timestep), reach=max(blocks))
                maps_a, maps_b = (
                    ditf.describe_blocks(image, blocks) for image in (image_a, image_b)
                )
                for block in blocks:
                    cells[block, timestep] = token_cosines(maps_a[block], point, maps_b[block])
        return cells

    def _spec(self, setting: Setting) -> BackboneSpec | DescriptorSpec:
        check_one_of("descriptor", setting.descriptor, self.specs)
        return self.specs[setting.descriptor]

    def _backbone_spec(self, setting: Setting) -> BackboneSpec:
        spec = self._spec(setting)
        if not isinstance(spec, BackboneSpec):
            raise InvalidArgumentError(
                f"{spec.name} is not a Diffusion Transformer, so it has no blocks to inspect; "
                "choose another descriptor, or leave block, timestep and treatment empty"
            )
        return spec

    def _single(self, setting: Setting) -> DenseDescriptor:
        if setting.changes() or isinstance(self._spec(setting), BackboneSpec):
            return self._ditf(setting)
        name = setting.descriptor
        if name not in self._loaded:
            self._loaded[name] = create_descriptor(name, **self.options)
        return self._loaded[name]

    def _ditf(self, setting: Setting, *, reach: int = 0) -> DiTF:
        """Return a DiTF whose backbone is loaded at least up to a block."""
        spec, name = self._backbone_spec(setting), setting.descriptor
        names = {field.name for field in fields(DiTFConfig)}
        given = {key: value for key, value in self.options.items() if key in names}
        config = DiTFConfig.from_spec(spec, **{**given, **setting.changes()})
        reach = max(reach, config.block)
        loaded = self._loaded.get(name)
        if not isinstance(loaded, DiTF) or loaded.config.block < reach:
            loaded = create_ditf(name, **{**self.options, "block": reach})
            self._loaded[name] = loaded
        return DiTF(loaded.backbone, config)


def as_values(setting: Setting, result: Location | ImageMatches) -> dict[str, Any]:
    """Return a result as plain values, for JSON."""
    chosen = {key: value for key, value in asdict(setting).items() if value is not None}
    if isinstance(result, Location):
        return {
            "setting": chosen,
            "point_a": result.point,
            "points_b": result.places,
            "scores": result.scores,
            "returned_to": result.returned,
            "cycle_error_px": result.cycle_error,
        }
    matches, attempt = result.matches, result.attempts[result.chosen]
    return {
        "setting": chosen,
        "points_a": matches.points_a.tolist(),
        "points_b": matches.points_b.tolist(),
        "scores": matches.scores.tolist(),
        "inliers": result.verification.inliers.tolist(),
        "threshold_px": result.threshold,
        "turn_degrees": attempt.turn,
        "scale": attempt.scale,
    }


def as_python(setting: Setting, result: Location | ImageMatches, *, search: bool = False) -> str:
    """Return lines of Python that give the same result for the files a.jpg and b.jpg."""
    options = "".join(f", {key}={value!r}" for key, value in setting.changes().items())
    lines = ["import kornia_ditf as kd", ""]
    if setting.fused_with is None:
        lines.append(f'descriptor = kd.create_descriptor("{setting.descriptor}"{options})')
    else:
        lines += [
            "descriptor = kd.FusedDescriptor([",
            f'    kd.create_descriptor("{setting.descriptor}"{options}),',
            f'    kd.create_descriptor("{setting.fused_with}"),',
            "])",
        ]
    if isinstance(result, Location):
        x, y = result.point
        lines.insert(1, "import torch")
        lines += [
            'a, b = descriptor("a.jpg"), descriptor("b.jpg")',
            f"found = kd.match_points(a, torch.tensor([[{x:g}, {y:g}]]), b)",
            "print(found.points_b, found.scores)",
        ]
    else:
        kind = "both" if search else "none"
        lines += [
            f'found = kd.match_images("a.jpg", "b.jpg", descriptor, search="{kind}")',
            "print(found.matches.points_a, found.matches.points_b, found.verification.inliers)",
        ]
    return "\n".join(lines)


def _check_point(point: Point, image: Tensor) -> None:
    (x, y), (height, width) = point, image.shape[-2:]
    if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
        raise InvalidArgumentError(
            f"the point must lie in image A, x in [0, {width - 1}] and y in [0, {height - 1}], "
            f"got ({x:g}, {y:g})"
        )
