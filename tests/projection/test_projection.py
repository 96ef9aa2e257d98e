"""Projections that are learned from images, kept in files and used by descriptors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blobs import write_blobs
from torch import Tensor

from kornia_ditf import (
    DenseDescriptor,
    DescriptorMap,
    DiTF,
    Frame,
    ProjectedDescriptor,
    Projection,
    create_descriptor,
    learn_projection,
    match_images,
)
from kornia_ditf.errors import DamagedFileError, ImageError, InvalidArgumentError
from kornia_ditf.preprocess import as_image
from kornia_ditf.projection import learn
from kornia_ditf.testing import check_descriptor


class Mixed(DenseDescriptor):
    """Twelve channels of pixels, mixed so that they are correlated and far from zero."""

    width, identity = 12, "mixed"

    def forward(self, image: Any, prompts: Any = None) -> DescriptorMap:
        pixels = torch.nn.functional.unfold(as_image(image), 2, stride=2)
        mixing = torch.randn(12, 12, generator=torch.Generator().manual_seed(0))
        height, width = as_image(image).shape[2:]
        data = (mixing * torch.logspace(0, -2, 12)) @ pixels + 30
        frame = Frame((height, width), (height, width))
        return DescriptorMap(data.view(-1, 12, height // 2, width // 2), frame)


@pytest.fixture
def folder(tmp_path: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    return [write_blobs(tmp_path / f"{number}.png", generator, (24, 32)) for number in range(5)]


def reference(descriptor: DenseDescriptor, images: list[Path]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variances and axes by the singular values of all tokens at once."""
    tokens = torch.cat([descriptor(path).tokens[0] for path in images]).double()
    mean = tokens.mean(0)
    _, sizes, axes = torch.linalg.svd(tokens - mean, full_matrices=False)
    return mean, sizes.square() / len(tokens), axes.T


def test_the_projection_is_the_pca_of_all_tokens(folder: list[Path]) -> None:
    found = learn_projection(Mixed(), folder, 5)
    mean, variances, axes = reference(Mixed(), folder)
    torch.testing.assert_close(found.mean.double(), mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.variances.double(), variances[:5], rtol=1e-5, atol=1e-7)
    assert found.explained == pytest.approx(float(variances[:5].sum() / variances.sum()), abs=1e-6)
    cosines = (found.axes.double() * axes[:, :5]).sum(0).abs()
    torch.testing.assert_close(cosines, torch.ones(5).double(), rtol=0, atol=1e-5)
    described = Mixed()(folder[0])
    expected = (described.tokens[0].double() - mean) @ axes[:, :5]
    projected = found(described).tokens[0].double()
    torch.testing.assert_close(projected.abs(), expected.abs(), rtol=0, atol=1e-5)
    assert found.about["images"] == 5 and found.about["tokens"] == 5 * 16 * 12


def test_a_file_holds_what_was_learned_and_equal_ones_have_equal_bytes(
    folder: list[Path], tmp_path: Path
) -> None:
    for name in "ab":
        learn_projection(Mixed(), folder, 6).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = Projection.load(tmp_path / "a")
    assert torch.equal(found.axes, learn_projection(Mixed(), folder, 6).axes)
    assert torch.equal(found.first(3).axes, learn_projection(Mixed(), folder, 3).axes)
    content = bytearray((tmp_path / "a").read_bytes())
    content[-5] ^= 1
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DamagedFileError):
        Projection.load(tmp_path / "a")
    Mixed()(folder[0]).save(tmp_path / "map.safetensors")
    with pytest.raises(InvalidArgumentError, match="projection learn"):
        Projection.load(tmp_path / "map.safetensors")


