"""FLUX.1: double-stream blocks, then single-stream blocks whose numbering goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kornia_ditf.backbones import configs
from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.noise import RectifiedFlow
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf.types import Conditioning


class FluxBackbone(DiffusersBackbone):
    """FLUX.1-dev and FLUX.1-schnell.

    In a double-stream block the authors' code takes the feed-forward's input; here every block
    gives the input of its first AdaLN. In single-stream blocks, the ones they use, both agree.

    Args:
        transformer: a FluxTransformer2DModel.
        vae: its AutoencoderKL, or the encoder alone.
        guidance: the distilled guidance scale; ignored by schnell, which has none.
        options: see `DiffusersBackbone`.
    """

    transformer_class = "FluxTransformer2DModel"
    pipeline_class = "FluxPipeline"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="norm1.norm",
            attention="attn",
            modulation=LinearModulation("norm1.linear"),
        ),
        BlockStream(
            blocks="single_transformer_blocks",
            norm="norm.norm",
            attention="attn",
            modulation=LinearModulation("norm.linear"),
            tokens="last",
        ),
    )
    head = ("norm_out", "proj_out")
    schedule = RectifiedFlow()

    def __init__(
        self,
        transformer: nn.Module,
        vae: nn.Module | None = None,
        *,
        guidance: float = 3.5,
        **options: Any,
    ) -> None:
        super().__init__(transformer, vae, **options)
        self.guidance = guidance

    def settings(self) -> str:
        return f"{super().settings()} guidance={self.guidance}"

    @property
    def patch_size(self) -> int:
        return 2  # the pipeline packs 2 x 2 cells; the configuration says 1

    @property
    def latent_channels(self) -> int:
        return int(self.config.in_channels) // 4

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        batch, _, height, width = latent.shape
        packed = nn.functional.pixel_unshuffle(latent, 2)
        text = conditioning["prompt_embeds"]
        guidance = latent.new_full((batch,), self.guidance, dtype=torch.float32)
        return {
            # Contiguous, as the pipeline packs it: some quantised layers take nothing else.
            "hidden_states": packed.flatten(2).transpose(1, 2).contiguous(),
            "encoder_hidden_states": text,
            "pooled_projections": conditioning["pooled_prompt_embeds"],
            "timestep": latent.new_full((batch,), timestep / 1000, dtype=torch.float32),
            "img_ids": _image_ids(height // 2, width // 2, latent.device),
            "txt_ids": torch.zeros(text.shape[1], 3, device=latent.device),
            "guidance": guidance if self.config.guidance_embeds else None,
        }

    @classmethod
    def encode_prompts(cls, pipeline: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, pooled, _ = pipeline.encode_prompt(list(prompts), None)
        return {"prompt_embeds": text, "pooled_prompt_embeds": pooled}


def _image_ids(rows: int, columns: int, device: torch.device) -> Tensor:
    ids = torch.zeros(rows, columns, 3, device=device)
    ids[..., 1] = torch.arange(rows, device=device)[:, None]
    ids[..., 2] = torch.arange(columns, device=device)[None]
    return ids.reshape(-1, 3)


FLUX_DEV = BackboneSpec(
    name="flux.1-dev",
    repo="black-forest-labs/FLUX.1-dev",
    pipeline="FluxPipeline",
    load=FluxBackbone.from_pretrained,
    plan=FluxBackbone.plan_loading,
    architecture=configs.flux(guidance=True),
    blocks=57,
    width=3072,
    pixels_per_token=16,
    block=28,
    timestep=260,
    long_side=640,
    ensemble=8,
    massive_channels=(154, 1446),
    protocol="ditf-spair",
    calibrated=True,
    source="the DiTF authors' released evaluation on SPair-71k (arXiv 2505.18584), image size of "
    "its README; they caption each image: 'a photo of a CATEGORY' costs about .3 points of PCK@0.1",
    license="FLUX.1 [dev] Non-Commercial License",
)

FLUX_DEV_960 = replace(
    FLUX_DEV,
    name="flux.1-dev-960",
    long_side=960,
    protocol="ditf-spair-960",
    source="flux.1-dev's numbers at the image size of the paper's appendix, 960 (second-hand: "
    "summaries of arXiv 2505.18584)",
)

FLUX_DEV_DAVIS = replace(
    FLUX_DEV,
    name="flux.1-dev-davis",
    block=24,
    timestep=90,
    long_side=1712,
    ensemble=1,
    prompt="a photo of a image",
    protocol="davis-ditf",
    source="the DiTF authors' released evaluation on DAVIS-2017 (arXiv 2505.18584): ensemble of "
    "its script (README: 8), 854 x 480 frames at its README's shortest side 960 (script: 480)",
)

FLUX_SCHNELL = BackboneSpec.uncalibrated(
    name="flux.1-schnell",
    repo="black-forest-labs/FLUX.1-schnell",
    pipeline="FluxPipeline",
    load=FluxBackbone.from_pretrained,
    plan=FluxBackbone.plan_loading,
    architecture=configs.flux(guidance=False),
    blocks=57,
    width=3072,
    pixels_per_token=16,
    long_side=1024,
    license="Apache-2.0",
)

SPECS = (FLUX_DEV, FLUX_DEV_960, FLUX_DEV_DAVIS, FLUX_SCHNELL)
