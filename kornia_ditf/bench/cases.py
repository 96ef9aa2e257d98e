"""The cases: what is computed, by whom, and whether all of them find the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.bench import peers
from kornia_ditf.bench.timing import Work
from kornia_ditf.matching.keypoints import match_points
from kornia_ditf.matching.nearest import mutual_nearest
from kornia_ditf.matching.propagation import LabelPropagator
from kornia_ditf.treatments import apply_treatment
from kornia_ditf.treatments.compose import run_steps
from kornia_ditf.types import DescriptorMap, Frame, Tap


@dataclass(frozen=True, slots=True)
class Case:
    """One piece of work.

    Args:
        group: the table it belongs to.
        name: its size.
        contestants: who does it, by name; the first is ours, which the others are compared with.
        check: tells by the results, by name, how far each is from ours.
        slow: those who get one turn.
        missing: peers that are not installed.
        flops: of its matrix product, for a roofline; 0 where there is none.
        reference: the contestant that is this product alone; empty where there is none.
        wall: timed by the clock and not the processor's: contestants use several threads.
    """

    group: str
    name: str
    contestants: Mapping[str, Work]
    check: Callable[[Mapping[str, object]], Mapping[str, str]]
    slow: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()
    flops: float = 0.0
    reference: str = ""
    wall: bool = False


def all_cases(device: torch.device, *, quick: bool = False) -> Iterator[Callable[[], Case]]:
    """Yield what makes each case; its data are made when it is run, and freed after it."""
    for width, grid, size, count in (
        [(32, 8, (40, 50), 3)]
        if quick
        else [(1280, 48, (375, 500), 8), (1536, 40, (333, 500), 12), (3072, 48, (375, 500), 8)]
    ):
        yield partial(_points, width, grid, size, count, device)
    for count, width in (
        [(100, 32)]
        if quick
        else [
            (400, 1536),
            (900, 1536),
            (1600, 1152),
            (1600, 3072),
            (3600, 1536),
            (6400, 1536),
            (14400, 1536),
        ]
    ):
        yield partial(_nearest, count, width, device)
    for pairs in [2, 3] if quick else [10, 100, 1000]:
        yield partial(_pairs, pairs, 400, 384, device)
    for grid_size, width in (
        [((6, 8), 16)] if quick else [((30, 52), 1536), ((30, 52), 3072), ((48, 84), 1536)]
    ):
        yield partial(_propagation, grid_size, width, device)
    for grid_size, width in [((6, 8), 16)] if quick else [((40, 40), 1536), ((48, 48), 3072)]:
        yield partial(_describing, grid_size, width, device, quick)


def scene(width: int, rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Make two noisy views of one smooth random scene, shifted, (1, width, rows, columns) each."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, width, rows // 4 + 3, columns // 4 + 3, generator=generator)
    fine = F.interpolate(coarse, (rows + 6, columns + 6), mode="bicubic")
    views = [fine[..., y : y + rows, x : x + columns] for y, x in ((3, 3), (1, 5))]
    a, b = (view + 0.6 * torch.randn(view.shape, generator=generator) for view in views)
    return a.contiguous().to(device), b.contiguous().to(device)


def _points(width: int, grid: int, size: tuple[int, int], count: int, device: torch.device) -> Case:
    a, b = scene(width, grid, grid, device)
    frame = Frame(size, (16 * grid, 16 * grid))
    map_a, map_b = DescriptorMap(a, frame), DescriptorMap(b, frame)
    generator = torch.Generator().manual_seed(1)
    points = (torch.rand(count, 2, generator=generator) * torch.tensor(size[::-1])).floor()
    points = points.to(device)

    def ours() -> Tensor:
        x, y = match_points(map_a, points, map_b).points_b.long().cpu().unbind(1)
        return y * size[1] + x

    def check(results: Mapping[str, object]) -> Mapping[str, str]:
        mine = results["kornia_ditf"]
        assert isinstance(mine, Tensor)
        return {
            name: f"{int((mine == other).sum())} of {count} pixels the same"
            for name, other in results.items()
            if isinstance(other, Tensor)
        }

    contestants: dict[str, Work] = {
        "kornia_ditf": ours,
        "DIFT/DiTF as written": lambda: peers.points_as_written(a, b, size, points),
        "the same, hoisted": lambda: peers.points_hoisted(a, b, size, points),
    }
    name = f"D {width}, {grid} x {grid} to {size[0]} x {size[1]}, {count} points"
    slow = frozenset({"DIFT/DiTF as written", "the same, hoisted"})
    return Case("Points at full resolution", name, contestants, check, slow)


def _nearest(count: int, width: int, device: torch.device) -> Case:
    side = round(count**0.5)
    a, b = (
        F.normalize(one[0].flatten(1).T.contiguous(), dim=1)
        for one in scene(width, side, side, device)
    )
    product = torch.empty(count, count, device=device)
    contestants: dict[str, Work] = {
        "kornia_ditf": lambda: peers.as_pairs(mutual_nearest(a, b)[0]),
        "torch.mm alone": lambda: torch.mm(a, b.T, out=product),
    }
    missing = []
    others: dict[str, tuple[str, Callable[[Tensor, Tensor], peers.Pairs]]] = {
        "kornia match_mnn": ("kornia", peers.nearest_kornia),
        "cv2.BFMatcher": ("cv2", peers.nearest_cv2),
        "faiss IndexFlatIP": ("faiss", peers.nearest_faiss),
    }
    for name, (module, function) in others.items():
        if not peers.present(module):
            missing.append(name)
        elif name.startswith("kornia") or (device.type == "cpu" and count <= 3600):
            contestants[name] = partial(function, a, b)

    def check(results: Mapping[str, object]) -> Mapping[str, str]:
        mine = results["kornia_ditf"]
        return {
            name: "the same pairs" if other == mine else f"{len(other ^ mine)} other pairs"
            for name, other in results.items()
            if isinstance(other, set) and isinstance(mine, set)
        }

    return Case(
        "Mutual nearest neighbours",
        f"{count} x {count}, D {width}",
        contestants,
        check,
        frozenset({"cv2.BFMatcher"}) if count < 6400 else frozenset(contestants),
        tuple(missing),
        2.0 * count * count * width,
        "torch.mm alone",
    )


def _pairs(pairs: int, count: int, width: int, device: torch.device) -> Case:
    side = round(count**0.5)
    a, b = (
        F.normalize(one[0].flatten(1).T.contiguous(), dim=1)
        for one in scene(width, side, side, device)
    )

    def many(one: Callable[[], object]) -> Work:
        return lambda: [one() for _ in range(pairs)]

    contestants = {"kornia_ditf": many(lambda: mutual_nearest(a, b))}
    missing = () if peers.present("kornia") else ("kornia match_mnn",)
    if not missing:
        import kornia.feature as kf

        contestants["kornia match_mnn"] = many(lambda: kf.match_mnn(a, b))
    name = f"{pairs} pairs of {count} x {count}, D {width}"
    return Case("Many small pairs", name, contestants, lambda results: {}, frozenset(), missing)


def _propagation(grid: tuple[int, int], width: int, device: torch.device) -> Case:
    rows, columns = grid
    generator = torch.Generator().manual_seed(2)
    base = scene(width, rows, columns, torch.device("cpu"))[0]
    frames = [
        DescriptorMap(
            (base + 0.7 * torch.randn(base.shape, generator=generator)).to(device),
            Frame(grid, grid),
        )
        for _ in range(9)
    ]
    labels = torch.softmax(4 * torch.randn(8, 4, rows, columns, generator=generator), 1).to(device)
    propagator = LabelPropagator(frames[0], labels[0])
    for frame, label in zip(frames[1:8], labels[1:], strict=True):
        propagator.remember(frame, label)
    theirs = peers.full_affinity(12, grid, 8)
    sources = [frame.data[0].flatten(1) for frame in frames[:8]]
    tokens = frames[8].tokens[0].contiguous()

    def check(results: Mapping[str, object]) -> Mapping[str, str]:
        mine, other = results["kornia_ditf"], results["full affinity as written"]
        assert isinstance(mine, Tensor) and isinstance(other, Tensor)
        same = "same" if torch.equal(mine.argmax(0), other.argmax(0)) else "other"
        difference = (mine - other).abs().max()
        return {"full affinity as written": f"{same} labels, difference {difference:.1e}"}

    contestants: dict[str, Work] = {
        "kornia_ditf": lambda: propagator.propagate(frames[8]),
        "full affinity as written": lambda: theirs(tokens, sources, list(labels[:, None])),
    }
    name = f"{rows} x {columns} tokens, D {width}, 8 frames"
    return Case("Label propagation", name, contestants, check)


def _describing(grid: tuple[int, int], width: int, device: torch.device, quick: bool) -> Case:
    generator = torch.Generator().manual_seed(3)
    x, shift, scale = (
        torch.randn(shape, generator=generator).to(device)
        for shape in ((1, grid[0] * grid[1], width), (1, width), (1, width))
    )
    tap, channels = Tap(x, shift, scale, grid), [5, 9]
    fast = torch.compile(run_steps, backend="aot_eager" if quick else "inductor")
    apply = partial(apply_treatment, tap, "adaln+discard", channels)
    contestants: dict[str, Work] = {
        "kornia_ditf": lambda: F.normalize(apply(), dim=-1),
        "kornia_ditf, compiled": lambda: F.normalize(apply(compiled=lambda _: fast), dim=-1),
        "a copy": lambda: x.clone(),
        "channels first as written": lambda: peers.describe_as_written(
            x, shift, scale, grid, channels
        ),
    }

    def check(results: Mapping[str, object]) -> Mapping[str, str]:
        mine, other = results["kornia_ditf"], results["channels first as written"]
        assert isinstance(mine, Tensor) and isinstance(other, Tensor)
        difference = (mine - other.flatten(2).transpose(1, 2)).abs().max()
        return {"channels first as written": f"difference {difference:.1e}"}

    name = f"{grid[0]} x {grid[1]} tokens, D {width}"
    return Case("Post-processing of a tap", name, contestants, check)
