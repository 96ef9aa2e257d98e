"""What a calibration scores: images, and how well their descriptors find points again.

Same-scene and semantic samples need no labels. The first warp and relight each image by known
amounts; the second follow points from an image to another of the same kind and on to a warped copy
of the first, where they must arrive in their known places.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kornia_ditf.datasets.pairs import Pair, PairDataset
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.keypoints import match_points
from kornia_ditf.metrics.functional import point_distances, project
from kornia_ditf.metrics.pck import pck_sums
from kornia_ditf.preprocess import fit_image, read_image
from kornia_ditf.protocols.evaluate import evaluate_pair
from kornia_ditf.protocols.fitting import prepare_image
from kornia_ditf.protocols.presets import PROTOCOLS, find_protocol
from kornia_ditf.protocols.protocol import Fit, Protocol
from kornia_ditf.types import DescriptorMap, Frame
from kornia_ditf.types.frame import grid_centres
from kornia_ditf.utils.cache import sha256

SAME_SCENE_ALPHA = 0.05
SEMANTIC_ALPHA = 0.1
_POINTS = (14, 14)  # rows and columns of the grid of points that are followed
_LONGEST = 1024  # warped images are reduced to it


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Some images and a score of their descriptors.

    Args:
        digest: of everything that the score depends on besides the descriptors.
        load: reads or makes the images, each (1, 3, h, w) RGB in [0, 1].
        score: returns the points that were found and their number.
        images: how many there are.
        prompts: one for each image; None takes the configured one.
    """

    digest: str
    load: Callable[[], list[Tensor]]
    score: Callable[[Sequence[DescriptorMap]], tuple[float, float]]
    images: int
    prompts: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is optimised.

    Args:
        name: `same-scene`, `semantic`, or the data set with its split.
        criterion: the score in words.
        samples: two at least.

    Raises:
        InvalidArgumentError: fewer than two samples.
    """

    name: str
    criterion: str
    samples: tuple[Sample, ...]

    def __post_init__(self) -> None:
        if len(self.samples) < 2:
            raise InvalidArgumentError(
                "a calibration needs at least 2 images or pairs (20 to 50 are usual), got "
                f"{len(self.samples)}: from one, the certainty of the choice cannot be estimated"
            )

    @property
    def digest(self) -> str:
        """A hash of the samples, whatever their files are called."""
        return _digest(self.criterion, *sorted(sample.digest for sample in self.samples))


def same_scene(
    images: Sequence[Path],
    *,
    warps: int | None = None,
    alpha: float = SAME_SCENE_ALPHA,
    seed: int = 0,
) -> Task:
    """Find points again in warped and relit copies of each image.

    Args:
        images: files.
        warps: copies of each; None makes 12 in all, 4 of an image at most.
        alpha: how far off a point may be, as a part of the image's longer side.
        seed: of the warps, combined with a hash of each file.

    Raises:
        InvalidArgumentError: fewer than two images.
    """
    count = warps or max(1, min(4, math.ceil(12 / max(1, len(images)))))

    def sample(path: Path) -> Sample:
        digest = sha256(path)

        def load() -> list[Tensor]:
            image = _reduced(path)
            return [image, *(_warp(image, digest, seed, k) for k in range(count))]

        def score(maps: Sequence[DescriptorMap]) -> tuple[float, float]:
            size, found, every = maps[0].frame.image_size, 0.0, 0.0
            for k, each in enumerate(maps[1:]):
                points, truth = _moved_points(homography(size, digest, seed, k), size, 0)
                errors = point_distances(_follow(maps[0], points, each, alpha), truth)
                found += float((errors <= alpha * max(size)).sum())
                every += len(errors)
            return found, every

        key = _digest("same-scene", digest, count, alpha, seed)
        return Sample(key, load, score, 1 + count)

    return Task(
        "same-scene",
        f"PCK@{alpha:g} of the longer side: points found again in {count} warped and relit "
        f"cop{'y' if count == 1 else 'ies'} of each image",
        tuple(map(sample, images)),
    )


def semantic(images: Sequence[Path], *, alpha: float = SEMANTIC_ALPHA, seed: int = 0) -> Task:
    """Follow points over another image of the same kind to a warped copy of their own.

    A point counts where it arrives in its known place (cycle consistency), divided by the number of
    points that were matched to the same place of the other image (distinctiveness). Only points
    that the warp moves farther than the threshold are followed, so that descriptors of mere
    position score nothing: they arrive where they started.

    Args:
        images: files, all of one kind of object.
        alpha: how far off a point may arrive, as a part of the image's longer side.
        seed: of warps and of which image follows which.

    Raises:
        InvalidArgumentError: fewer than two images, or a threshold beyond what warps move.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    following = {int(a): int(b) for a, b in zip(order, np.roll(order, -1), strict=True)}
    digests = [sha256(path) for path in images]

    def sample(index: int) -> Sample:
        own, other = images[index], images[following[index]]

        def load() -> list[Tensor]:
            image = _reduced(own)
            size = image.shape[2], image.shape[3]
            warp = _moving_warp(size, digests[index], seed, alpha)
            return [image, _reduced(other), _warp(image, digests[index], seed, warp)]

        def score(maps: Sequence[DescriptorMap]) -> tuple[float, float]:
            size = maps[0].frame.image_size
            warp = _moving_warp(size, digests[index], seed, alpha)
            return _cycle(maps, homography(size, digests[index], seed, warp), alpha)

        key = _digest("semantic, moved", digests[index], digests[following[index]], alpha, seed)
        return Sample(key, load, score, 3)

    return Task(
        "semantic",
        f"cycle consistency at {alpha:g} of the longer side through another image of the kind to a "
        "warped copy, of points that it moves farther, each place counted once",
        tuple(map(sample, range(len(images)))),
    )


