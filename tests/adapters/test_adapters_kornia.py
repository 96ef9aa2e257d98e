from __future__ import annotations

import copy
from typing import Any

import cv2
import kornia.feature as KF
import pytest
import torch
import torch.nn.functional as F
from kornia.color import rgb_to_grayscale
from torch import Tensor, nn

from kornia_ditf import create_ditf
from kornia_ditf.adapters.kornia import DiTFDescriptor, DiTFFeature
from kornia_ditf.adapters.opencv import OpenCVFeature
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError, UnknownBackboneError
from kornia_ditf.matching.detection import is_filled


def lafs_at(points: list[list[float]]) -> Tensor:
    centres = torch.tensor(points)[None]
    return KF.laf_from_center_scale_ori(centres, torch.full((1, len(points), 1, 1), 6.0))


POINTS = [[0.0, 0.0], [40.25, 17.5], [159.0, 127.0]]


def test_a_frame_is_described_by_the_descriptor_at_its_centre(
    nano: DiTF, images: list[Tensor]
) -> None:
    found = DiTFDescriptor(nano)(images[0], lafs_at(POINTS))
    expected = nano(images[0]).at(torch.tensor(POINTS)[None])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_any_dense_descriptor_is_wrapped(conv: Any, images: list[Tensor]) -> None:
    descriptor = DiTFDescriptor(conv)
    assert descriptor.width == 16
    found = descriptor(images[0], lafs_at(POINTS))
    expected = conv(images[0]).at(torch.tensor(POINTS)[None])
    torch.testing.assert_close(found, expected.detach(), atol=1e-6, rtol=0)


def test_a_point_on_a_pixel_has_that_pixels_descriptor(conv: Any, images: list[Tensor]) -> None:
    descriptor = DiTFDescriptor(conv)
    everywhere = descriptor.describe(images[0])
    assert everywhere.shape == (1, 16, 128, 160)
    found = descriptor(images[0], lafs_at([[31.0, 90.0]]))
    torch.testing.assert_close(found[0, 0], everywhere[0, :, 90, 31], atol=1e-6, rtol=0)


def test_describe_reads_normalised_keypoints_as_dedode_does(
    conv: Any, images: list[Tensor]
) -> None:
    descriptor = DiTFDescriptor(conv)
    keypoints = torch.tensor([[[-0.5, 0.25], [0.1, 0.9], [-1.0, 1.0]]])
    found = descriptor.describe(images[0], keypoints)
    map_at_pixels = F.interpolate(conv(images[0]).data, (128, 160), mode="bilinear")
    sampled = F.grid_sample(
        map_at_pixels, keypoints[:, None], padding_mode="border", align_corners=False
    )
    torch.testing.assert_close(found, F.normalize(sampled[:, :, 0].mT, dim=-1).detach())


def test_dense_is_the_map_itself_and_what_a_call_without_frames_gives(
    nano: DiTF, images: list[Tensor]
) -> None:
    descriptor = DiTFDescriptor(nano)
    assert torch.equal(descriptor.dense(images[0]), nano(images[0]).data)
    assert torch.equal(descriptor(images[0]), nano(images[0]).data)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_grey_is_taken_and_alpha_is_ignored(
    channels: int, nano: DiTF, images: list[Tensor]
) -> None:
    image = images[0] if channels > 2 else rgb_to_grayscale(images[0])
    with_alpha = torch.cat([image, torch.rand(1, 1, 128, 160)], 1)
    given = with_alpha if channels in (2, 4) else image
    frames = lafs_at(POINTS)
    found = DiTFDescriptor(nano)(given, frames)
    torch.testing.assert_close(found, nano(image).at(frames[..., 2]), atol=1e-6, rtol=0)
    lafs, _, _ = DiTFFeature(nano, detector="sift")(given)
    assert lafs.shape[1] > 20


def test_empty_slots_are_zero_and_frames_that_are_not_finite_do_no_harm(
    conv: Any, images: list[Tensor]
) -> None:
    frames = lafs_at([[5.0, 5.0], [9.0, 9.0], [20.0, 20.0]])
    frames[0, 1], frames[0, 2, 0, 2] = 0, torch.nan
    found = DiTFDescriptor(conv)(images[0], frames)
    assert found.norm(dim=-1)[0].round().tolist() == [1, 0, 0]


