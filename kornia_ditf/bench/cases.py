"""The cases: what is computed, by whom, and whether all of them find the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.bench import peers
from kornia_ditf.bench.timing import Work
from kornia_ditf.matching.keypoints import match_points
from kornia_ditf.matching.match import match
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
        compare: says in words how far another's result is from ours; None is not compared.
        slow: those who get one turn.
        missing: peers that are not installed.
        flops: of its matrix product, for a roofline; 0 where there is none.
        reference: the contestant that is this product alone; empty where there is none.
        wall: timed by the clock and not the processor's: contestants use several threads.
    """

    group: str
    name: str
    contestants: Mapping[str, Work]
    compare: Callable[[Any, Any], str]
    slow: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()
    flops: float = 0.0
    reference: str = ""
    wall: bool = False


def all_cases(device: torch.device, *, quick: bool = False) -> Iterator[Callable[[], Case]]:
    """Yield what makes each case; its data are made when it is run, and freed after it."""
    small, large = (375, 500), (333, 500)
    counts = [(n, 1536) for n in (400, 900, 3600, 6400, 14400)] + [(1600, 1152), (1600, 3072)]
    counts += [(n, d) for n in (900, 5628) for d in (128, 384)]
    many = [*product((1, 10), (100, 200, 400), (128, 384), (False, True))]
    many += [(100, 400, 384, False), (1000, 400, 384, False)]
    sizes: list[tuple[Callable[..., Case], list[Any], list[Any]]] = [
        (
            _points,
            [(32, 8, (40, 50), 3)],
            [(1280, 48, small, 8), (1536, 40, large, 12), (3072, 48, small, 8)],
        ),
        (_nearest, [(100, 32)], sorted(counts)),
        (_pairs, [(2, 400, 384, False), (3, 400, 384, True)], sorted(many)),
        (
            _propagation,
            [((6, 8), 16)],
            [((30, 52), 1536), ((30, 52), 3072), ((48, 84), 1536)],
        ),
        (
            _describing,
            [((6, 8), 16, "aot_eager")],
            [((40, 40), 1536, "inductor"), ((48, 48), 3072, "inductor")],
        ),
    ]
    for make, tiny, real in sizes:
        for size in tiny if quick else real:
            yield partial(make, device, *size)


