from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from kornia_ditf.backbones.nano import NanoBackbone
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.registry.lookup import create_ditf

IMAGES = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def nano(**options: Any) -> Any:
    return create_ditf("nano", long_side=None, massive_channels=(), **options)


def test_timesteps_are_averaged_and_blocks_joined_after_unit_length() -> None:
    blocks, timesteps = (3, 5), (0, 120, 240)
    parts = [
        torch.stack([nano(block=b, timestep=t)(IMAGES).data for t in timesteps]).mean(0)
        for b in blocks
    ]
    expected = torch.cat([F.normalize(part, dim=1) for part in parts], 1)
    several = nano(blocks=blocks, timesteps=timesteps)
    found = several(IMAGES)
    torch.testing.assert_close(found.data, expected, rtol=0, atol=2e-6)
    assert several.width == found.data.shape[1] == 320
    torch.testing.assert_close(nano(timesteps=timesteps, block=5)(IMAGES).data, parts[1])
    together = several.describe_together(list(IMAGES))
    torch.testing.assert_close(torch.cat([each.data for each in together]), expected)


def test_all_blocks_of_a_timestep_come_from_one_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    taps = NanoBackbone.taps

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(options["blocks"])
        return taps(*args, **options)

    monkeypatch.setattr(NanoBackbone, "taps", counted)
    nano(blocks=(1, 3, 5), timesteps=(0, 100))(IMAGES)
    assert [list(blocks) for blocks in calls] == [[1, 3, 5], [1, 3, 5]]


def test_massive_channels_of_several_are_found_at_each_or_named_for_all() -> None:
    unknown = create_ditf("nano", long_side=None, timesteps=(0, 300))
    assert unknown.config.massive_channels is None and unknown.identity is None
    unknown.calibrate([IMAGES], keep=False)
    assert unknown.identity is not None and unknown.massive_channels() == ()
    named = create_ditf("nano", long_side=None, timesteps=(0, 300), massive_channels=(4,))
    assert named.massive_channels() == (4,)
    assert named(IMAGES).discarded[0].channels == (4,)


def test_the_identity_names_every_block_and_timestep() -> None:
    names = {
        nano(**o).identity
        for o in (
            {},
            {"timesteps": (0, 100)},
            {"timesteps": (0, 200)},
            {"blocks": (3, 5)},
            {"blocks": (5, 3)},
        )
    }
    assert len(names) == 5 and None not in names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timesteps": ()}, "timesteps must be a sequence or None"),
        ({"timesteps": (0, 2000)}, r"timestep must lie in \[0, 1000\]"),
        ({"timesteps": (10, 10)}, "timesteps must not repeat"),
        ({"blocks": "35"}, "blocks must be a sequence"),
        ({"blocks": (3, 8)}, r"block of nano must lie in \[0, 7\], got 8"),
        ({"blocks": (3, -1)}, "must be 0 or more"),
    ],
)
def test_wrong_blocks_and_timesteps_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        nano(**options)
