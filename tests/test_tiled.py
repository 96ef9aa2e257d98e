"""Large images in tiles: the same map as of the whole, without seams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from local import Config, Local, texture

from kornia_ditf import create_descriptor
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.match import match
from kornia_ditf.tiled import TiledDescriptor


def whole(tiles: int) -> Local:
    base = Local()
    base.config = Config(128 * tiles)
    return base


@pytest.mark.parametrize("size", [(384, 512), (512, 240), (512, 80)])
def test_tiles_give_the_map_of_the_whole_but_at_the_tiles_borders(size: tuple[int, int]) -> None:
    image = texture(*size)
    tiled, full = TiledDescriptor(Local(), 4, multiple=8)(image), whole(4)(image)
    assert tiled.grid == full.grid and tiled.frame == full.frame
    alike = F.cosine_similarity(tiled.data, full.data, dim=1)
    # A tile's outermost tokens see mirrored pixels, and weigh little in the blend.
    assert alike.min() > 0.9 and alike.median() > 0.999


def test_a_planted_warp_is_found_in_tiles_as_in_the_whole_and_without_seams() -> None:
    large = texture(424, 552)
    image_a, image_b = large[..., :384, :512], large[..., 40:, 40:]
    tiled, full = TiledDescriptor(Local(), 4, multiple=8), whole(4)
    found = match(tiled(image_a), tiled(image_b))
    expected = match(full(image_a), full(image_b))
    right = [
        ((each.points_a - each.points_b - 40).abs().amax(1) < 1).nonzero().flatten()
        for each in (found, expected)
    ]
    assert len(right[0]) >= 0.97 * len(right[1]) and len(right[1]) > 2000
    pairs = [
        {tuple(row) for row in torch.cat([each.points_a, each.points_b], 1)[kept].tolist()}
        for each, kept in zip((found, expected), right, strict=True)
    ]
    assert len(pairs[0] & pairs[1]) >= 0.97 * len(pairs[1])
    # As many in every column of tokens, whether tiles meet there or not.
    columns = ((found.points_a[right[0], 0] - 43.5) / 8).round().long()
    counts = torch.bincount(columns, minlength=59)[1:-1]  # not where the images end
    assert int(counts.min()) >= 38 and int(counts.max()) <= 43


def test_a_forward_sees_no_more_than_a_tile() -> None:
    base = Local()
    tiled = TiledDescriptor(base, 6, multiple=8)
    described = tiled(texture(600, 1400))
    assert described.grid == (41, 96) and max(base.sizes) <= 128 * 128


def test_an_image_is_not_enlarged_to_be_tiled() -> None:
    base = Local()
    small = texture(96, 120)
    tiled = TiledDescriptor(base, 4, multiple=8)(small)
    assert torch.equal(tiled.data, Local()(small).data) and len(base.sizes) == 1
    assert TiledDescriptor(base, 4, multiple=8)(texture(180, 240)).grid == (23, 30)


def test_massive_channels_are_those_of_the_whole_image(tiny_checkpoint: Any) -> None:
    folder: Path = tiny_checkpoint("nano")
    tiled = create_descriptor(folder, tiles=2, long_side=32)
    described = tiled(texture(64, 64))
    alone = create_descriptor(folder, long_side=32)
    assert described.discarded[0].channels == alone(texture(64, 64)).discarded[0].channels
    assert isinstance(tiled, TiledDescriptor) and tiled.base.massive_channels() is None  # type: ignore[operator]
    maps = tiled.describe_together([texture(64, 64), texture(64, 48)])
    assert len({each.discarded[0].channels for each in maps}) == 1


def test_sizes_and_names_follow_the_base() -> None:
    tiled = create_descriptor("nano", long_side=64, tiles=3)
    assert tiled.long_side == 192 and tiled.with_long_side(96).long_side == 96
    assert tiled.identity is not None and tiled.identity.startswith("tiled 3 ")
    assert repr(tiled).startswith("TiledDescriptor(tiles=3, overlap=0.25, base=DiTF(")
    assert not isinstance(create_descriptor("nano", tiles=1), TiledDescriptor)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tiles": 0}, "tiles"), ({"tiles": 2, "overlap": 0}, "overlap must lie")],
)
def test_a_wrong_number_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        TiledDescriptor(Local(), multiple=8, **options)
    with pytest.raises(InvalidArgumentError, match="set its long_side"):
        create_descriptor("nano", tiles=2, long_side=None)
