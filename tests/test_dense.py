"""Many images described as a stream."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from test_descriptor import SPIKE, ToyBackbone, config
from torch import Tensor

from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import ImageError, InvalidArgumentError
from kornia_ditf.fusion import FusedDescriptor
from kornia_ditf.registry.lookup import create_descriptor
from kornia_ditf.types import DescriptorMap, Frame


class Averages(DenseDescriptor):
    """Mean colours of squares of 8 pixels; no DiTF."""

    width = 3

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, image: Any, prompts: Any = None) -> DescriptorMap:
        self.batches.append(len(image))
        size = tuple(image.shape[2:])
        return DescriptorMap(torch.nn.functional.avg_pool2d(image, 8), Frame(size, size))


@pytest.fixture
def images() -> list[Tensor]:
    """Ten images of three sizes, two of which the toy model sees in one."""
    generator = torch.Generator().manual_seed(1)
    sizes = [(24, 32), (48, 64), (32, 16)]
    return [torch.rand(3, *sizes[number % 3], generator=generator) for number in range(10)]


def toy() -> DiTF:
    return DiTF(ToyBackbone(), config(ensemble=3, massive_channels=(SPIKE,)))


@pytest.mark.parametrize(
    "make",
    [
        toy,
        lambda: DiTF(ToyBackbone(), config(ensemble=2, rows_per_forward=3)),
        lambda: create_descriptor("nano", long_side=32, timestep=300, ensemble=2),
        Averages,
        lambda: FusedDescriptor([toy(), toy()]),
    ],
    ids=["toy", "channels found per image", "nano", "another", "fused"],
)
@pytest.mark.parametrize("batch", [None, 4])
def test_images_described_as_a_stream_equal_single_ones(
    make: Callable[[], DenseDescriptor], batch: int | None, images: list[Tensor]
) -> None:
    descriptor = make()
    stream = list(descriptor.describe_many(iter(images), batch=batch))
    assert len(stream) == len(images)
    for image, described in zip(images, stream, strict=True):
        alone = descriptor(image[None])
        torch.testing.assert_close(described.data, alone.data, rtol=0, atol=1e-5)
        assert described.frame == alone.frame and described.discarded == alone.discarded


def test_images_of_one_fitted_size_share_forward_passes(images: list[Tensor]) -> None:
    ditf, other = toy(), Averages()
    list(ditf.describe_many(images, batch=8))
    assert isinstance(ditf.backbone, ToyBackbone)
    assert ditf.backbone.rows_seen == [3 * 7, 3 * 3]
    list(other.describe_many([image for image in images for _ in range(2)], batch=2))
    assert set(other.batches) == {2}
    ditf.backbone.rows_seen.clear()
    list(ditf.describe_many(images))
    assert 3 < max(ditf.backbone.rows_seen) <= 24


def test_each_image_of_a_stream_may_have_its_prompt(images: list[Tensor]) -> None:
    prompts = ["a" * number for number in range(len(images))]
    ditf = toy()
    for image, prompt, described in zip(
        images, prompts, ditf.describe_many(images, prompts, batch=4), strict=True
    ):
        torch.testing.assert_close(described.data, ditf(image, prompt).data, rtol=0, atol=1e-5)
    for described, image in zip(ditf.describe_many(images, "abc"), images, strict=True):
        torch.testing.assert_close(described.data, ditf(image, "abc").data, rtol=0, atol=1e-5)
    with pytest.raises(InvalidArgumentError, match="10 images have 2 prompts"):
        ditf.describe_many(images, ["a", "b"])


def test_a_stream_is_read_as_it_is_needed_and_closes_early(images: list[Tensor]) -> None:
    taken = []

    def endless() -> Iterator[Tensor]:
        while True:
            taken.append(1)
            yield images[len(taken) % 3]

    stream = toy().describe_many(endless(), batch=2)
    for _ in range(40):
        next(stream)
        assert len(taken) < 40 + 3 * 2 * 2
    stream.close()  # type: ignore[attr-defined]


def test_an_image_that_cannot_be_used_is_named(images: list[Tensor], tmp_path: Path) -> None:
    broken, thin = tmp_path / "broken.jpg", tmp_path / "thin.png"
    broken.write_bytes(b"no image")
    Image.new("RGB", (4, 400)).save(thin)
    ditf = toy()
    for bad, error, words in (
        (broken, ImageError, r"broken\.jpg"),
        (thin, ImageError, r"thin\.png.*too small"),
        (images[0] * 255, InvalidArgumentError, r"image 2: .*divide by 255"),
        (images[0].expand(2, -1, -1, -1), InvalidArgumentError, "image 2: .*one image at a time"),
    ):
        found: list[DescriptorMap] = []
        with pytest.raises(error, match=words):
            found.extend(ditf.describe_many([images[0], images[1], bad, images[2]], batch=2))
        assert len(found) == 2
    with pytest.raises(InvalidArgumentError, match="batch must be 1 or more, got 0"):
        ditf.describe_many(images, batch=0)


def test_gradients_reach_the_images_of_a_stream_where_they_are_configured() -> None:
    image = torch.rand(3, 24, 32, requires_grad=True)
    [described] = DiTF(ToyBackbone(), config(gradients=True)).describe_many([image])
    described.data.square().sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    with torch.no_grad():
        [described] = DiTF(ToyBackbone(), config(gradients=True)).describe_many([image])
    assert not described.data.requires_grad


def test_a_batch_that_memory_does_not_hold_is_halved(images: Sequence[Tensor]) -> None:
    class SmallEncoder(ToyBackbone):
        def encode(self, image: Tensor) -> Tensor:
            if len(image) > 2:
                raise torch.OutOfMemoryError
            return super().encode(image)

    small = DiTF(SmallEncoder(), config(massive_channels=()))
    large = DiTF(ToyBackbone(), config(massive_channels=()))
    for a, b in zip(small.describe_many(images, batch=8), large.describe_many(images), strict=True):
        torch.testing.assert_close(a.data, b.data, rtol=0, atol=1e-5)


def test_no_more_images_are_in_memory_of_200_than_of_20() -> None:
    ditf = create_descriptor("nano", long_side=32)

    def most_alive(count: int) -> int:
        seen: list[weakref.ref[Tensor]] = []

        def images() -> Iterator[Tensor]:
            for _ in range(count):
                image = torch.rand(3, 16, 24)
                seen.append(weakref.ref(image))
                yield image

        alive = [
            sum(each() is not None for each in seen)
            for number, _ in enumerate(ditf.describe_many(images(), batch=4))
            if number % 5 == 0
        ]
        assert len(seen) == count
        return max(alive)

    assert most_alive(200) <= most_alive(20) + 4
