"""Every built-in family, every block, on tiny random models of the real architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.backbones import SPECS
from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.massive import find_massive_channels
from kornia_ditf.noise import draw_image_noise
from kornia_ditf.registry.lookup import create_descriptor, find_backbone
from kornia_ditf.testing import BACKBONE_RULES, check_backbone
from kornia_ditf.treatments import apply_treatment
from kornia_ditf.types import Tap

FAMILIES = (
    "dit",
    "pixart-alpha",
    "pixart-alpha-1024",
    "pixart-sigma",
    "sd3",
    "sd3.5-medium",
    "flux",
    "flux-schnell",
)
FLOW = ("sd3", "sd3.5-medium", "flux", "flux-schnell")
Checkpoints = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _no_collecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave tiny text encoders to the collector's own time; each search for them takes .3 s."""
    monkeypatch.setattr("kornia_ditf.loading.prompts.gc", SimpleNamespace(collect=int))


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(folder: Path, **options: Any) -> DiffusersBackbone:
    backbone = find_backbone(folder).load(folder, **options)
    assert isinstance(backbone, DiffusersBackbone)
    return backbone


def inputs(backbone: DiffusersBackbone, batch: int = 2) -> tuple[Tensor, int, Any]:
    """A noisy latent that is not square, a timestep, and a prompt for each image."""
    generator = torch.Generator().manual_seed(3)
    latent = torch.randn(batch, backbone.latent_channels, 8, 12, generator=generator)
    return latent, 260, backbone.condition([""]).expand(batch)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_family_keeps_every_rule(
    family: str, dtype: str, tiny_checkpoint: Checkpoints
) -> None:
    folder = tiny_checkpoint(family)
    held = check_backbone(find_backbone(folder), folder, dtype=dtype)
    assert held == tuple(rule.__name__ for rule in BACKBONE_RULES)


def test_half_precision_is_captured_as_exactly(family: str, tiny_checkpoint: Checkpoints) -> None:
    folder, rule = tiny_checkpoint(family), "modulation_is_what_the_block_applies"
    assert check_backbone(find_backbone(folder), folder, dtype="float16", rules=[rule]) == (rule,)


@torch.no_grad()
def test_latents_are_those_of_the_whole_vae(family: str, tiny_checkpoint: Checkpoints) -> None:
    from diffusers import AutoencoderKL

    backbone = load(tiny_checkpoint(family))
    vae = AutoencoderKL.from_pretrained(tiny_checkpoint(family), subfolder="vae").eval()
    vae.requires_grad_(False)  # or torch takes kernels that round otherwise
    image = torch.rand(2, 3, 32, 48)
    shift = vae.config.shift_factor or 0.0
    expected = (vae.encode(2 * image - 1).latent_dist.mode() - shift) * vae.config.scaling_factor
    assert torch.equal(backbone.encode(image), expected)


@torch.no_grad()
def test_a_posterior_sample_is_seeded_and_spreads_as_the_vae_says(
    tiny_checkpoint: Checkpoints,
) -> None:
    image = torch.rand(2, 3, 32, 48)
    sampled = [
        load(tiny_checkpoint("flux"), posterior="sample", seed=seed).encode(image)
        for seed in (0, 0, 1)
    ]
    mode = load(tiny_checkpoint("flux")).encode(image)
    assert torch.equal(sampled[0], sampled[1])
    assert not torch.equal(sampled[0], sampled[2])
    assert not torch.equal(sampled[0], mode)
    # The noise that is mixed in later has the same seed by default, and must be other numbers.
    spread = (sampled[0] - mode)[0].flatten()
    noise = draw_image_noise(image, (1, *mode.shape[1:]), seed=0)[0].flatten()
    assert torch.corrcoef(torch.stack([spread, noise]))[0, 1].abs() < 0.5


def plant(backbone: DiffusersBackbone, channels: dict[int, float]) -> None:
    """Add constants to channels of the stream, where the patches are embedded."""
    transformer: Any = backbone.transformer
    embed = (
        transformer.x_embedder if hasattr(transformer, "x_embedder") else transformer.pos_embed.proj
    )
    with torch.no_grad():
        for channel, size in channels.items():
            embed.bias[channel] += size


@pytest.mark.parametrize("channels", [{3: 60.0}, {0: -300.0, 17: 80.0}, {5: 5000.0, 30: -5000.0}])
@torch.no_grad()
def test_planted_massive_channels_are_found_at_every_block(
    family: str, channels: dict[int, float], tiny_checkpoint: Checkpoints
) -> None:
    backbone = load(tiny_checkpoint(family))
    latent, timestep, conditioning = inputs(backbone)
    for tap in backbone.taps(
        latent, timestep, conditioning, blocks=range(backbone.blocks)
    ).values():
        assert find_massive_channels(tap.x) == ()
    plant(backbone, channels)
    taps = backbone.taps(latent, timestep, conditioning, blocks=range(backbone.blocks))
    for block, tap in taps.items():
        assert find_massive_channels(tap.x) == tuple(sorted(channels)), f"block {block}"


def token_similarity(tokens: Tensor) -> float:
    unit = F.normalize(tokens[0], dim=-1)
    count = len(unit)
    return float(((unit @ unit.T).sum() - count) / (count * (count - 1)))


