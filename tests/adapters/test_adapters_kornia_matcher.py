from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kornia.feature as KF
import pytest
import torch
from kornia.color import rgb_to_grayscale
from kornia.contrib import ImageStitcher
from kornia.geometry.linalg import transform_points
from kornia.geometry.ransac import RANSAC
from kornia.geometry.transform import warp_perspective
from kornia.tracking import HomographyTracker
from torch import Tensor
from torch.utils.data import DataLoader

from kornia_ditf import match, read_image
from kornia_ditf.adapters.kornia import DiTFDescriptor, DiTFFeature
from kornia_ditf.adapters.kornia_matcher import (
    CosineMatcher,
    DiTFMatcher,
    RatioMatcher,
    create_matcher,
)
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError, UnknownBackboneError

DATA = Path(__file__).parents[2] / "examples" / "data"


def pair(images: list[Tensor], **more: Any) -> dict[str, Any]:
    return {"image0": images[0], "image1": images[1], **more}


def test_matches_are_those_of_the_direct_call(nano: DiTF, images: list[Tensor]) -> None:
    found = DiTFMatcher(nano, search="none")(pair(images))
    direct = match(nano(images[0]), nano(images[1]))
    order = found["confidence"].argsort(descending=True, stable=True)
    assert len(direct) > 20
    torch.testing.assert_close(found["confidence"][order], direct.scores, atol=1e-6, rtol=0)
    rows = torch.cat([found["keypoints0"], found["keypoints1"]], 1).tolist()
    expected = torch.cat([direct.points_a, direct.points_b], 1).tolist()
    assert sorted(rows) == sorted(expected)
    assert torch.equal(found["lafs0"][0, :, :, 2], found["keypoints0"])
    assert found["batch_indexes"].dtype == torch.int64


def test_kornias_own_matcher_gives_the_same_with_our_parts(
    nano: DiTF, images: list[Tensor]
) -> None:
    theirs = KF.LocalFeatureMatcher(DiTFFeature(nano), CosineMatcher())(pair(images))
    ours = DiTFMatcher(nano, search="none")(pair(images))
    assert theirs.keys() == ours.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])


@pytest.mark.parametrize("matcher", ["nn", "mnn", "adalam"])
def test_kornias_matchers_serve_by_name_or_as_modules(
    matcher: str, nano: DiTF, images: list[Tensor]
) -> None:
    by_name = DiTFMatcher(nano, matcher)(pair(images))
    assert len(by_name["confidence"]) > 0
    kind = KF.GeometryAwareDescriptorMatcher if matcher == "adalam" else KF.DescriptorMatcher
    as_module = DiTFMatcher(DiTFFeature(nano), kind(matcher))(pair(images))
    torch.testing.assert_close(as_module["keypoints1"], by_name["keypoints1"])


def shares_within(pixels: float, found: dict[str, Tensor]) -> tuple[int, float]:
    """Count matches on the reduced graffiti pair, and those that the homography confirms."""
    truth = json.loads((DATA / "graffiti.json").read_text())["homography_a_to_b"]
    shrink = torch.diag(torch.tensor([0.25, 0.25, 1.0], dtype=torch.float64))
    homography = shrink @ torch.tensor(truth, dtype=torch.float64) @ shrink.inverse()
    mapped = transform_points(homography[None], found["keypoints0"].double()[None])[0]
    right = (mapped - found["keypoints1"]).norm(dim=1) <= pixels
    return len(right), float(right.double().mean())


@pytest.mark.parametrize("name", ["snn", "smnn", "fginn"])
def test_ratio_tests_keep_right_matches_of_detected_keypoints(
    name: str, nano: DiTF, images: list[Tensor]
) -> None:
    found = DiTFMatcher(nano, name, detector="sift")(pair(images))
    count, share = shares_within(8, found)
    plain, plain_share = shares_within(8, DiTFMatcher(nano, detector="sift")(pair(images)))
    assert count > 10 and share > plain_share and (name != "smnn" or count <= plain)


def test_the_second_nearest_is_searched_outside_the_firsts_neighbourhood() -> None:
    places = torch.tensor([[10.0, 10.0], [14.0, 10.0], [90.0, 10.0]])
    lafs = KF.laf_from_center_scale_ori(places[None])
    angles = torch.tensor([0.0, 0.1, 1.0])
    descriptors = torch.stack([angles.cos(), angles.sin()], 1)
    query, at = torch.tensor([[1.0, -0.05]]), lafs[:, :1]
    query = query / query.norm()
    chord = [float((query[0] - other).norm()) for other in descriptors]
    for radius, second in ((3.0, chord[1]), (5.0, chord[2])):
        matcher = RatioMatcher(1.0, radius=radius, mutual=False)
        ratios, indices = matcher(query, descriptors, at, lafs)
        assert indices.tolist() == [[0, 0]]
        assert float(ratios) == pytest.approx(chord[0] / second, rel=1e-4)
    assert len(RatioMatcher(1.0, radius=500.0)(query, descriptors, at, lafs)[1]) == 0