def test_a_batch_is_described_as_its_images_are(conv: Any, images: list[Tensor]) -> None:
    batch = torch.cat([*images, images[0].flip(3)])
    frames = torch.cat([lafs_at(POINTS) + index for index in range(3)])
    descriptor = DiTFDescriptor(conv)
    together = descriptor(batch, frames)
    for index in range(3):
        alone = descriptor(batch[index : index + 1], frames[index : index + 1])
        torch.testing.assert_close(together[index], alone[0], atol=1e-6, rtol=0)
    assert descriptor(batch, frames[:, :0]).shape == (3, 0, 16)


DETECTORS = {
    "blobs": lambda: KF.ScaleSpaceDetector(40),
    "hessian": lambda: KF.ScaleSpaceDetector(40, resp_module=KF.BlobHessian()),
    "corners": lambda: KF.ScaleSpaceDetector(40, resp_module=KF.CornerGFTT()),
    "keynet": lambda: KF.KeyNetDetector(False, 40),
}


@pytest.mark.parametrize("name", list(DETECTORS))
def test_kornias_local_feature_runs_with_every_detector(
    name: str, conv: Any, images: list[Tensor]
) -> None:
    grey = rgb_to_grayscale(images[0])
    detector = DETECTORS[name]()
    with torch.no_grad():
        lafs, _responses, descriptors = KF.LocalFeature(detector, DiTFDescriptor(conv), 2.0)(grey)
    assert lafs.shape == (1, 40, 2, 3) and descriptors.shape == (1, 40, 16)
    assert lafs.dtype == descriptors.dtype == torch.float32
    filled = is_filled(lafs)
    expected = conv(grey).at(KF.get_laf_center(lafs)) * filled[..., None]
    torch.testing.assert_close(descriptors, expected.detach(), atol=1e-6, rtol=0)
    own, _, read = DiTFFeature(conv, detector=detector, scaling_coef=2.0)(grey)
    torch.testing.assert_close(own[0], lafs[filled])
    torch.testing.assert_close(read[0], descriptors[filled])


@pytest.mark.parametrize("name", list(DETECTORS))
def test_a_detector_of_one_grey_image_serves_a_batch_in_colour(
    name: str, conv: Any, images: list[Tensor]
) -> None:
    batch = torch.cat([*images, torch.full_like(images[0], 0.5)])
    feature = DiTFFeature(conv, detector=DETECTORS[name]())
    with torch.no_grad():
        lafs, responses, descriptors = feature(batch)
        alone, _, read = feature(images[1])
    assert len(lafs) == len(responses) == len(descriptors) == 3
    count = alone.shape[1]
    torch.testing.assert_close(lafs[1, :count], alone[0])
    torch.testing.assert_close(descriptors[1, :count], read[0])
    assert not lafs[1, count:].any() and not descriptors[1, count:].any()