def labelled(
    pairs: PairDataset,
    *,
    count: int | None = None,
    protocol: str | None = None,
    alpha: float | None = None,
    prompt: str = "",
    seed: int = 0,
) -> Task:
    """Score annotated pairs as a protocol does, but at the sizes of the grid.

    Args:
        pairs: a data set.
        count: number of its pairs, drawn at random; None takes all.
        protocol: by name; None takes the first that is meant for the data set.
        alpha: the threshold; None takes 0.1 where the protocol has it, or else its middle one.
        prompt: with `{label}` for what each image shows.
        seed: of the draw.

    Raises:
        InvalidArgumentError: no such protocol, or fewer than two pairs.
        DatasetError: a pair's files are missing or malformed.
    """
    scoring = _protocol_for(pairs.name) if protocol is None else find_protocol(protocol)
    if not scoring.canvas:  # the descriptor scales
        scoring = replace(scoring, fit=Fit(upright=scoring.fit.upright))
    usual = 0.1 if 0.1 in scoring.alphas else sorted(scoring.alphas)[len(scoring.alphas) // 2]
    chosen = usual if alpha is None else alpha
    scoring = replace(scoring, alphas=(chosen,))
    order = np.random.default_rng(seed).permutation(len(pairs))
    indices = sorted(order[: len(pairs) if count is None else count].tolist())

    def sample(index: int) -> Sample:
        pair = pairs[index]

        def score(maps: Sequence[DescriptorMap]) -> tuple[float, float]:
            hits = evaluate_pair(maps[0], maps[1], pair, scoring).hits
            points, correct = pck_sums(hits)[0].tolist()
            return correct, points

        images = (pair.image_a, pair.image_b)
        prompts = tuple(prompt.replace("{label}", label) for label in (pair.label_a, pair.label_b))
        key = _digest(
            pairs.name, _digest_pair(pair), scoring.name, chosen, *map(sha256, images), *prompts
        )
        return Sample(
            key,
            lambda: [prepare_image(image, scoring) for image in images],
            score,
            2,
            prompts if "{label}" in prompt else None,
        )

    unit = "pixels" if scoring.base == "pixels" else f"the {scoring.base}"
    return Task(
        f"{pairs.name} {pairs.split}",
        f"PCK@{chosen:g} of {unit} per point, protocol {scoring.name}",
        tuple(map(sample, indices)),
    )


def _protocol_for(dataset: str) -> Protocol:
    meant = [
        p for p in PROTOCOLS if dataset in p.datasets and p.task in ("keypoints", "homography")
    ]
    free = [p for p in meant if not p.canvas]  # those let the descriptor choose the size
    return next(iter(free or meant), find_protocol("plain"))


def _digest_pair(pair: Pair) -> str:
    values = [pair.points_a, pair.points_b, pair.visible, pair.box_b, pair.homography]
    return _digest(*(v.tolist() if isinstance(v, Tensor) else v for v in values))


def _digest(*values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:32]


def _reduced(path: Path) -> Tensor:
    image = read_image(path)
    return fit_image(image, min(_LONGEST, max(image.shape[2:])), 1)[0]


def _generator(digest: str, seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng([int(digest[:16], 16), seed & 0xFFFFFFFF, index])


def homography(size: tuple[int, int], digest: str, seed: int, index: int) -> Tensor:
    """Draw the warp of a copy, a matrix (3, 3): as another view of a plane would show it.

    A turn of up to 30 degrees, a scale of up to 1.4 either way, a tilt that foreshortens one
    direction by up to 2, a shift of up to 5 % and a perspective.
    """
    draw = _generator(digest, seed, index).uniform
    height, width = size
    centre, longest = np.array([width / 2 - 0.5, height / 2 - 0.5]), max(size)
    turn, axis = draw(-np.pi / 6, np.pi / 6), draw(0, np.pi)
    scale, tilt = np.exp(draw(-np.log(1.4), np.log(1.4))), np.exp(draw(0, np.log(2)))
    linear = scale * _turn(turn) @ _turn(axis) @ np.diag([1, 1 / tilt]) @ _turn(-axis)
    affine, perspective = np.eye(3), np.eye(3)
    affine[:2, :2] = linear
    affine[:2, 2] = centre - linear @ centre + draw(-0.05, 0.05, 2) * longest
    perspective[2, :2] = draw(-0.3, 0.3, 2) / longest
    perspective[2, 2] -= perspective[2, :2] @ centre
    return torch.from_numpy(perspective @ affine)


def _turn(angle: float) -> npt.NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _warp(image: Tensor, digest: str, seed: int, index: int) -> Tensor:
    """Warp and relight an image (1, 3, h, w); what comes from outside is of its mean colour."""
    height, width = image.shape[2:]
    matrix = homography((height, width), digest, seed, index)
    draw = _generator(digest, seed, 1000 + index)
    pixels: npt.NDArray[Any] = image[0].permute(1, 2, 0).numpy()
    mean = tuple(float(value) for value in pixels.mean((0, 1)))
    warped = cv2.warpPerspective(
        pixels, matrix.numpy(), (width, height), borderMode=cv2.BORDER_CONSTANT, borderValue=mean
    )
    gain = draw.uniform(0.8, 1.2) * draw.uniform(0.95, 1.05, 3)
    lit = np.clip(warped * gain, 0, 1) ** draw.uniform(0.8, 1.25)
    noisy = np.clip(lit + draw.normal(0, 0.01, lit.shape), 0, 1).astype(np.float32)
    return torch.from_numpy(noisy).permute(2, 0, 1)[None].contiguous()


def _coarse(described: DescriptorMap, alpha: float) -> tuple[DescriptorMap, Frame]:
    """Frame a map in pixels of a sixth of the threshold, so that few are searched."""
    size = described.frame.image_size
    scale = min(1.0, max(64.0, 6 / alpha) / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    frame = Frame((height, width), described.frame.model_size)
    return DescriptorMap(described.data, frame), Frame(size, (height, width))


def _follow(a: DescriptorMap, points: Tensor, b: DescriptorMap, alpha: float) -> Tensor:
    """Find points (K, 2) of A in B; float64, in the pixels of its image, on the CPU."""
    (small_a, frame_a), (small_b, frame_b) = _coarse(a, alpha), _coarse(b, alpha)
    queries = frame_a.to_model(points).to(a.data.device)
    return frame_b.to_image(match_points(small_a, queries, small_b).points_b.double().cpu())


def _moved_points(warp: Tensor, size: tuple[int, int], alpha: float) -> tuple[Tensor, Tensor]:
    """Return the points of a grid that a warp moves by more than the threshold, and where to."""
    points = grid_centres(size, _POINTS)
    truth = project(warp, points)
    limit = truth.new_tensor([size[1] - 1, size[0] - 1])
    inside = ((truth >= 0) & (truth <= limit)).all(1)
    moved = inside & (point_distances(points, truth) > alpha * max(size))
    return points[moved], truth[moved]


@lru_cache(maxsize=1024)
def _moving_warp(size: tuple[int, int], digest: str, seed: int, alpha: float) -> int:
    """Choose the first warp that moves a third of the points, or else the one that moves most.

    Raises:
        InvalidArgumentError: none moves any point by more than the threshold.
    """
    enough = _POINTS[0] * _POINTS[1] // 3

    def moved(index: int) -> int:
        warp = homography(size, digest, seed, index)
        return min(enough, len(_moved_points(warp, size, alpha)[0]))

    chosen = max(range(17), key=moved)
    if not moved(chosen):
        raise InvalidArgumentError(
            f"alpha={alpha:g} is farther than the warps move any point; use at most 0.2"
        )
    return chosen


def _cycle(maps: Sequence[DescriptorMap], warp: Tensor, alpha: float) -> tuple[float, float]:
    size, other = maps[0].frame.image_size, maps[1].frame.image_size
    points, truth = _moved_points(warp, size, alpha)
    reached = _follow(maps[0], points, maps[1], alpha)
    arrived = _follow(maps[1], reached, maps[2], alpha)
    closed = point_distances(arrived, truth) <= alpha * max(size)
    # Points of the same square of half the threshold share it.
    squares = (reached / (0.5 * alpha * max(other))).long()
    _, place, sharing = torch.unique(squares, dim=0, return_inverse=True, return_counts=True)
    return float((closed / sharing[place]).sum()), float(len(closed))