def scene(width: int, rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Create two noisy, shifted views of a smooth random scene, (1, width, rows, columns) each."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, width, rows // 4 + 3, columns // 4 + 3, generator=generator)
    fine = F.interpolate(coarse, (rows + 6, columns + 6), mode="bicubic")
    views = [fine[..., y : y + rows, x : x + columns] for y, x in ((3, 3), (1, 5))]
    a, b = (view + 0.6 * torch.randn(view.shape, generator=generator) for view in views)
    return a.contiguous().to(device), b.contiguous().to(device)


def _vectors(count: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    rows = next(rows for rows in range(int(count**0.5), 0, -1) if count % rows == 0)
    a, b = (one[0].flatten(1).T.contiguous() for one in scene(width, rows, count // rows, device))
    return F.normalize(a, dim=1), F.normalize(b, dim=1)


def _points(device: torch.device, width: int, grid: int, size: tuple[int, int], count: int) -> Case:
    a, b = scene(width, grid, grid, device)
    frame = Frame(size, (16 * grid, 16 * grid))
    map_a, map_b = DescriptorMap(a, frame), DescriptorMap(b, frame)
    generator = torch.Generator().manual_seed(1)
    points = (torch.rand(count, 2, generator=generator) * torch.tensor(size[::-1])).floor()
    points = points.to(device)

    def ours() -> Tensor:
        x, y = match_points(map_a, points, map_b).points_b.long().cpu().unbind(1)
        return y * size[1] + x

    contestants: dict[str, Work] = {
        "kornia_ditf": ours,
        "DIFT/DiTF as written": lambda: peers.points_as_written(a, b, size, points),
        "the same, hoisted": lambda: peers.points_hoisted(a, b, size, points),
    }
    return Case(
        "Points at full resolution",
        f"D {width}, {grid} x {grid} to {size[0]} x {size[1]}, {count} points",
        contestants,
        lambda mine, other: f"{int((mine == other).sum())} of {count} pixels the same",
        slow=frozenset(contestants) - {"kornia_ditf"},
    )


def _nearest(device: torch.device, count: int, width: int) -> Case:
    a, b = _vectors(count, width, device)
    product = torch.empty(count, count, device=device)

    def multiply() -> None:
        torch.mm(a, b.T, out=product)

    contestants: dict[str, Work] = {
        "kornia_ditf": lambda: peers.as_pairs(mutual_nearest(a, b)[0]),
        "torch.mm alone": multiply,
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
    return Case(
        "Mutual nearest neighbours",
        f"{count} x {count}, D {width}",
        contestants,
        lambda mine, other: (
            "the same pairs" if other == mine else f"{len(other ^ mine)} other pairs"
        ),
        slow=frozenset({"cv2.BFMatcher"}) if count < 6400 else frozenset(contestants),
        missing=tuple(missing),
        flops=2.0 * count * count * width,
        reference="torch.mm alone",
    )


def _pairs(device: torch.device, pairs: int, count: int, width: int, lists: bool) -> Case:
    a, b = _vectors(count, width, device)
    frame = Frame((1, count), (1, count))
    maps = [[DescriptorMap(one.T[None, :, None].contiguous(), frame)] * pairs for one in (a, b)]

    def many(one: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], found: int) -> Work:
        return lambda: [len(one(a, b)[found]) for _ in range(pairs)]

    def compare(mine: Any, other: Any) -> str:
        return "as many matches" if mine == other else "other matches"

    ours = (lambda: [len(found) for found in match(*maps)]) if lists else many(mutual_nearest, 0)
    contestants: dict[str, Work] = {"kornia_ditf": ours}
    missing = () if peers.present("kornia") else ("kornia match_mnn",)
    if not missing:
        import kornia.feature as kf

        contestants["kornia match_mnn"] = many(kf.match_mnn, 1)
    name = f"{pairs} pair{'s' * (pairs > 1)} of {count} x {count}, D {width}" + ", in match" * lists
    return Case("Many small pairs", name, contestants, compare, missing=missing)


def _propagation(device: torch.device, grid: tuple[int, int], width: int) -> Case:
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

    def compare(mine: Tensor, other: Tensor) -> str:
        same = "same" if torch.equal(mine.argmax(0), other.argmax(0)) else "other"
        return f"{same} labels, {difference(mine, other)}"

    contestants: dict[str, Work] = {
        "kornia_ditf": lambda: propagator.propagate(frames[8]),
        "full affinity as written": lambda: theirs(tokens, sources, list(labels[:, None])),
    }
    name = f"{rows} x {columns} tokens, D {width}, 8 frames"
    return Case("Label propagation", name, contestants, compare)


def _describing(device: torch.device, grid: tuple[int, int], width: int, backend: str) -> Case:
    generator = torch.Generator().manual_seed(3)
    x, shift, scale = (
        torch.randn(shape, generator=generator).to(device)
        for shape in ((1, grid[0] * grid[1], width), (1, width), (1, width))
    )
    tap, channels = Tap(x, shift, scale, grid), [5, 9]
    apply = partial(apply_treatment, tap, "adaln+discard", channels)
    fast = torch.compile(run_steps, backend=backend)

    def copy() -> None:
        x.clone()

    def as_written() -> Tensor:
        maps = peers.describe_as_written(x, shift, scale, grid, channels)
        return maps.flatten(2).transpose(1, 2)

    contestants: dict[str, Work] = {
        "kornia_ditf": lambda: F.normalize(apply(), dim=-1),
        "kornia_ditf, compiled": lambda: F.normalize(apply(compiled=lambda _: fast), dim=-1),
        "a copy": copy,
        "channels first as written": as_written,
    }
    name = f"{grid[0]} x {grid[1]} tokens, D {width}"
    return Case("Post-processing of a tap", name, contestants, difference)


def difference(mine: Tensor, other: Tensor) -> str:
    """Return the largest difference of two results."""
    return f"difference {(mine - other).abs().max():.1e}"