def test_mutual_ratios_equal_a_plain_computation(nano: DiTF, images: list[Tensor]) -> None:
    lafs, _, descriptors = DiTFFeature(nano, detector="sift")(torch.cat(images))
    ratios, indices = RatioMatcher(0.9, radius=9.0)(
        descriptors[0], descriptors[1], lafs[:1], lafs[1:]
    )
    places = lafs[..., 2].double()
    distances = (2 - 2 * descriptors[0].double() @ descriptors[1].double().T).clamp_min(0).sqrt()

    def ratio(row: Tensor, positions: Tensor) -> tuple[int, float]:
        best = int(row.argmin())
        outside = (positions - positions[best]).norm(dim=1) > 9
        return best, float(row[best] / row[outside].min())

    expected = {}
    for a, row in enumerate(distances):
        b, forth = ratio(row, places[1])
        back, other = ratio(distances[:, b], places[0])
        if back == a and max(forth, other) <= 0.9:
            expected[a, b] = max(forth, other)
    assert {tuple(pair) for pair in indices.tolist()} == set(expected)
    assert ratios.flatten().tolist() == pytest.approx(
        [expected[tuple(pair)] for pair in indices.tolist()], abs=1e-3
    )


def test_grey_batches_of_three_are_matched_pair_by_pair(nano: DiTF, images: list[Tensor]) -> None:
    first = rgb_to_grayscale(torch.cat([images[0], images[1], images[0].flip(3)]))
    second = rgb_to_grayscale(torch.cat([images[1], images[0], images[1].flip(3)]))
    matcher = DiTFMatcher(nano, detector=KF.KeyNetDetector(False, 60))
    with torch.no_grad():
        together = matcher({"image0": first, "image1": second})
        for index in range(3):
            rows = slice(index, index + 1)
            alone = matcher({"image0": first[rows], "image1": second[rows]})
            mine = together["batch_indexes"] == index
            torch.testing.assert_close(together["keypoints0"][mine], alone["keypoints0"])
            torch.testing.assert_close(
                together["confidence"][mine], alone["confidence"], atol=1e-5, rtol=0
            )


@pytest.mark.parametrize("axes", [3, 4])
def test_masks_are_honoured(axes: int, nano: DiTF, images: list[Tensor]) -> None:
    mask = torch.zeros(1, 128, 160)
    mask[:, 20:100, 30:130] = 1
    mask = mask if axes == 3 else mask[:, None]
    local = KF.LocalFeature(KF.ScaleSpaceDetector(100), DiTFDescriptor(nano))
    for matcher in (DiTFMatcher(nano), DiTFMatcher(local)):
        grey = [rgb_to_grayscale(image) for image in images]
        with torch.no_grad():
            found = matcher(pair(grey, mask0=mask, mask1=mask))
        for name in ("keypoints0", "keypoints1"):
            x, y = found[name].unbind(1)
            assert x.min() > 29 and x.max() < 130 and y.min() > 19 and y.max() < 100


@pytest.mark.parametrize("matcher", [None, "snn", "adalam"])
def test_no_match_is_an_empty_result(matcher: Any, conv: Any, images: list[Tensor]) -> None:
    nothing = torch.zeros(1, 1, 128, 160)
    found = DiTFMatcher(conv, matcher)(pair(images, mask1=nothing))
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    assert shapes == {
        "keypoints0": (0, 2),
        "keypoints1": (0, 2),
        "lafs0": (1, 0, 2, 3),
        "lafs1": (1, 0, 2, 3),
        "confidence": (0,),
        "batch_indexes": (0,),
    }


def test_low_scores_are_left_out(nano: DiTF, images: list[Tensor]) -> None:
    confidence = DiTFMatcher(nano, min_score=0.8)(pair(images))["confidence"]
    assert 0 < len(confidence) < len(DiTFMatcher(nano)(pair(images))["confidence"])
    assert confidence.min() >= 0.8


