"""Verified search: matches of two images that differ by a large turn or scale.

Dense descriptors tolerate a turn of some 30 degrees and a scale of about 1.5. Beyond, one image is
turned or resized before it is described, and the variant that most matches agree on is kept: the
inliers of a homography tell right from wrong where cosines do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kornia_ditf.dense import DenseDescriptor, one_prompt_each
from kornia_ditf.errors import ImageError, InvalidArgumentError
from kornia_ditf.matching.joint import PCA, check_pca, reduce_pair
from kornia_ditf.matching.match import match
from kornia_ditf.matching.poses import POSES, UPRIGHT, PoseSearch
from kornia_ditf.matching.refinement import refine
from kornia_ditf.matching.verification import Geometry, Verification, verify
from kornia_ditf.matching.views import View, bounding_box, similarity_at, transform_points
from kornia_ditf.preprocess import ImageLike, as_image
from kornia_ditf.registry.lookup import DEFAULT_BACKBONE, create_descriptor
from kornia_ditf.search.alignment import align_inliers
from kornia_ditf.search.closer import look_closer
from kornia_ditf.search.variants import Search, Variant, choose_pose, from_pose, read_search
from kornia_ditf.types import DescriptorMap, Matches
from kornia_ditf.utils.checks import check_one_of

_PLAIN = 0.2, 50
"""Share and number of inliers with which the plain comparison is taken."""

_CLEAR = 0.5
"""Share of inliers from which a turn or a change of scale needs no second comparison."""

_WEAK = 0.08, 60
"""Those with which it is right, but better compared again upright and at one scale."""

_SURE = 0.3, 40
"""Those of a variant after which no other is tried."""

_LIKELY = 0.08, 30
"""Those with which a variant is matched again at full size: chance gives up to 30 inliers."""

_SAMPLES = 100_000
"""Of matches at full size; where a tenth agree on a homography, 69,000 find it (99.9 %)."""

_STRAIGHT = 20.0
"""Degrees of a turn that descriptors bear without being turned for it."""

_ONE_SCALE = 1.5
"""Change of scale that they bear likewise."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A variant tried by a search over rotations and scales.

    Args:
        scale: size at which B was described, relative to A's.
        turn: degrees by which B was turned counter-clockwise against A.
        side_a: longest side at which A was described, in pixels.
        side_b: the same of B.
        matches: how many mutual nearest tokens there were.
        inliers: how many of them agree on a homography.
    """

    scale: float
    turn: float
    side_a: int
    side_b: int
    matches: int
    inliers: int

    @property
    def share(self) -> float:
        """Inliers among the matches, in [0, 1]."""
        return self.inliers / max(1, self.matches)

    def reaches(self, bar: tuple[float, int]) -> bool:
        """Whether the share and the number of inliers reach a bar."""
        return self.share >= bar[0] and self.inliers >= bar[1]


@dataclass(frozen=True, slots=True, eq=False)
class ImageMatches:
    """Matches of two images, and how they were found; see `match_images`.

    Args:
        matches: correspondences in the pixels of the two images as they were given.
        verification: the geometry they agree on.
        threshold: largest error of its inliers in pixels of B: one token.
        attempts: what was tried, the plain comparison first.
        chosen: which attempt the matches come from.
        maps: descriptors of both images as the plain comparison had them.
        poses: the instance distance of each pose of A to B, where poses were tried.
    """

    matches: Matches
    verification: Verification
    threshold: float
    attempts: tuple[Attempt, ...]
    chosen: int
    maps: tuple[DescriptorMap, DescriptorMap]
    poses: Mapping[str, float] = field(default_factory=dict)

    @property
    def pose(self) -> str:
        """The pose of A that was matched, such as `upright` or `mirrored`."""
        return min(self.poses, key=lambda name: self.poses[name], default=UPRIGHT)


def match_images(
    image_a: ImageLike,
    image_b: ImageLike,
    descriptor: DenseDescriptor | str = DEFAULT_BACKBONE,
    prompts: str | Sequence[str] | None = None,
    *,
    search: Search = "both",
    maps: Sequence[DescriptorMap] | None = None,
    geometry: Geometry = "homography",
    min_score: float | None = None,
    ratio: float | None = None,
    refined: bool = True,
    zoom: int | None = None,
    pca: PCA | None = None,
    pose: PoseSearch = "none",
) -> ImageMatches:
    """Match two images, even if one is rotated or much larger than the other.

    The images are compared plainly first. Where less than half of the matches agree on a
    homography that turns or scales the scene, they are compared again, upright and at one scale.
    Where too few agree, the variants of the search are compared at a smaller size, and the one
    with the largest share of inliers is compared again at full size, each image reduced to the
    part that both show. What is compared again replaces the plain matches only if more of its
    matches agree. Variants at which an image would fall below one token are left out.

    Args:
        image_a: one image, as `DenseDescriptor.forward` takes it.
        image_b: the other; sizes may differ.
        descriptor: a dense descriptor, or the name of one for `create_descriptor`.
        prompts: none, one for both images, or one for each, where the descriptor reads text.
        search: `none` compares plainly; `turns` tries every 45 degrees, `scales` sizes of a third
            to three times, and `both` these and quarter turns at half and twice the size. Or a
            list of variants (scale, turn): the size at which B is described relative to A's, and
            by how many degrees B is turned counter-clockwise.
        maps: descriptors of both images by this descriptor, if available.
        geometry: of `verification`: `homography` or `fundamental`.
        min_score: discard matches of a lower cosine, in [-1, 1].
        ratio: discard matches that are not distinctive, in (0, 1]; see `match`.
        refined: move the points of B between tokens, to where the cosine peaks (`refine`), and
            from there to where the pixels of the two images agree best (`align_matches`).
        zoom: look closer at what was matched: parts of both images are described with tokens so
            many times smaller, as far as the images have the pixels, and each point of B is found
            again there, up to a token from where it was. The threshold becomes such a token.
        pca: reduce the tokens of both images together before they are compared, see `match`; None
            takes the descriptor's own, which is 0 (none) but for some presets.
        pose: describe A also mirrored (`flips`), in quarter turns (`turns`) or in all eight poses
            (`both`), and match the one that is nearest to B by `instance_distance`: adaptive pose
            alignment. Each pose takes one more description of A.

    Returns:
        the matches in pixels of both images, their geometry, and what was tried.

    Raises:
        InvalidArgumentError: an image, the search or a number does not fit.
        ImageError: a file cannot be read, or an image is too small or too thin.

    Example:
        >>> image = torch.rand(3, 96, 128)
        >>> found = match_images(image, image.rot90(1, (1, 2)), search="turns")
        >>> found.attempts[found.chosen].turn
        270.0
    """
    variants = read_search(search)
    check_one_of("geometry", geometry, ("homography", "fundamental"))
    if not isinstance(descriptor, DenseDescriptor):
        descriptor = create_descriptor(descriptor)
    images = (as_image(image_a), as_image(image_b))
    check_one_of("pose", pose, POSES)
    if maps is None:
        maps = descriptor.describe_together(images, prompts)
    texts = one_prompt_each(prompts, 2)
    views, used = (View(images[0]), View(images[1])), (maps[0], maps[1])
    poses: dict[str, float] = {}
    if pose != "none":
        posed, map_a, poses = choose_pose(descriptor, views[0], maps, texts[0], pose)
        views, used = (View(posed.image), views[1]), (map_a, maps[1])
    pca = check_pca(descriptor.pca if pca is None else pca)
    pair = _Pair(descriptor, views, used, texts, min_score, ratio, pca, refined)
    best = plain = pair.compare(1.0, 0.0)
    taken = plain.attempt.reaches(_PLAIN)
    if variants and not (taken and (plain.attempt.share >= _CLEAR or plain.is_level())):
        weak = taken or plain.attempt.reaches(_WEAK)
        best = plain if weak else pair.search(variants, plain)
        fine = pair.compare_again(best) if weak or best is not plain else plain
        # By chance, a homography has about as many inliers at any share.
        if fine.attempt.share > plain.attempt.share and fine.attempt.inliers > _LIKELY[1]:
            best = fine
        elif not best.attempt.reaches(_SURE):
            best = plain
    if zoom is not None:
        best = pair.look_closer(best, zoom)
    matches, verification = best.matches, best.verification
    if refined and best.attempt.reaches(_LIKELY):  # a homography by chance moves points wrongly
        matches, verification = align_inliers(views, matches, verification, best.threshold)
    if geometry != "homography":
        verification = verify(matches, geometry, threshold=best.threshold)
    if poses:
        matches, verification = from_pose(posed, matches, verification)
    return ImageMatches(
        matches,
        verification,
        best.threshold,
        tuple(pair.attempts),
        pair.attempts.index(best.attempt),
        (maps[0], maps[1]),
        poses,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """The matches of two views, in pixels of the whole images."""

    matches: Matches
    verification: Verification
    threshold: float
    attempt: Attempt
    token_a: float

    def is_level(self) -> bool:
        """Whether both images show the scene about upright and at one scale."""
        matrix = self.verification.matrix
        assert matrix is not None
        points = self.verification.inlier_matches.points_a
        scale, turn = similarity_at(matrix.numpy(), points)
        return abs(turn) <= _STRAIGHT and 1 / _ONE_SCALE <= scale <= _ONE_SCALE


@dataclass(eq=False)
class _Pair:
    """Two images, and the variants of them that were described."""

    descriptor: DenseDescriptor
    views: tuple[View, View]
    maps: tuple[DescriptorMap, DescriptorMap]
    prompts: Sequence[str | None]
    min_score: float | None
    ratio: float | None
    pca: PCA
    refined: bool
    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sides = tuple(self.descriptor.long_side or max(view.size) for view in self.views)
        self._described = {
            (index, self.sides[index], 0.0): (self.views[index], self.maps[index])
            for index in (0, 1)
        }

    def compare(self, scale: float, turn: float, *, coarse: bool = False) -> _Found:
        """Compare the whole images: the smaller of the two is turned."""
        largest = 0.5 if coarse and scale == 1 else 1.0
        sizes = largest / max(1.0, scale), largest * min(1.0, scale)
        turns = (-turn % 360, 0.0) if sizes[0] < sizes[1] else (0.0, turn % 360)
        described = [
            self._describe(index, round(self.sides[index] * sizes[index]), turns[index])
            for index in (0, 1)
        ]
        return self._match(described, scale, turn, coarse=coarse)

    def search(self, variants: Sequence[Variant], best: _Found) -> _Found:
        """Return the variant with the largest share of inliers, or `best` if none is likely."""
        for scale, turn in variants:
            try:
                found = self.compare(scale, turn, coarse=True)
            except (ImageError, InvalidArgumentError):  # smaller than one token at that size
                continue
            if found.attempt.share > best.attempt.share and found.attempt.reaches(_LIKELY):
                best = found
            if best.attempt.reaches(_SURE):
                break
        return best

    def compare_again(self, found: _Found) -> _Found:
        """Compare the parts that both images show, turned alike, at full size."""
        points = found.verification.inlier_matches
        assert found.verification.matrix is not None
        scale, turn = similarity_at(found.verification.matrix.numpy(), points.points_a)
        boxes = [
            bounding_box(each.double().cpu().numpy(), view.size)
            for each, view in zip((points.points_a, points.points_b), self.views, strict=True)
        ]
        quarter = 90.0 * round(turn / 90)
        turn = quarter if abs(turn - quarter) <= _STRAIGHT else turn
        # An image that is taken whole and upright was described before.
        first = boxes[0] is not None and boxes[1] is None
        turns = (-turn % 360, 0.0) if first else (0.0, turn % 360)
        described = []
        for index, (view, box, side) in enumerate(zip(self.views, boxes, self.sides, strict=True)):
            if box is None and turns[index] % 90 == 0:
                described.append(self._describe(index, side, turns[index]))
                continue
            part = (view if box is None else view.crop(box)).shrink(2 * side).turn(turns[index])
            if turns[index] % 90:  # no more tokens than upright
                thin, wide = (min(each.size) / max(each.size) for each in (view, part))
                side = round(side * min(1.0, (thin / wide) ** 0.5))
            described.append((part, self._run(index, side, part)))
        return self._match(described, scale, turn)

    def look_closer(self, found: _Found, zoom: int) -> _Found:
        """Find the points of B again in parts of the images, at a higher resolution."""
        view_a, view_b = self.views[0], self.views[1].turn(found.attempt.turn)
        points = transform_points(view_b.matrix, found.matches.points_b)
        closer, threshold = look_closer(
            replace(found.matches, points_b=points),
            view_a,
            view_b,
            self.descriptor,
            (found.token_a, found.threshold),
            max(self.maps[0].grid),
            zoom,
            self.prompts,
            self.pca,
        )
        matches = replace(closer, points_b=view_b.to_image(closer.points_b))
        verification = verify(matches, threshold=threshold)
        return replace(found, matches=matches, verification=verification, threshold=threshold)

    def _describe(self, index: int, side: int, turn: float) -> tuple[View, DescriptorMap]:
        key = (index, side, turn)
        if key not in self._described:
            view = self.views[index]
            if side < self.sides[index]:
                view = view.shrink(side)
            # Between right angles the view grows: corners are cut, and the rest keeps its size.
            turned = view.turn(turn).cut(view.size[0] * view.size[1])
            side = round(side * max(turned.size) / max(view.size))
            self._described[key] = turned, self._run(index, side, turned)
        return self._described[key]

    def _run(self, index: int, side: int, view: View) -> DescriptorMap:
        return self.descriptor.with_long_side(side)(view.image, self.prompts[index])

    def _match(
        self,
        described: Sequence[tuple[View, DescriptorMap]],
        scale: float,
        turn: float,
        *,
        coarse: bool = False,
    ) -> _Found:
        (view_a, map_a), (view_b, map_b) = described
        map_a, map_b = reduce_pair(map_a, map_b, self.pca)
        found = match(
            map_a,
            map_b,
            min_score=self.min_score,
            ratio=self.ratio,
            mask_a=view_a.inside,
            mask_b=view_b.inside,
        )
        if self.refined and not coarse:
            found = refine(found, map_a, map_b)
        matches = Matches(
            view_a.to_image(found.points_a), view_b.to_image(found.points_b), found.scores
        )
        # One token of B: closer than that, two neighbouring tokens are as good.
        threshold = _token(view_b, map_b)
        samples = 10_000 if coarse else _SAMPLES
        verification = verify(matches, threshold=threshold, max_iterations=samples)
        side_a, side_b = (max(each.frame.model_size) for each in (map_a, map_b))
        inliers = int(verification.inliers.sum())
        attempt = Attempt(scale, turn % 360, side_a, side_b, len(matches), inliers)
        self.attempts.append(attempt)
        return _Found(matches, verification, threshold, attempt, _token(view_a, map_a))


def _token(view: View, described: DescriptorMap) -> float:
    """Return the longer side of a token, in pixels of the whole image."""
    tokens = zip(view.size, described.grid, strict=True)
    return max(pixels / count for pixels, count in tokens) / view.magnification