@torch.no_grad()
def test_discard_restores_token_contrast(family: str, tiny_checkpoint: Checkpoints) -> None:
    backbone = load(tiny_checkpoint(family))
    latent, timestep, conditioning = inputs(backbone)
    plant(backbone, {3: 800.0, 17: -500.0})
    tap = backbone.tap(latent, timestep, conditioning, block=1).mean(1)
    plain = Tap(tap.x, None, None, tap.grid, tap.norm)  # the shift is common to all tokens
    assert token_similarity(apply_treatment(plain, "raw")) > 0.99
    assert token_similarity(apply_treatment(plain, "adaln")) > 0.99
    assert token_similarity(apply_treatment(plain, "adaln+discard", (3, 17))) < 0.9


@torch.no_grad()
def test_a_folder_makes_a_descriptor_from_image_to_map(
    family: str, tiny_checkpoint: Checkpoints
) -> None:
    ditf = create_descriptor(tiny_checkpoint(family), long_side=64, ensemble=3)
    images = torch.rand(2, 3, 40, 61)
    whole = ditf(images)
    assert whole.data.shape[0] == 2 and whole.data.isfinite().all()
    assert whole.frame.image_size == (40, 61)
    pieces = create_descriptor(
        tiny_checkpoint(family),
        long_side=64,
        ensemble=3,
        rows_per_forward=2,
        massive_channels=ditf.massive_channels(),
    )
    torch.testing.assert_close(pieces(images).data, whole.data, rtol=0, atol=1e-5)


@torch.no_grad()
def test_prompts_reach_the_features_where_the_family_reads_text(
    tiny_checkpoint: Checkpoints,
) -> None:
    image = torch.rand(2, 3, 32, 48)
    for family in FAMILIES[1:]:
        ditf = create_descriptor(tiny_checkpoint(family), long_side=48, treatment="adaln")
        encoder: Any = ditf.backbone.prompt_encoder
        encoder.prepare(["", "a cat", "a dog"])  # one loading of the text encoders for all
        plain, told = ditf(image), ditf(image, ["a cat", "a dog"])
        assert not torch.allclose(plain.data, told.data), family
        assert torch.equal(ditf(image, "a cat").data[0], told.data[0]), family


@torch.no_grad()
def test_dit_takes_the_name_of_a_class_and_suggests_the_nearest(
    tiny_checkpoint: Checkpoints,
) -> None:
    backbone: Any = load(tiny_checkpoint("dit"))
    name, index = next(iter(backbone.labels.items()))
    assert backbone.condition([name])["class_labels"].tolist() == [index]
    with pytest.raises(InvalidArgumentError, match=f"did you mean '{name}'"):
        backbone.condition([name + "x"])


@torch.no_grad()
def test_ddpm_families_mix_noise_as_their_own_scheduler(tiny_checkpoint: Checkpoints) -> None:
    from diffusers import DDPMScheduler

    for family in ("dit", "pixart-alpha", "pixart-sigma"):
        folder = tiny_checkpoint(family)
        backbone = load(folder)
        latent, noise = torch.randn(2, 1, 4, 8, 8).unbind(0)
        scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
        expected = scheduler.add_noise(latent, noise, torch.tensor([261]))
        torch.testing.assert_close(backbone.schedule.mix(latent, noise, 261), expected)
        with pytest.raises(InvalidArgumentError, match="integer timesteps"):
            backbone.schedule.check(1000)


def test_sd3_refuses_latents_beyond_its_positions(tiny_checkpoint: Checkpoints) -> None:
    backbone = load(tiny_checkpoint("sd3"))
    limit = backbone.config.pos_embed_max_size * 2
    latent = torch.randn(1, backbone.latent_channels, limit + 2, 4)
    with pytest.raises(InvalidArgumentError, match="smaller long_side"):
        backbone.tap(latent, 260, backbone.condition([""]), block=0)


@pytest.mark.parametrize("shape", [(1, 4, 8), (1, 3, 8, 8), (0, 4, 8, 8), (1, 4, 7, 8)])
def test_latents_of_a_wrong_shape_are_refused(
    shape: tuple[int, ...], tiny_checkpoint: Checkpoints
) -> None:
    backbone = load(tiny_checkpoint("dit"))
    with pytest.raises(InvalidArgumentError, match="latent"):
        backbone.tap(torch.zeros(shape), 260, backbone.condition([""]), block=0)


@torch.no_grad()
def test_offloaded_weights_give_the_same_features(tiny_checkpoint: Checkpoints) -> None:
    plain, offloaded = (load(tiny_checkpoint("sd3"), offload=flag) for flag in (False, True))
    latent, timestep, conditioning = inputs(plain)
    expected = plain.tap(latent, timestep, conditioning, block=2)
    found = offloaded.tap(latent, timestep, conditioning, block=2)
    assert all(parameter.is_meta for parameter in offloaded.transformer.parameters())
    assert torch.equal(found.x, expected.x)


def test_every_preset_says_where_its_numbers_come_from() -> None:
    for spec in SPECS:
        assert spec.source and spec.license
        assert spec.calibrated or (spec.block, spec.timestep) == (spec.blocks // 2, 250)
    calibrated = [spec.name for spec in SPECS if spec.calibrated]
    assert calibrated == ["nano", "flux.1-dev", "flux.1-dev-960", "flux.1-dev-davis"]