def test_images_with_alpha_are_matched_without_it(nano: DiTF, images: list[Tensor]) -> None:
    with_alpha = [torch.cat([image, torch.rand(1, 1, 128, 160)], 1) for image in images]
    found, expected = (DiTFMatcher(nano)(pair(each)) for each in (with_alpha, images))
    torch.testing.assert_close(found["keypoints1"], expected["keypoints1"])


def test_confidence_carries_gradients_when_they_are_asked_for(images: list[Tensor]) -> None:
    image = images[0].clone().requires_grad_()
    options: dict[str, Any] = {"long_side": 96, "block": 1}
    through = create_matcher("nano", gradients=True, **options)(pair([image, images[1]]))
    (gradient,) = torch.autograd.grad(through["confidence"].sum(), image)
    assert gradient.abs().sum() > 0
    detached = create_matcher("nano", search="none", **options)(pair([image, images[1]]))
    torch.testing.assert_close(through["confidence"].detach(), detached["confidence"])
    assert not detached["confidence"].requires_grad


def test_kornias_stitcher_joins_two_views(nano: DiTF, images: list[Tensor]) -> None:
    torch.manual_seed(0)
    whole = images[0]
    left, right = whole[..., :112], whole[..., 48:]
    panorama = ImageStitcher(DiTFMatcher(nano, min_score=0.5), estimator="ransac")(left, right)
    assert abs(panorama.shape[-1] - 160) <= 4
    joined, truth = panorama[..., 8:-8, 8:150], whole[..., 8:-8, 8:150]
    assert (joined - truth).abs().mean() < 0.06


class Counting(DiTFFeature):
    """Counts how often images are described."""

    calls = 0

    def forward(self, img: Tensor, mask: Tensor | None = None) -> Any:
        self.calls += 1
        return super().forward(img, mask)


def test_kornias_tracker_follows_a_plane_and_describes_it_once(
    nano: DiTF, images: list[Tensor]
) -> None:
    torch.manual_seed(0)
    target = rgb_to_grayscale(images[0])
    feature = Counting(nano)
    matcher = DiTFMatcher(feature)
    tracker = HomographyTracker(matcher, matcher, RANSAC("homography", inl_th=4.0), 12)
    tracker.set_target(target)
    described = feature.calls
    corners = torch.tensor([[[40.0, 30.0], [120.0, 30.0], [120.0, 100.0], [40.0, 100.0]]])
    for frame in range(1, 4):
        truth = torch.tensor([[[1.0, 0.03, 3.0 * frame], [-0.03, 1.0, 2.0], [0.0, 0.0, 1.0]]])
        homography, found = tracker(warp_perspective(target, truth, (128, 160)))
        assert found
        error = transform_points(homography[None], corners) - transform_points(truth, corners)
        assert error.norm(dim=-1).max() < 4
        assert feature.calls == described + frame


def test_features_that_are_given_are_not_described_again(nano: DiTF, images: list[Tensor]) -> None:
    feature = Counting(nano)
    matcher = DiTFMatcher(feature, search="none")
    known = matcher.extract_features(images[0])
    given = {f"{name}0": value for name, value in known.items()}
    found = matcher(pair(images, **given))
    assert feature.calls == 2
    torch.testing.assert_close(found["keypoints0"], matcher(pair(images))["keypoints0"])


def test_options_reach_the_backbone_through_create_matcher() -> None:
    matcher = create_matcher(
        "nano", detector="sift", block=3, timestep=40, treatment="raw", ensemble=2, dtype="bf16"
    )
    config = matcher.local_feature.descriptor.descriptor.config
    assert (config.block, config.timestep, config.treatment, config.ensemble) == (3, 40, "raw", 2)
    assert next(matcher.parameters()).dtype == torch.bfloat16


def test_mistakes_are_named(conv: Any, images: list[Tensor]) -> None:
    with pytest.raises(UnknownBackboneError, match="did you mean 'nano'"):
        create_matcher("nanoo")
    with pytest.raises(InvalidArgumentError, match="nano has no option 'blok'"):
        create_matcher("nano", blok=3)
    with pytest.raises(InvalidArgumentError, match="matcher must be a module or one of nn"):
        DiTFMatcher(conv, "lightglu")
    with pytest.raises(InvalidArgumentError, match=r"min_score must lie in \[-1, 1\], got 2"):
        DiTFMatcher(conv, min_score=2)
    with pytest.raises(InvalidArgumentError, match="min_score cannot be combined with matcher"):
        DiTFMatcher(conv, "nn", min_score=0.5)
    with pytest.raises(
        InvalidArgumentError, match="detector cannot be applied to an existing feature"
    ):
        DiTFMatcher(DiTFFeature(conv), detector="sift")
    with pytest.raises(InvalidArgumentError, match="equal batch sizes of at least 1, got 1 and 2"):
        DiTFMatcher(conv)({"image0": images[0], "image1": torch.cat(images)})
    with pytest.raises(InvalidArgumentError, match="lafs0 and descriptors0 must describe the same"):
        DiTFMatcher(conv)(
            pair(images, lafs0=torch.ones(1, 2, 2, 3), descriptors0=torch.ones(1, 3, 16))
        )