def test_the_grids_frames_stand_on_the_tokens(nano: DiTF, images: list[Tensor]) -> None:
    lafs, responses, descriptors = DiTFFeature(nano)(images[0])
    maps = nano(images[0])
    assert torch.equal(lafs[0, :, :, 2], maps.centres())
    height, width = 128 / maps.grid[0], 160 / maps.grid[1]
    assert lafs[0, 0, :, :2].flatten().tolist() == pytest.approx([width / 2, 0, 0, height / 2])
    assert responses.unique().tolist() == [1]
    torch.testing.assert_close(descriptors, F.normalize(maps.tokens, dim=-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("limit", [1, 7, 100, 10_000])
def test_tokens_are_thinned_evenly(limit: int, conv: Any, images: list[Tensor]) -> None:
    lafs, _, _ = DiTFFeature(conv, max_keypoints=limit)(images[0])
    assert 0 < lafs.shape[1] <= limit
    assert (lafs[0, :, :, 2].mean(0) - torch.tensor([79.5, 63.5])).abs().max() < 41


def test_the_strongest_of_a_detectors_frames_are_kept(conv: Any, images: list[Tensor]) -> None:
    detector = KF.ScaleSpaceDetector(40)
    _, all_responses, _ = DiTFFeature(conv, detector=detector)(images[0])
    _, responses, _ = DiTFFeature(conv, detector=detector, max_keypoints=10)(images[0])
    expected = all_responses[0].topk(10).values
    torch.testing.assert_close(responses[0].sort(descending=True).values, expected)


@pytest.mark.parametrize("detector", [None, "sift", DETECTORS["blobs"](), DETECTORS["keynet"]()])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_nothing_is_found_outside_a_mask(
    detector: Any, dtype: torch.dtype, conv: Any, images: list[Tensor]
) -> None:
    mask = torch.zeros(1, 1, 128, 160)
    mask[..., 30:90, 40:120] = 1
    feature = DiTFFeature(conv, detector=detector)
    with torch.no_grad():
        lafs, _, _ = feature(images[0], mask.to(dtype))
        x, y = lafs[0, :, :, 2].unbind(-1)
        assert lafs.shape[1] > 0
        assert x.min() >= 39.5 and x.max() <= 119.5 and y.min() >= 29.5 and y.max() <= 89.5
        assert torch.equal(feature(images[0], mask[:, 0].to(dtype))[0], lafs)


@pytest.mark.parametrize("detector", [None, "orb"])
def test_an_empty_mask_gives_empty_results(detector: Any, conv: Any, images: list[Tensor]) -> None:
    lafs, responses, descriptors = DiTFFeature(conv, detector=detector)(
        images[0], torch.zeros(1, 1, 128, 160)
    )
    assert lafs.shape == (1, 0, 2, 3)
    assert responses.shape == (1, 0)
    assert descriptors.shape == (1, 0, 16)


def test_masks_of_a_batch_end_with_empty_slots(conv: Any, images: list[Tensor]) -> None:
    masks = torch.ones(2, 1, 128, 160)
    masks[1, :, :, 80:] = 0
    lafs, responses, descriptors = DiTFFeature(conv)(torch.cat(images), masks)
    assert is_filled(lafs).sum(1).tolist() == [320, 160]
    assert not responses[1, 160:].any() and not descriptors[1, 160:].any()
    both, _, _ = DiTFFeature(conv)(torch.cat(images), masks[1:])
    assert is_filled(both).sum(1).tolist() == [160, 160]


@pytest.mark.parametrize("name", ["sift", "orb", "gftt", "fast", "mser"])
def test_opencvs_detectors_stand_where_kornias_do(
    name: str, conv: Any, images: list[Tensor], bgr: list[Any]
) -> None:
    lafs, _, descriptors = DiTFFeature(conv, detector=name)(images[0])
    assert descriptors.shape == (1, lafs.shape[1], 16)
    sift = cv2.SIFT_create()
    lafs, _responses, _ = DiTFFeature(conv, detector=sift)(images[0])
    grey = (rgb_to_grayscale(images[0])[0, 0] * 255).round().byte().numpy()
    keypoints = list({k.pt: k for k in reversed(sift.detect(grey))}.values())[::-1]
    torch.testing.assert_close(lafs[0, :, :, 2], torch.from_numpy(cv2.KeyPoint.convert(keypoints)))
    sizes = torch.tensor([k.size for k in keypoints])
    torch.testing.assert_close(2 * KF.get_laf_scale(lafs).flatten(), sizes)
    angles = torch.tensor([k.angle for k in keypoints]).deg2rad()
    axes = F.normalize(lafs[0, :, :, 0], dim=-1)
    torch.testing.assert_close(
        axes, torch.stack([angles.cos(), angles.sin()], -1), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("mode", ["nn", "mnn", "snn", "smnn"])
def test_every_matching_function_takes_the_descriptors(
    mode: str, nano: DiTF, images: list[Tensor]
) -> None:
    _, _, descriptors = DiTFFeature(nano)(torch.cat(images))
    distances, indices = getattr(KF, f"match_{mode}")(descriptors[0], descriptors[1])
    assert len(distances) == len(indices) > 0
    matcher = KF.DescriptorMatcher(mode)
    assert len(matcher(descriptors[0], descriptors[1])[1]) > 0


@pytest.mark.parametrize("mode", ["fginn", "adalam"])
def test_matchers_that_want_frames_take_ours(mode: str, nano: DiTF, images: list[Tensor]) -> None:
    lafs, _, descriptors = DiTFFeature(nano)(torch.cat(images))
    sides = (descriptors[0], descriptors[1], lafs[:1], lafs[1:])
    distances, indices = getattr(KF, f"match_{mode}")(*sides)
    assert len(distances) == len(indices) > 0
    _, again = KF.GeometryAwareDescriptorMatcher(mode)(*sides)
    assert len(again) > 0


def test_descriptors_are_detached_unless_gradients_are_asked_for(images: list[Tensor]) -> None:
    image = images[0].clone().requires_grad_()
    frames = lafs_at(POINTS).requires_grad_()
    options: dict[str, Any] = {"long_side": 96, "block": 1}
    assert not DiTFDescriptor("nano", **options)(image, frames).requires_grad
    through = DiTFDescriptor("nano", gradients=True, **options)
    for output in (through(image, frames), through.describe(image, torch.zeros(1, 1, 2))):
        (gradient,) = torch.autograd.grad(output.sum(), image)
        assert gradient.abs().sum() > 0
    (gradient,) = torch.autograd.grad(through(image, frames).sum(), frames)
    assert gradient[..., 2].abs().sum() > 0 and not gradient[..., :2].any()
    ditf = create_ditf("nano", gradients=True, **options)
    assert DiTFDescriptor(ditf)(image, frames).requires_grad
    with pytest.raises(InvalidArgumentError, match="does not propagate gradients"):
        DiTFDescriptor(create_ditf("nano", **options), gradients=True)


def test_a_descriptor_without_a_configuration_is_detached_too(
    conv: Any, images: list[Tensor]
) -> None:
    image = images[0].clone().requires_grad_()
    assert not DiTFDescriptor(conv)(image, lafs_at(POINTS)).requires_grad
    assert DiTFDescriptor(conv, gradients=True)(image, lafs_at(POINTS)).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_changes_the_backbone_and_no_frame(
    dtype: torch.dtype, nano: DiTF, images: list[Tensor]
) -> None:
    exact = DiTFFeature(nano)
    half = copy.deepcopy(exact).to(dtype)
    assert half.descriptor.descriptor.backbone.transformer.dtype == dtype
    for image in (images[0], images[0].to(dtype)):
        lafs, _, descriptors = half(image)
        assert lafs.dtype == descriptors.dtype == torch.float32
        torch.testing.assert_close(lafs, exact(images[0])[0])
        assert F.cosine_similarity(descriptors, exact(images[0])[2], dim=-1).min() > 0.98
    assert nano.backbone.transformer.dtype == torch.float32  # type: ignore[union-attr]


def test_options_reach_the_module() -> None:
    feature = DiTFFeature(
        "nano", block=3, timestep=40, treatment="raw", ensemble=2, dtype="bfloat16", device="cpu"
    )
    config = feature.descriptor.descriptor.config
    assert (config.block, config.timestep, config.treatment, config.ensemble) == (3, 40, "raw", 2)
    assert next(feature.parameters()).dtype == torch.bfloat16


def test_the_state_holds_no_backbone_and_loads_without_one(nano: DiTF) -> None:
    local = KF.LocalFeature(nn.Identity(), DiTFDescriptor(nano))
    assert not local.state_dict()
    local.load_state_dict(local.state_dict())
    assert nano.backbone.state_dict()


@pytest.mark.parametrize("detector", ["sift", "orb"])
def test_a_position_with_several_orientations_is_one_keypoint(
    detector: str, nano: DiTF, images: list[Tensor]
) -> None:
    lafs, _, _ = DiTFFeature(nano, detector=detector)(images[0])
    assert len(lafs[0, :, :, 2].unique(dim=0)) == lafs.shape[1] > 20


@pytest.mark.parametrize("size", [16, 32, 41, 80])
@pytest.mark.parametrize("grey", [True, False])
def test_patches_from_kornia_are_refused_whatever_their_size(
    size: int, grey: bool, nano: DiTF, images: list[Tensor]
) -> None:
    descriptor = DiTFDescriptor(nano)
    frames = lafs_at(POINTS)
    for module in (
        KF.LAFDescriptor(descriptor, size, grey),
        lambda *given: KF.get_laf_descriptors(*given, descriptor, size, grey),
    ):
        with pytest.raises(InvalidArgumentError, match="cannot take the patches"):
            module(images[0], frames)
    assert descriptor(torch.rand(1, 3, size, size)).ndim == 4


@pytest.mark.parametrize("wrapper", [DiTFDescriptor, DiTFFeature, OpenCVFeature])
def test_a_plain_module_is_refused_as_a_descriptor(wrapper: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="Conv2d: subclass kornia_ditf.DenseDescriptor"):
        wrapper(nn.Conv2d(3, 8, 8))


def test_batches_of_no_image_are_refused(nano: DiTF) -> None:
    for call in (DiTFDescriptor(nano), DiTFFeature(nano)):
        with pytest.raises(InvalidArgumentError, match="0, 3, 64, 64"):
            call(torch.zeros(0, 3, 64, 64))


WRONG: dict[str, tuple[Any, str]] = {
    "no frames": (lambda d, i: d(i, torch.zeros(1, 3, 2)), "lafs must .*B, N, 2, 3.*got .1, 3, 2"),
    "frames of others": (lambda d, i: d(i, torch.ones(2, 3, 2, 3)), "lafs must be of 1 images"),
    "no batch": (lambda d, i: d.dense(i[0]), "img must .*B, C, H, W"),
    "no tensor": (lambda d, i: d.dense(i.numpy()), "img must .*got ndarray"),
    "5 channels": (lambda d, i: d.dense(torch.rand(1, 5, 64, 64)), "got .1, 5, 64, 64"),
    "0 to 255": (lambda d, i: d.dense(i * 255), "divide by 255"),
    "keypoints": (lambda d, i: d.describe(i, torch.zeros(3, 2)), "keypoints must"),
    "mask": (lambda d, i: DiTFFeature(d)(i, torch.ones(1, 1, 9, 9)), "mask must .*128, 160"),
    "detector": (lambda d, i: DiTFFeature(d, detector="sfit"), "did you mean 'sift'"),
    "detector's type": (lambda d, i: DiTFFeature(d, detector=3), "detector must be"),
    "options": (lambda d, i: DiTFDescriptor(d.descriptor, block=3), "block cannot be applied"),
    "max_keypoints": (lambda d, i: DiTFFeature(d, max_keypoints=0), "max_keypoints must be 1"),
}


@pytest.mark.parametrize("mistake", list(WRONG))
def test_a_mistake_is_named(mistake: str, conv: Any, images: list[Tensor]) -> None:
    make, message = WRONG[mistake]
    with pytest.raises(InvalidArgumentError, match=message):
        make(DiTFDescriptor(conv), images[0])


def test_a_wrong_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownBackboneError, match="did you mean 'nano'"):
        DiTFDescriptor("nanno")


def test_large_frames_are_read_from_smaller_copies_of_the_image(images: list[Tensor]) -> None:
    several, single = (
        DiTFFeature("nano", detector="sift", multiscale=multiscale, long_side=96)
        for multiscale in (None, False)
    )
    assert several.multiscale and not single.multiscale
    image = images[0]
    lafs, _, read = several(image)
    full = single(image)[2]
    diameters = 2 * KF.get_laf_scale(lafs)[0, :, 0, 0] * 96 / max(image.shape[2:])
    small = diameters <= 3
    torch.testing.assert_close(read[0, small], full[0, small])
    large = (diameters - 6).abs() < 0.5  # twice the finest: from a copy of half the size
    half = DiTFDescriptor("nano", long_side=48)(image, lafs)
    assert large.any()
    torch.testing.assert_close(read[0, large], half[0, large])
