from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from toy_backbone import SPIKE, ToyBackbone, config

from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import ImageError, InvalidArgumentError
from kornia_ditf.massive import discard_channels
from kornia_ditf.matching.match import match
from kornia_ditf.matching.refinement import refine
from kornia_ditf.noise import draw_image_noise
from kornia_ditf.preprocess import as_image, fit_image
from kornia_ditf.registry.lookup import create_ditf
from kornia_ditf.treatments import TREATMENTS, modulate
from kornia_ditf.types import Conditioning, Tap


@pytest.fixture
def image() -> Tensor:
    return torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(1))


def by_hand(image: Tensor, ensemble: int, channels: Sequence[int], prompt: str = "") -> Tensor:
    """The chain of the method, step by step, for one image that needs no resizing."""
    backbone = ToyBackbone()
    [noise] = draw_image_noise(image, (ensemble, 3, *image.shape[2:]), seed=0)
    noisy = 0.1 * noise + 0.9 * (2 * image - 1)
    conditioning = backbone.condition([prompt]).expand(ensemble)
    tap = backbone.taps(noisy, 100, conditioning, blocks=[2])[2]
    assert tap.shift is not None and tap.scale is not None
    mean = Tap(
        tap.x.mean(0, keepdim=True),
        tap.shift.mean(0, keepdim=True),
        tap.scale.mean(0, keepdim=True),
        tap.grid,
    )
    tokens = modulate(discard_channels(mean, channels))
    return tokens.transpose(1, 2).unflatten(2, tap.grid)


@pytest.mark.parametrize("ensemble", [1, 5])
def test_the_chain_equals_the_method_computed_by_hand(image: Tensor, ensemble: int) -> None:
    ditf = DiTF(ToyBackbone(), config(ensemble=ensemble, massive_channels=(SPIKE, 7)))
    described = ditf(image, "a cat")
    torch.testing.assert_close(
        described.data, by_hand(image, ensemble, [SPIKE, 7], "a cat"), rtol=0, atol=1e-5
    )
    assert described.grid == (6, 8)
    assert described.frame.image_size == (24, 32)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 100])
def test_splitting_the_ensemble_changes_nothing(rows: int) -> None:
    images = torch.rand(3, 3, 24, 32)
    whole = DiTF(ToyBackbone(), config(ensemble=5))(images, ["a", "bb", "ccc"])
    backbone = ToyBackbone()
    split = DiTF(backbone, config(ensemble=5, rows_per_forward=rows))(images, ["a", "bb", "ccc"])
    torch.testing.assert_close(split.data, whole.data, rtol=0, atol=1e-5)
    assert max(backbone.rows_seen) <= rows
    assert sum(backbone.rows_seen) == 15


def test_a_device_without_enough_memory_gets_smaller_pieces(image: Tensor) -> None:
    class Small(ToyBackbone):
        def taps(self, latent: Tensor, *args: object, **kwargs: object) -> dict[int, Tap]:
            if len(latent) > 3:
                raise torch.OutOfMemoryError
            return super().taps(latent, *args, **kwargs)  # type: ignore[arg-type]

    small = DiTF(Small(), config(ensemble=8))(image)
    large = DiTF(ToyBackbone(), config(ensemble=8))(image)
    torch.testing.assert_close(small.data, large.data, rtol=0, atol=1e-5)


def test_memory_that_never_suffices_is_said(image: Tensor) -> None:
    class Full(ToyBackbone):
        def taps(self, *args: object, **kwargs: object) -> dict[int, Tap]:
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        DiTF(Full(), config(ensemble=8))(image)


def test_an_image_is_described_alike_alone_and_in_a_batch() -> None:
    images = torch.rand(4, 3, 24, 32)
    ditf = DiTF(ToyBackbone(), config(ensemble=3, massive_channels=(SPIKE,)))
    together = ditf(images, ["a", "b", "cc", "d"])
    alone = ditf(images[2:3], "cc")
    torch.testing.assert_close(together[2].data, alone.data, rtol=0, atol=1e-5)


def test_one_prompt_serves_all_images() -> None:
    images = torch.rand(2, 3, 24, 32)
    ditf = DiTF(ToyBackbone(), config(treatment="raw"))
    assert torch.equal(ditf(images, "abc").data, ditf(images, ["abc", "abc"]).data)
    assert not torch.equal(ditf(images, "abc").data, ditf(images).data)


