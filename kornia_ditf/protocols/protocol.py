"""`Protocol`: a published evaluation as a value, with every number that can change a result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.joint import check_pca
from kornia_ditf.matching.poses import POSES, PoseSearch
from kornia_ditf.matching.propagation import Propagation
from kornia_ditf.metrics.functional import Comparison
from kornia_ditf.utils.checks import check_integer, check_number, check_one_of

Task = Literal["keypoints", "homography", "pose", "masks"]
Fitting = Literal["whole", "squash", "long-side", "short-side", "pad"]
Estimator = Literal["cv2", "cv2-magsac", "poselib"]
Base = Literal["box", "image", "canvas", "points", "pixels"]

COMPATIBILITY = {
    "dift-sampling": "HPatches: keypoints are normalised for `align_corners=True` but sampled with "
    "False, so descriptors are read up to half a pixel further out, and at the border partly from "
    "outside (DIFT's eval_hpatches.py)",
    "short-shooting": "DAVIS: the sequence `shooting` looks back at 10 frames at most, to save "
    "memory (DIFT's eval_davis.py)",
    "visibility-scaling": "coordinates are multiplied by visibility, so a keypoint annotated as "
    "hidden moves to half its coordinates in both images (GeoAware-SC's preprocess_kps_pad)",
    "willow-padding": "coordinates are those of images of 256 x 256, and the extent is that of A's "
    "keypoints and the padding value (-1, -1), which inflates the threshold (dhpf, CATs)",
}
"""Behaviour of authors' code that their papers do not state, by its name in `Protocol.compat`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How an image is fitted before it is described.

    Args:
        kind: `whole` leaves the image to the descriptor. `squash` scales to a square and gives up
            the aspect (PIL, bicubic). `long-side` scales the longest side and rounds both to a
            multiple (PIL, bicubic). `short-side` scales the shortest side and rounds the other down
            to a multiple (OpenCV, linear). `pad` scales the longest side (PIL, Lanczos) and
            centres the image in a black square.
        side: that side in pixels.
        multiple: what sides are multiples of.
        upright: apply the EXIF orientation of image files; False reads them as they are stored,
            as the scripts of published data sets do, whose annotations are of stored pixels.
    """

    kind: Fitting = "whole"
    side: int = 0
    multiple: int = 1
    upright: bool = True

    def __post_init__(self) -> None:
        check_one_of("kind", self.kind, get_args(Fitting))
        if self.kind != "whole":
            check_integer("side", self.side, 8)
            check_integer("multiple", self.multiple, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """How a point is read from cosine similarities.

    Args:
        kind: `pixels` takes the highest cosine among all pixels of the image (descriptors
            upsampled). `tokens` takes the token of the padded square with the highest cosine to
            the token that the point lies in. `window` takes the mean place in a window around
            that, weighted by a softmax (`WindowSoftArgmax`).
        beta: the temperature of that softmax.
        radius: how far the window reaches, in tokens.
        offset: pixels of the square that are added to a token's edge and half its side, which is
            rounded down.
    """

    kind: Literal["pixels", "tokens", "window"] = "pixels"
    beta: float = 0.02
    radius: int = 7
    offset: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoseEstimation:
    """How the pose of a pair is estimated from matches.

    Args:
        estimator: `cv2` (RANSAC, as SuperGlue and LoFTR do), `cv2-magsac` or `poselib`.
        thresholds: largest distances of an inlier to its epipolar line, in pixels of the fitted
            images. Of several, scores are those of the one whose mean AUC is best, for each
            contestant, as in glue-factory.
        confidence: in (0, 1), that no better sample was overlooked.
        angles: thresholds of the AUC, in degrees.
    """

    estimator: Estimator = "cv2"
    thresholds: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
    confidence: float = 0.99999
    angles: tuple[float, ...] = (5, 10, 20)

    def __post_init__(self) -> None:
        check_one_of("pose.estimator", self.estimator, get_args(Estimator))
        for name in ("thresholds", "angles"):
            _check_positive(f"pose.{name}", getattr(self, name))
        check_number("pose.confidence", self.confidence, "(0, 1)")


def _check_positive(name: str, values: tuple[float, ...]) -> None:
    if not values or not all(0 < value < math.inf for value in values):
        raise InvalidArgumentError(f"{name} must all be above 0, got {values!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A published evaluation, with every parameter that can change a result.

    Change one with `dataclasses.replace`, and the name with it.

    Args:
        name: what the user types.
        source: where the numbers come from.
        task: what is scored: keypoints, homographies, poses, or masks of a sequence.
        datasets: the names of the data sets that it is meant for.
        fit: how images are fitted before they are described.
        decode: how points are found.
        base: what thresholds are relative to: the longer side of B's `box`, of the `image` B, of
            the padded square (`canvas`), the extent of the key`points` of B, or 1 (`pixels`).
        comparison: whether a distance of exactly the threshold counts.
        alphas: the thresholds as parts of the base.
        corner_thresholds: thresholds of the accuracy and AUC of a homography's corner error, in
            pixels of B.
        canvas: side of the padded square in whose pixels distances are measured; 0 where they are
            measured in the pixels of the image.
        propagation: for masks.
        pose: for poses; `alphas` are then bounds of the squared epipolar distance of a match.
        pca: joint PCA of each pair's tokens before they are compared, see `joint_pca`; 0 for none.
        per_category: number of pairs to score in each category, drawn as the authors do; 0 is all.
        align: poses of image A that are compared, of which the one nearest to B is scored: `flips`
            (its mirror image), `turns` (quarter turns), `both` or `none`; see `instance_distance`.
            For descriptors, not for matchers.
        compat: what the authors' code does and its paper does not mean, by name: see
            docs/protocols.md.
        hints: what the authors' descriptor used (timestep, block, ensemble, prompt ...); never
            applied by the protocol.
    """

    name: str
    source: str
    task: Task = "keypoints"
    datasets: tuple[str, ...] = ()
    fit: Fit = field(default_factory=Fit)
    decode: Decode = field(default_factory=Decode)
    base: Base = "box"
    comparison: Comparison = "<="
    alphas: tuple[float, ...] = (0.1, 0.05, 0.01)
    corner_thresholds: tuple[float, ...] = (1, 3, 5)
    canvas: int = 0
    propagation: Propagation | None = None
    pose: PoseEstimation | None = None
    pca: int | tuple[int, ...] = 0
    per_category: int = 0
    align: PoseSearch = "none"
    compat: frozenset[str] = frozenset()
    hints: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_one_of("task", self.task, get_args(Task))
        for name in sorted(self.compat):
            check_one_of("compat", name, COMPATIBILITY)
        check_one_of("base", self.base, get_args(Base))
        check_one_of("align", self.align, POSES)
        if self.align != "none" and self.task not in ("keypoints", "homography"):
            raise InvalidArgumentError(
                f"align is of keypoints and homographies, got {self.align!r} for {self.task}"
            )
        if check_pca(self.pca) and self.task == "masks":
            raise InvalidArgumentError("pca applies to pairs, and not to the masks of videos")
        for name in ("alphas", "corner_thresholds"):
            _check_positive(name, getattr(self, name))
        if (self.task == "pose") != (self.pose is not None):
            raise InvalidArgumentError("pose, a PoseEstimation, belongs to the task 'pose' only")
        square = {self.canvas > 0, self.fit.kind == "pad", self.decode.kind != "pixels"}
        if len(square) > 1 or (self.base == "canvas" and not self.canvas):
            raise InvalidArgumentError(
                "canvas, fit.kind 'pad' and decode.kind 'tokens' or 'window' belong together, got "
                f"{self.canvas}, {self.fit.kind!r} and {self.decode.kind!r} (base {self.base!r})"
            )