def test_an_interruption_goes_on_from_the_sums_and_changes_nothing(
    folder: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state.part"

    def interrupt(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_projection(Mixed(), folder, 5, state=state, progress=interrupt)
    assert state.exists()
    described: list[int] = []
    whole = Mixed.describe_many

    def counted(self: Mixed, images: Any, *rest: Any, **more: Any) -> Iterator[DescriptorMap]:
        described.append(len(images))
        return whole(self, images, *rest, **more)

    monkeypatch.setattr(Mixed, "describe_many", counted)
    resumed = learn_projection(Mixed(), folder, 5, state=state)
    assert described == [2] and not state.exists()
    assert resumed.digest == learn_projection(Mixed(), folder, 5).digest

    with pytest.raises(KeyboardInterrupt):
        learn_projection(Mixed(), folder, 5, state=state, progress=interrupt)
    others = learn_projection(Mixed(), folder[1:], 5, state=state)  # of other images: not used
    assert others.digest == learn_projection(Mixed(), folder[1:], 5).digest


def test_sums_are_kept_while_the_work_goes_on(
    folder: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(learn, "_EVERY_SECONDS", -1.0)
    state = tmp_path / "state.part"
    learn_projection(
        Mixed(), folder, 5, state=state, progress=lambda _: kept.append(state.exists())
    )
    assert kept == [False, True, True, True, True]


def test_bad_images_are_told_and_left_out(folder: list[Path]) -> None:
    good = learn_projection(Mixed(), [folder[0], *folder[2:]], 5)
    folder[1].write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"1\.png"):
        learn_projection(Mixed(), folder, 5)
    told: list[Any] = []
    found = learn_projection(Mixed(), folder, 5, on_error=lambda image, _: told.append(image))
    assert told == [folder[1]] and found.digest == good.digest
    assert found.about["images"] == 4
    with pytest.raises(ImageError, match="no image could be described"):
        learn_projection(Mixed(), [folder[1]], 5, on_error=lambda *_: None)


def test_impossible_numbers_of_channels_are_refused(folder: list[Path]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"channels must lie in \[1, 12\], got 13"):
        learn_projection(Mixed(), folder, 13)
    tiny = torch.rand(3, 4, 4)
    with pytest.raises(InvalidArgumentError, match="more than 5 tokens, and the images have 4"):
        learn_projection(Mixed(), [tiny], 5)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Callable[[str], Path]) -> Path:
    return tiny_checkpoint("nano")


def test_a_projected_ditf_is_a_descriptor_of_its_image_alone(
    folder: list[Path], model: Path, tmp_path: Path
) -> None:
    ditf = create_descriptor(model, long_side=32, block=2)
    assert isinstance(ditf, DiTF)
    learn_projection(ditf, folder, 8).save(tmp_path / "p.safetensors")
    assert ditf.massive_channels() is None  # the descriptor is left as it was
    file = tmp_path / "p.safetensors"
    found = create_descriptor(model, long_side=32, block=2, projection=file)
    assert isinstance(found, ProjectedDescriptor) and found.width == 8
    projection = found.projection
    exact = create_descriptor(model, long_side=32, block=2, massive_channels=projection.channels[0])
    torch.testing.assert_close(found(folder[0]).data, projection(exact(folder[0])).data)
    assert found.identity is not None and projection.digest in found.identity
    assert found.with_long_side(48)(folder[0]).grid == exact.with_long_side(48)(folder[0]).grid
    assert len(match_images(folder[0], folder[1], found, search="none").matches)
    check_descriptor(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 1}, "was learned for block 2, and this descriptor has 1"),
        ({"timestep": 123}, "was learned for timestep"),
        ({"treatment": "raw"}, r"treatment adaln\+discard, and this descriptor has raw"),
        ({"facet": "key"}, "learned for"),
        ({"massive_channels": (7,)}, r"without the massive channels \[\]"),
        ({"other": True}, "learned for weights"),
        ({"fused": True}, "learned for"),
    ],
)
def test_a_projection_of_another_descriptor_is_refused(
    options: dict[str, Any],
    message: str,
    folder: list[Path],
    model: Path,
    tiny_checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    file, settings = tmp_path / "p.safetensors", {"long_side": 32, "block": 2}
    learn_projection(create_descriptor(model, **settings), folder[:2], 8).save(file)
    name: Any = model
    if options.pop("other", False):
        from tiny import save_tiny

        name = save_tiny("nano", tmp_path / "other", seed=1)
    if options.pop("fused", False):
        settings, name = {}, "nano+nano"
    with pytest.raises(InvalidArgumentError, match=message):
        create_descriptor(name, projection=file, **{**settings, **options})


def test_a_fusion_is_projected_as_a_whole(folder: list[Path], model: Path) -> None:
    parts: dict[str, Any] = {"nano": {"source": model, "long_side": 32, "block": 2}}
    fused = create_descriptor("nano+nano", options=parts)
    projection = learn_projection(fused, folder, 6)
    assert len(projection.channels) == 2
    assert ProjectedDescriptor(fused, projection)(folder[0]).data.shape[1] == 6