class Matched(torch.utils.data.Dataset[int]):
    """Matches an image with itself where it is read, in a worker."""

    def __init__(self, matcher: DiTFMatcher, image: Tensor) -> None:
        self.matcher, self.image = matcher, image

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        found = self.matcher({"image0": self.image, "image1": self.image})
        return len(found["confidence"])


@pytest.mark.slow
def test_a_matcher_travels_to_a_spawned_worker(nano: DiTF, images: list[Tensor]) -> None:
    matcher = DiTFMatcher(DiTFDescriptor(nano), detector="sift")
    work = Matched(matcher, images[0])
    loader = DataLoader(work, num_workers=1, multiprocessing_context="spawn")
    assert [int(count) for count in loader] == [work[0]]


def test_modules_and_data_that_do_not_fit_are_named() -> None:
    with pytest.raises(InvalidArgumentError, match="Conv2d: wrap a dense descriptor in DiTF"):
        DiTFMatcher(torch.nn.Conv2d(3, 8, 8))
    for arguments in ({"ratio": 0}, {"ratio": 1.5}, {"radius": -1}, {"radius": float("nan")}):
        with pytest.raises(InvalidArgumentError, match="ratio must lie|radius must be"):
            RatioMatcher(**arguments)
    lafs, descriptors = torch.zeros(0, 4, 2, 3), torch.zeros(0, 4, 16)
    empty = {"lafs0": lafs, "lafs1": lafs, "descriptors0": descriptors, "descriptors1": descriptors}
    with pytest.raises(InvalidArgumentError, match="at least 1, got 0 and 0"):
        DiTFMatcher("nano")(empty)


@pytest.mark.parametrize("search", ["turns", None])
def test_a_search_matches_turned_images_in_their_own_pixels(search: str | None) -> None:
    image = read_image(DATA / "graffiti_a.jpg").float()
    turned = image.rot90(1, (2, 3))
    matcher = create_matcher("nano", long_side=168, search=search)
    mask = torch.zeros(1, *image.shape[2:])
    mask[..., :300] = 1
    data = {"image0": image, "image1": turned}
    found = matcher({**data, "mask0": mask} if search else data)
    x, y = found["keypoints0"].unbind(1)
    truth = torch.stack([y, image.shape[3] - 1 - x], 1)
    assert len(x) > 300 and (x.max() < 300) == (search is not None)
    assert (found["keypoints1"] - truth).norm(dim=1).median() < 2
    assert torch.equal(found["lafs1"][0, :, :, 2], found["keypoints1"])
    assert found["confidence"].max() <= 1 and not found["batch_indexes"].any()


def test_only_whole_images_are_searched_by_default(nano: DiTF, images: list[Tensor]) -> None:
    matcher = DiTFMatcher(nano)
    masks = {"mask0": torch.ones(1, 128, 160), "mask1": torch.ones(1, 128, 160)}
    given = {f"{name}0": each for name, each in matcher.extract_features(images[0]).items()}
    searched = matcher(pair(images))["keypoints1"]
    for matching, more in [
        (matcher, masks),
        (matcher, given),
        (DiTFMatcher(nano, max_keypoints=400), {}),
        (DiTFMatcher(nano, CosineMatcher()), {}),
    ]:
        plainly = DiTFMatcher(matching.local_feature, search="none")(pair(images, **more))
        found = matching(pair(images, **more))["keypoints1"]
        torch.testing.assert_close(found, plainly["keypoints1"])
        assert not torch.equal(found, searched)


def test_a_search_goes_with_tokens_alone() -> None:
    for options in ({"detector": "sift"}, {"matcher": "smnn"}):
        with pytest.raises(InvalidArgumentError, match="search='both' matches tokens"):
            create_matcher("nano", search="both", **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="search must be one of none"):
        create_matcher("nano", search="rotations")
    image = torch.rand(2, 3, 64, 64)
    with pytest.raises(InvalidArgumentError, match="equal batch sizes of at least 1, got 2 and 1"):
        create_matcher("nano", search="both")({"image0": image, "image1": image[:1]})
