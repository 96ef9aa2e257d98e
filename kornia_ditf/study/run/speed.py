"""How fast this machine describes and scores, measured within seconds on random values."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from kornia_ditf.errors import DatasetError, DiTFError
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.study.define.jobs import Evaluate
from kornia_ditf.study.define.spec import DatasetChoice
from kornia_ditf.study.run.scoring import score_job
from kornia_ditf.study.store.cache import MapCache, MapReader
from kornia_ditf.types import DescriptorMap, Frame
from kornia_ditf.utils.checks import read_device

_SIDE = 768  # of the matrices that are multiplied
_TRIES = 3
_KEYS = "0" * 40, "1" * 40
_NONE = DatasetChoice(name="")


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
        self, protocol: Protocol, dataset: Any, index: int, grid: tuple[int, int], width: int
    ) -> tuple[float, float] | None:
        """Return the seconds of reading one map of a size, and of scoring one pair.

        None for sequences, where the budget is used up, or where the pair cannot be scored so.

        Args:
            protocol: for pairs.
            dataset: which pairs are of.
            index: of one of them.
            grid: rows and columns of the maps.
            width: channels of the maps.
        """
        name = (protocol.name, protocol.pca, grid, width)
        if name not in self._known:
            begin = time.perf_counter()
            if self.budget <= 0 or protocol.task == "masks":
                return None
            try:
                self._known[name] = self._measure(protocol, dataset, index, grid, width)
            except (DiTFError, OSError):
                return None
            finally:
                self.budget -= time.perf_counter() - begin
        return self._known[name]

    def _measure(
        self, protocol: Protocol, dataset: Any, index: int, grid: tuple[int, int], width: int
    ) -> tuple[float, float]:
        place, size = torch.device(self.device), dataset[index].size_a
        values = torch.randn(1, width, *grid, generator=torch.Generator().manual_seed(0))
        with TemporaryDirectory() as folder, torch.no_grad():
            cache = MapCache(Path(folder))
            for key in _KEYS:
                cache.write(key, DescriptorMap(values, Frame(size, size)))
            pairs = ((index, "", _KEYS),)
            job = Evaluate(_NONE, "", replace(protocol, align="none"), folder, pairs, self.device)

            def score(maps: MapReader) -> None:
                outcome = score_job(job, dataset, maps, place)
                if outcome.failures:
                    raise DatasetError(folder, outcome.failures[0])

            maps = MapReader(cache)
            score(maps)  # which keeps both maps from now on
            scored = self._best(lambda: score(maps))
            both = self._best(lambda: score(MapReader(cache))) - scored
            return max(0.0, both / 2), scored

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
