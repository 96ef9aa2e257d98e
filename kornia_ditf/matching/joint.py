"""Joint PCA of two images' tokens, a step between describing and matching.

Source: sd-dino (arXiv 2305.15347), whose released code reduces each block's tokens of both images
together (`torch.pca_lowrank`, centred); the best rows of DiTF (arXiv 2505.18584) do so as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.checks import check_pair
from kornia_ditf.types import DescriptorMap
from kornia_ditf.utils.checks import check_integer, check_one_of

PCA: TypeAlias = int | Sequence[int]
"""Components kept of a pair's tokens, together or by part; 0 reduces nothing."""

_SEED = 0
_LARGE = 1024
"""Size from which on the covariance's eigenvectors are faster than singular vectors."""


def joint_pca(
    map_a: DescriptorMap,
    map_b: DescriptorMap,
    width: PCA,
    *,
    parts: Sequence[int] | None = None,
    method: Literal["exact", "lowrank"] = "exact",
) -> tuple[DescriptorMap, DescriptorMap]:
    """Project two maps onto the principal components of their tokens together.

    The tokens of both images are joined, centred by their mean, and projected onto the first right
    singular vectors. Where fewer exist than asked for, all are kept.

    Args:
        map_a: of one image, B = 1.
        map_b: of the other.
        width: how many components to keep. Several are of the parts of the channels, each of which
            is reduced by itself before the results are joined (sd-dino); 0 leaves a part as it is.
        parts: numbers of channels; None takes those of the maps (`DescriptorMap.parts`), as a
            descriptor of several blocks or a fusion joins them.
        method: `exact` singular vectors, or `lowrank` as published: `torch.pca_lowrank`, which is
            faster for wide descriptors and approximate. Its random start is always the same.

    Returns:
        both maps with fewer channels, float32. Channels that were discarded are no longer named.

    Raises:
        InvalidArgumentError: the maps are not of one image and one width, or the parts do not fit.

    Example:
        >>> from kornia_ditf.types import Frame
        >>> frame = Frame((32, 40), (32, 40))
        >>> a, b = (DescriptorMap(torch.randn(1, 16, 4, 5), frame) for _ in range(2))
        >>> [each.data.shape[1] for each in joint_pca(a, b, 8)]
        [8, 8]
    """
    check_pair(map_a, map_b)
    channels = map_a.data.shape[1]
    check_one_of("method", method, ("exact", "lowrank"))
    widths = [width] if isinstance(width, int) else list(width)
    own = [channels] if isinstance(width, int) else map_a.parts or [channels]
    sizes = list(own if parts is None else parts)
    if sum(sizes) != channels or len(widths) != len(sizes):
        raise InvalidArgumentError(
            f"parts must add up to {channels} channels and have one width each, got parts="
            f"{sizes} and widths {widths}"
        )
    for each in widths:
        check_integer("width", each, minimum=int(isinstance(width, int)))
    for each in sizes:
        check_integer("a part", each, minimum=1)
    joined = torch.cat([map_a.tokens[0], map_b.tokens[0]]).float()
    with torch.autocast(joined.device.type, enabled=False):
        reduced = [
            _reduce(tokens, kept, method) if kept else tokens
            for tokens, kept in zip(torch.split(joined, sizes, dim=1), widths, strict=True)
        ]
    kept_parts = tuple(each.shape[1] for each in reduced) if len(reduced) > 1 else ()
    counts = [len(map_a.tokens[0]), len(map_b.tokens[0])]
    halves = torch.split(torch.cat(reduced, 1), counts)
    a, b = (
        replace(each, data=half.T.reshape(1, -1, *each.grid), discarded=(), parts=kept_parts)
        for each, half in zip((map_a, map_b), halves, strict=True)
    )
    return a, b


def reduce_pair(
    map_a: DescriptorMap, map_b: DescriptorMap, pca: PCA
) -> tuple[DescriptorMap, DescriptorMap]:
    """Return the maps of a pair after joint PCA, or as they are where `pca` is 0 or empty."""
    return joint_pca(map_a, map_b, pca) if pca else (map_a, map_b)


def check_pca(pca: object) -> int | tuple[int, ...]:
    """Return what joint PCA keeps, an integer or a tuple of them.

    Raises:
        InvalidArgumentError: it is neither, or negative.

    Example:
        >>> check_pca([256, 0])
        (256, 0)
    """
    if isinstance(pca, int) and not isinstance(pca, bool):
        check_integer("pca", pca, minimum=0)
        return pca
    if not isinstance(pca, Sequence) or isinstance(pca, str):
        raise InvalidArgumentError(
            f"pca must be a number of components, or one for each part, got {pca!r}"
        )
    for each in pca:
        check_integer("pca", each, minimum=0)
    return tuple(pca) if any(pca) else 0


def _reduce(tokens: Tensor, width: int, method: str) -> Tensor:
    centred = tokens - tokens.mean(0)
    width = min(width, *centred.shape)
    axes: Tensor
    if method == "exact" and min(centred.shape) > _LARGE:
        axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)
        return centred @ axes[:, :width]
    if method == "exact":
        axes = torch.linalg.svd(centred, full_matrices=False).Vh.T
        return centred @ axes[:, :width]
    with torch.random.fork_rng(devices=[tokens.device] if tokens.is_cuda else []):
        torch.manual_seed(_SEED)
        _, _, axes = torch.pca_lowrank(centred, q=width, center=False)
    return centred @ axes
