"""What others compute, as they publish it, and which of their libraries are here."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Pairs = set[tuple[int, int]]


def present(*modules: str) -> bool:
    """Whether all of some modules are installed."""
    return all(find_spec(module) is not None for module in modules)


def limit_threads(threads: int) -> None:
    """Set the number of threads of all installed libraries."""
    torch.set_num_threads(threads)
    if present("cv2"):
        import cv2

        cv2.setNumThreads(threads)
    if present("faiss"):
        import faiss

        faiss.omp_set_num_threads(threads)


def points_as_written(
    map_a: Tensor, map_b: Tensor, size: tuple[int, int], points: Tensor
) -> Tensor:
    """Find points as DIFT and DiTF do: normalise all pixels again for every point, in float32."""
    enlarged_a, enlarged_b = (F.interpolate(one, size, mode="bilinear") for one in (map_a, map_b))
    channels, found = map_a.shape[1], []
    for x, y in points.long().tolist():
        query = F.normalize(enlarged_a[0, :, y, x].view(1, channels)).transpose(0, 1)
        pixels = F.normalize(enlarged_b.view(channels, -1).transpose(0, 1))
        found.append(int(torch.mm(pixels, query).argmax()))
    return torch.tensor(found)


def points_hoisted(map_a: Tensor, map_b: Tensor, size: tuple[int, int], points: Tensor) -> Tensor:
    """Do the same with all that can be taken out of their loop taken out."""
    enlarged_a, enlarged_b = (F.interpolate(one, size, mode="bilinear") for one in (map_a, map_b))
    pixels = F.normalize(enlarged_b.view(map_b.shape[1], -1).transpose(0, 1))
    x, y = points.long().unbind(1)
    queries = F.normalize(enlarged_a[0][:, y, x].T)
    return (pixels @ queries.T).argmax(0).cpu()


def nearest_kornia(a: Tensor, b: Tensor) -> Pairs:
    """Match with `kornia.feature.match_mnn`."""
    import kornia.feature as kf

    return as_pairs(kf.match_mnn(a, b)[1])


def nearest_cv2(a: Tensor, b: Tensor) -> Pairs:
    """Match with `cv2.BFMatcher` and its cross check."""
    import cv2

    matcher: Any = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True)
    return {(one.queryIdx, one.trainIdx) for one in matcher.match(a.numpy(), b.numpy())}


def nearest_faiss(a: Tensor, b: Tensor) -> Pairs:
    """Match with faiss, an exact index each way."""
    import faiss

    def search(queries: Tensor, others: Tensor) -> Tensor:
        index = faiss.IndexFlatIP(others.shape[1])
        index.add(others.numpy())
        return torch.from_numpy(index.search(queries.numpy(), 1)[1][:, 0])

    there, back = search(a, b), search(b, a)
    rows = torch.arange(len(a))
    mutual = back[there] == rows
    return as_pairs(torch.stack([rows[mutual], there[mutual]], 1))


def as_pairs(indices: Tensor) -> Pairs:
    """Read rows (a, b) as a set."""
    return set(map(tuple, indices.tolist()))


def full_affinity(radius: int, grid: tuple[int, int], count: int) -> Callable[..., Tensor]:
    """Create DINO's label propagation as published, with a precomputed mask."""
    rows, columns = grid
    y, x = torch.arange(rows).repeat_interleave(columns), torch.arange(columns).repeat(rows)
    near = ((y[:, None] - y).abs() <= radius) & ((x[:, None] - x).abs() <= radius)
    mask = near.float().unsqueeze(0).repeat(count, 1, 1)

    def propagate(tokens: Tensor, sources: list[Tensor], labels: list[Tensor]) -> Tensor:
        """Sources are (D, tokens) each, labels (1, L, rows, columns)."""
        stacked = F.normalize(torch.stack(sources), dim=1, p=2)
        target = F.normalize(tokens, dim=1, p=2).unsqueeze(0).repeat(count, 1, 1)
        affinity = torch.exp(torch.bmm(target, stacked) / 0.1)
        affinity *= mask
        affinity = affinity.transpose(2, 1).reshape(-1, rows * columns)
        smallest = torch.topk(affinity, dim=0, k=5).values.min(dim=0).values
        affinity[affinity < smallest] = 0
        affinity = affinity / affinity.sum(0, keepdim=True)
        flat = torch.cat(labels).flatten(2).transpose(2, 1).reshape(-1, labels[0].shape[1]).T
        return torch.mm(flat, affinity).view(-1, rows, columns)

    return propagate


def describe_as_written(
    x: Tensor, shift: Tensor, scale: Tensor, grid: tuple[int, int], channels: list[int]
) -> Tensor:
    """Discard, normalise and modulate with channels first, as the authors' maps are laid out."""
    maps = x.transpose(1, 2).reshape(len(x), -1, *grid).clone()
    maps[:, channels] = 0
    tokens = F.layer_norm(maps.permute(0, 2, 3, 1), x.shape[-1:], eps=1e-6)
    tokens = tokens * (1 + scale[:, None, None]) + shift[:, None, None]
    return F.normalize(tokens.permute(0, 3, 1, 2).contiguous(), dim=1)
