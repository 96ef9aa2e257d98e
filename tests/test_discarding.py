"""Which channels a DiTF discards, and how they become known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_backbone import SPIKE, WIDTH, ToyBackbone, config

from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.types import Discarded, Tap


@pytest.fixture
def image() -> Tensor:
    return torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(1))


def test_channels_found_in_an_image_hold_for_that_image_alone(image: Tensor) -> None:
    backbone = ToyBackbone()
    ditf = DiTF(backbone, config())
    assert ditf.massive_channels() is None
    assert ditf(image).discarded == (Discarded((SPIKE,), "this image"),)
    assert ditf.massive_channels() is None
    backbone.spike = 0.0
    assert ditf(image).discarded == (Discarded((), "this image"),)
    assert torch.equal(ditf(image).data, DiTF(backbone, config(massive_channels=()))(image).data)


def test_images_of_a_batch_are_searched_each_by_itself(image: Tensor) -> None:
    class BrightSpike(ToyBackbone):
        """The spike stands in bright images only."""

        def taps(self, latent: Tensor, *args: object, **kwargs: object) -> dict[int, Tap]:
            taps = super().taps(latent, *args, **kwargs)  # type: ignore[arg-type]
            bright = latent.mean((1, 2, 3)) > 0
            for tap in taps.values():
                tap.x[:, :, SPIKE] *= bright[:, None]
            return taps

    ditf = DiTF(BrightSpike(), config())
    images = torch.cat([image / 4, 1 - image / 4])
    together = ditf(images)
    assert [each.channels for each in together.discarded] == [(), (SPIKE,)]
    for index in range(2):
        alone = ditf(images[index : index + 1])
        assert together[index].discarded == alone.discarded
        torch.testing.assert_close(together[index].data, alone.data, rtol=0, atol=1e-5)


def test_a_map_says_who_named_the_discarded_channels(
    image: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path))
    backbone = ToyBackbone()
    configured = DiTF(backbone, config(massive_channels=(7, 3)))(torch.cat([image, image]))
    assert configured.discarded == 2 * (Discarded((3, 7), "configuration"),)
    ditf = DiTF(backbone, config())
    ditf.describe_together([image, image])
    assert ditf(image).discarded == (Discarded((SPIKE,), "images described together"),)
    backbone.identity = "toy@1"
    ditf.calibrate([image])
    assert ditf(image).discarded == (Discarded((SPIKE,), "calibration"),)
    later = DiTF(backbone, config())
    assert later(image).discarded == (Discarded((SPIKE,), "calibration file"),)
    assert DiTF(backbone, config(treatment="adaln"))(image).discarded == ()


def test_configured_channels_belong_to_the_configured_block(image: Tensor) -> None:
    ditf = DiTF(ToyBackbone(), config(massive_channels=(1, 2)))
    ditf.describe_blocks(image, [0, 2])
    assert ditf.massive_channels() == (1, 2)
    assert ditf.massive_channels(0) is None
    assert ditf.describe_blocks(image, [0])[0].discarded[0].channels == (SPIKE,)


def test_images_described_together_share_the_channels_found_in_all() -> None:
    images = [torch.rand(1, 3, 24, 32), torch.rand(1, 3, 32, 16)]
    together = DiTF(ToyBackbone(), config()).describe_together(images, ["a", "bb"])
    known = DiTF(ToyBackbone(), config(massive_channels=(SPIKE,)))
    for image, prompt, described in zip(images, ["a", "bb"], together, strict=True):
        assert torch.equal(described.data, known(image, prompt).data)
    with pytest.raises(InvalidArgumentError, match="2 images have 3 prompts"):
        known.describe_together(images, ["a", "b", "c"])


def test_treatments_that_discard_nothing_look_for_nothing(image: Tensor) -> None:
    ditf = DiTF(ToyBackbone(), config(treatment="adaln"))
    ditf(image)
    assert ditf.massive_channels() is None


def test_calibration_is_kept_for_the_same_weights_block_and_timestep(
    image: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / "new"))
    first = ToyBackbone()
    first.identity = "toy@1"
    statistics = DiTF(first, config(ensemble=2)).calibrate([image, image[..., :16, :]])
    assert statistics.massive() == (SPIKE,)
    calm = ToyBackbone(spike=0.0)
    calm.identity = "toy@1"
    assert DiTF(calm, config()).massive_channels() == (SPIKE,)
    assert DiTF(calm, config(timestep=200)).massive_channels() is None
    assert DiTF(calm, config(block=1)).massive_channels() is None
    calm.identity = "toy@2"
    assert DiTF(calm, config()).massive_channels() is None


def test_a_backbone_without_identity_keeps_nothing_on_disk(
    image: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path))
    DiTF(ToyBackbone(), config()).calibrate([image])
    assert not list(tmp_path.iterdir())


def test_identity_names_what_decides_the_numbers() -> None:
    ditf = DiTF(ToyBackbone(), config())
    assert ditf.identity is None
    ditf.backbone.identity = "weights"
    assert ditf.identity is None  # the massive channels are not known yet
    known = config(massive_channels=(SPIKE,))
    other = replace(known, timestep=101)
    names = {DiTF(ditf.backbone, each).identity for each in (known, other)}
    assert len(names) == 2 and None not in names
    pieces = DiTF(ditf.backbone, replace(known, rows_per_forward=1))
    assert pieces.identity in names and pieces.width == WIDTH