def test_the_configured_prompt_is_used_when_none_is_given(image: Tensor) -> None:
    told = DiTF(ToyBackbone(), config(prompt="abc", treatment="raw"))
    assert torch.equal(told(image).data, told(image, "abc").data)


@pytest.mark.parametrize("prompts", [["a"] * 3, [], [1, 2]])
def test_prompts_that_do_not_fit_the_images_are_refused(prompts: list[str]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"one string, or one per image \(2\)"):
        DiTF(ToyBackbone(), config())(torch.rand(2, 3, 24, 32), prompts)


def test_a_backbone_that_is_told_nothing_works_too(image: Tensor) -> None:
    class Untold(ToyBackbone):
        def condition(self, prompts: Sequence[str]) -> Conditioning:
            return Conditioning()

        def taps(
            self, latent: Tensor, timestep: float, *_: object, **options: object
        ) -> dict[int, Tap]:
            told = Conditioning({"length": torch.zeros(len(latent), 1)})
            return super().taps(latent, timestep, told, **options)  # type: ignore[arg-type]

    assert torch.equal(
        DiTF(Untold(), config())(image).data, DiTF(ToyBackbone(), config())(image).data
    )


def test_several_blocks_equal_single_ones(image: Tensor) -> None:
    backbone = ToyBackbone()
    maps = DiTF(backbone, config()).describe_blocks(image, [0, 3])
    assert len(backbone.rows_seen) == 1
    for block, described in maps.items():
        alone = DiTF(ToyBackbone(), config(block=block))(image)
        assert torch.equal(described.data, alone.data)


def test_every_treatment_runs_and_differs(image: Tensor) -> None:
    outputs = [DiTF(ToyBackbone(), config(treatment=name))(image).data for name in TREATMENTS]
    for index, one in enumerate(outputs):
        for other in outputs[index + 1 :]:
            assert not torch.allclose(one, other)


def test_descriptors_are_detached_unless_gradients_are_asked_for(image: Tensor) -> None:
    image.requires_grad_()
    assert not DiTF(ToyBackbone(), config())(image).data.requires_grad
    DiTF(ToyBackbone(), config(gradients=True))(image).data.square().sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [(24, 32), (37, 52)])
def test_noise_is_the_same_however_the_image_is_given(
    size: tuple[int, int], tmp_path: Path
) -> None:
    ditf = DiTF(ToyBackbone(), config(ensemble=2))
    array = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "image.png")
    image = as_image(array)
    noise = ditf.noise(image)
    assert noise.shape[:3] == (1, 2, 3)
    others = [
        tmp_path / "image.png",
        Image.fromarray(array),
        array,
        image[0],
        fit_image(image, 32, 4)[0],
    ]
    dtypes = (torch.float16, torch.bfloat16, torch.float64)
    for other in [*others, *(image.to(dtype) for dtype in dtypes)]:
        assert torch.equal(ditf.noise(other), noise)
    assert torch.equal(ditf.noise(torch.cat([1 - image, image]))[1:], noise)


def test_unrelated_images_do_not_share_what_is_left_of_the_noise() -> None:
    ditf = DiTF(ToyBackbone(), config(timestep=900, massive_channels=(SPIKE,)))
    images = torch.rand(8, 3, 24, 32)
    tokens = F.normalize(ditf(images).tokens, dim=-1)
    same_place = (tokens[::2] * tokens[1::2]).sum(-1).mean()
    elsewhere = (tokens[::2] * tokens[1::2].roll(5, 1)).sum(-1).mean()
    assert abs(same_place - elsewhere) < 0.1


