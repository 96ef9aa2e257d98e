"""Parity with the authors' own code on a tiny FLUX; see tests/data/README.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from kornia_ditf.backbones.flux import FluxBackbone
from kornia_ditf.ensemble import mean_taps
from kornia_ditf.massive import discard_channels, find_massive_channels
from kornia_ditf.treatments import apply_treatment, modulate
from kornia_ditf.types import Conditioning, Tap

GOLDEN = Path(__file__).parent / "data" / "flux_tiny.safetensors"


class Golden:
    """The tensors and the metadata of the authors' run."""

    def __init__(self) -> None:
        from diffusers import FluxTransformer2DModel

        with safe_open(GOLDEN, "pt") as file:
            self.metadata = file.metadata()
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        weights = {n[3:]: t for n, t in self.tensors.items() if n.startswith("sd.")}
        transformer = FluxTransformer2DModel(**json.loads(self.metadata["config"])).eval()
        transformer.load_state_dict(weights)
        self.backbone = FluxBackbone(transformer, guidance=float(self.metadata["guidance"]))
        self.block = int(self.metadata["block"])
        self.timestep = round(1000 * float(self.metadata["t"]))
        self.conditioning = Conditioning(
            {"prompt_embeds": self["in.txt"], "pooled_prompt_embeds": self["in.vec"]}
        )

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def tap(self) -> Tap:
        with torch.no_grad():
            return self.backbone.tap(
                self["in.latents_noisy"], self.timestep, self.conditioning, block=self.block
            )


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden()


def as_map(tokens: Tensor, tap: Tap) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, tap.grid)


def test_noisy_latents_are_those_of_the_authors(golden: Golden) -> None:
    mixed = golden.backbone.schedule.mix(
        golden["in.latent_clean"], golden["in.noise"], golden.timestep
    )
    torch.testing.assert_close(mixed, golden["in.latents_noisy"], rtol=0, atol=1e-6)


def test_raw_members_equal_the_authors(golden: Golden) -> None:
    tap = golden.tap()
    torch.testing.assert_close(as_map(tap.x, tap), golden["out.raw_members"], rtol=0, atol=1e-5)


def test_every_step_of_the_chain_equals_the_authors(golden: Golden) -> None:
    tap = golden.tap().mean(3)
    channels = json.loads(golden.metadata["discard"])
    pairs = {
        "out.raw": tap.x,
        "out.adaln": modulate(tap),
        "out.adaln_cd": modulate(discard_channels(tap, channels)),
    }
    for name, tokens in pairs.items():
        torch.testing.assert_close(as_map(tokens, tap), golden[name], rtol=0, atol=1e-5)
    assert tap.shift is not None
    assert tap.scale is not None
    torch.testing.assert_close(tap.shift, golden["out.shift"], rtol=0, atol=1e-5)
    torch.testing.assert_close(tap.scale, golden["out.scale"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [None, 1, 2])
def test_the_averaged_chain_equals_the_authors_however_it_is_split(
    golden: Golden, rows: int | None
) -> None:
    with torch.no_grad():
        tap = mean_taps(
            golden.backbone,
            golden["in.latent_clean"],
            golden["in.noise"],
            golden.timestep,
            golden.conditioning,
            blocks=[golden.block],
            rows=rows,
        )[golden.block]
    tokens = apply_treatment(tap, "adaln+discard", json.loads(golden.metadata["discard"]))
    torch.testing.assert_close(as_map(tokens, tap), golden["out.adaln_cd"], rtol=0, atol=1e-5)


def test_the_authors_massive_channels_are_found(golden: Golden) -> None:
    expected = tuple(json.loads(golden.metadata["discard"]))
    assert find_massive_channels(golden.tap().x) == expected


def test_several_single_stream_blocks_come_from_one_forward(golden: Golden) -> None:
    with torch.no_grad():
        taps = golden.backbone.taps(
            golden["in.latents_noisy"], golden.timestep, golden.conditioning, blocks=[5, 2, 3, 4]
        )
    for block, tap in taps.items():
        mean = tap.mean(3)
        expected = golden[f"out.raw_block{block}"]
        torch.testing.assert_close(as_map(mean.x, mean), expected, rtol=0, atol=1e-5)
