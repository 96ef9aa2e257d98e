"""How fast this machine describes and scores, measured within seconds on random values."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.datasets.sequences import FrameSequence
from kornia_ditf.errors import DiTFError
from kornia_ditf.protocols.evaluate import evaluate_pair, find_points, score_points
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.study.store.cache import MapCache, MapReader
from kornia_ditf.types import DescriptorMap, Frame
from kornia_ditf.utils.checks import read_device

_SIDE = 768  # of the matrices that are multiplied
_TRIES = 3
_KEY = "0" * 40


@dataclass(slots=True)
class Speed:
    """Measures what describing and scoring take on a device, once for each size.

    Args:
        device: its name; one that is not here is replaced by the CPU.
        budget: seconds that measuring may take; sizes that are left then are not measured.
    """

    device: str
    budget: float = 10.0
    replaced: bool = False
    _known: dict[Any, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            read_device(self.device)
        except DiTFError:
            self.device, self.replaced = "cpu", True

    def operations_per_second(self) -> float:
        """Return how many floating-point operations a product of float32 matrices does."""
        a = torch.rand(_SIDE, _SIDE, device=self.device)
        return 2 * _SIDE**3 / self._best(lambda: a @ a)

    def scoring(
        self, protocol: Protocol, pair: Pair | FrameSequence, grid: tuple[int, int], width: int
    ) -> tuple[float, float] | None:
        """Return the seconds of reading one map of a size, and of scoring one pair.

        None for sequences, where the budget is used up, or where the pair cannot be scored so.

        Args:
            protocol: for pairs.
            pair: one of them.
            grid: rows and columns of the maps.
            width: channels of the maps.
        """
        name = (protocol.name, protocol.pca, grid, width)
        if name not in self._known:
            begin = time.perf_counter()
            if self.budget <= 0 or isinstance(pair, FrameSequence):
                return None
            try:
                self._known[name] = self._measure(protocol, pair, grid, width)
            except (DiTFError, OSError):
                return None
            finally:
                self.budget -= time.perf_counter() - begin
        return self._known[name]

    def _measure(
        self, protocol: Protocol, pair: Pair, grid: tuple[int, int], width: int
    ) -> tuple[float, float]:
        place, protocol = torch.device(self.device), replace(protocol, align="none")
        values = torch.randn(1, width, *grid, generator=torch.Generator().manual_seed(0))
        made = DescriptorMap(values, Frame(pair.size_a, pair.size_a))
        with TemporaryDirectory() as folder, torch.no_grad():
            cache = MapCache(Path(folder))
            cache.write(_KEY, made)
            pixels = not protocol.canvas
            if protocol.task != "keypoints" or protocol.pca:
                maps = MapReader(cache).map(_KEY, place)
                reading = self._best(lambda: MapReader(cache).map(_KEY, place))
                return reading, self._best(lambda: evaluate_pair(maps, maps, pair, protocol))
            a, b = (
                MapReader(cache).target(_KEY, place, size, pixels=pixels)
                for size in (pair.size_a, pair.size_b)
            )
            reading = self._best(
                lambda: MapReader(cache).target(_KEY, place, pair.size_a, pixels=pixels)
            )
            found = self._best(lambda: find_points(a, b, pair, protocol))
            places = find_points(a, b, pair, protocol).cpu()
            return reading, found + self._best(lambda: score_points(places, pair, protocol))

    def _best(self, work: Callable[[], Any]) -> float:
        """Return the seconds of the fastest of some tries."""
        best = float("inf")
        for _ in range(_TRIES):
            begin = time.perf_counter()
            work()
            if self.device.startswith("cuda"):
                torch.cuda.synchronize(self.device)
            best = min(best, time.perf_counter() - begin)
            if best > 1:
                break
        return best