def test_a_timestep_without_noise_draws_none(
    image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kornia_ditf.descriptor.draw_image_noise", None)
    ditf = DiTF(ToyBackbone(), config(timestep=0, ensemble=2))
    assert not ditf.has_noise and not ditf.noise(image).any()
    assert ditf(image).data.isfinite().all()


def test_one_seed_gives_one_result(image: Tensor) -> None:
    seeded = [DiTF(ToyBackbone(), config(seed=seed))(image).data for seed in (3, 3, 4)]
    assert torch.equal(seeded[0], seeded[1])
    assert not torch.equal(seeded[0], seeded[2])


def test_a_block_that_the_backbone_has_not_is_refused_before_any_work() -> None:
    with pytest.raises(InvalidArgumentError, match=r"block must lie in \[0, 3\], got 4"):
        DiTF(ToyBackbone(), config(block=4))


def test_bad_images_give_errors_of_our_own() -> None:
    ditf = DiTF(ToyBackbone(), config())
    with pytest.raises(InvalidArgumentError, match="finite"):
        ditf(torch.full((1, 3, 32, 32), float("nan")))
    with pytest.raises(InvalidArgumentError, match="255"):
        ditf(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ImageError):
        ditf(torch.rand(1, 3, 1, 5000))
    with pytest.raises(ImageError, match="no such file"):
        ditf("missing.jpg")


@pytest.mark.gpu
@pytest.mark.parametrize("ensemble", [1, 3])
def test_an_accelerator_gives_what_the_cpu_gives(image: Tensor, ensemble: int) -> None:
    from kornia_ditf.registry.lookup import create_descriptor

    options = {"timestep": 100, "long_side": 64, "ensemble": ensemble, "dtype": "float32"}
    on_cpu = create_descriptor("nano", **options)(image)
    on_gpu = create_descriptor("nano", device="cuda", **options)(image)
    assert on_gpu.data.is_cuda
    torch.testing.assert_close(on_gpu.data.cpu(), on_cpu.data, rtol=1e-3, atol=1e-3)


def test_threads_that_share_a_backbone_get_their_own_images_descriptors() -> None:
    one = create_ditf("nano", long_side=64)
    other = DiTF(one.backbone, replace(one.config, block=2, timestep=0, massive_channels=()))
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 3, 32, 16 + 8 * i, generator=generator) for i in range(4)]
    calls = [(ditf, image) for ditf in (one, other) for image in images]
    expected = [ditf(image).data for ditf, image in calls]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda call: call[0](call[1]).data, 3 * calls))
    for data, right in zip(found, 3 * expected, strict=True):
        torch.testing.assert_close(data, right)


@pytest.mark.parametrize("timestep", [0, 200])
def test_torch_compile_changes_nothing(timestep: int) -> None:
    ditf = create_ditf("nano", long_side=32, block=1, timestep=timestep)
    compiled = torch.compile(ditf, backend="aot_eager")
    blocks = torch.compile(ditf.describe_blocks, backend="eager")
    in_place = copy.deepcopy(ditf)
    in_place.compile(backend="aot_eager")
    for size in ((32, 24), (24, 32)):
        image = torch.rand(1, 3, *size)
        expected = ditf.describe_blocks(image, [0, 1])
        assert torch.equal(compiled(image).data, expected[1].data)
        assert torch.equal(in_place(image).data, expected[1].data)
        assert torch.equal(blocks(image, [0, 1])[0].data, expected[0].data)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_neither_default_dtype_nor_autocast_changes_a_descriptor(dtype: torch.dtype) -> None:
    image = torch.rand(1, 3, 32, 24)
    expected = create_ditf("nano", long_side=64)(image)
    torch.set_default_dtype(dtype)
    try:
        found = create_ditf("nano", long_side=64)(image)
        points = torch.tensor([[[3.0, 7.25]]], dtype=torch.float32)
        assert torch.equal(found.at(points), expected.at(points))
        assert torch.equal(found.centres(), expected.centres())
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found.data, expected.data)
    if dtype != torch.float64:
        with torch.autocast("cpu", dtype=dtype):
            assert torch.equal(create_ditf("nano", long_side=64)(image).data, expected.data)


def test_a_default_device_changes_no_descriptor_and_no_match() -> None:
    image = torch.rand(3, 32, 24)
    expected = create_ditf("nano", long_side=64, timestep=200)(image)
    pairs = match(expected, expected)
    with torch.device("meta"):
        ditf = create_ditf("nano", long_side=64, timestep=200)
        assert torch.equal(ditf(image).data, expected.data)
        assert torch.equal(next(iter(ditf.describe_many([image]))).data, expected.data)
        found = match(expected, expected)
        assert torch.equal(refine(found, expected, expected).points_b, found.points_b)
    assert torch.equal(found.points_a, pairs.points_a)


def test_a_capture_is_compared_with_the_attention_once_or_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[float] = []
    monkeypatch.setattr(
        "kornia_ditf.tap.capture.modulation_error",
        lambda tap, attended: compared.append(0.0) or 0.0,
    )
    image = torch.rand(1, 3, 32, 32)
    for checks, count in (("first", 1), ("always", 3)):
        compared.clear()
        ditf = create_ditf("nano", long_side=32, block=1, checks=checks)
        for _ in range(3):
            ditf(image)
        assert len(compared) == count
    with pytest.raises(InvalidArgumentError, match="checks must be"):
        config(checks="never")
