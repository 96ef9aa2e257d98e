"""nano: the small pixel-space Diffusion Transformer that comes with the package.

It is a SanaTransformer2DModel, which `nano_transformer` builds without diffusers: adaLN-single,
linear attention, and depthwise convolutions in place of a position code, so it holds at any size.
It needs no VAE and no text. The model card beside its weights says how it was trained, and what it
can and cannot do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.nano_transformer import NanoTransformer
from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.tap import ADALN_SINGLE
from kornia_ditf.types import Conditioning

WEIGHTS = Path(__file__).parent / "nano_weights"


class NanoBackbone(DiffusersBackbone):
    """The embedded backbone; its latent is the image itself, in [-1, 1]."""

    transformer_class = "SanaTransformer2DModel"
    transformer_module = NanoTransformer
    streams = (ADALN_SINGLE,)
    time = "t"

    @classmethod
    def load_vae(cls, checkpoint: Checkpoint) -> nn.Module | None:
        return None

    def encode(self, image: Tensor) -> Tensor:
        return 2 * image - 1

    def condition(self, prompts: Sequence[str]) -> Conditioning:
        if any(prompts):
            raise InvalidArgumentError(f"nano takes no prompts, got {list(prompts)}")
        null = torch.zeros(len(prompts), 1, self.config.caption_channels, device="cpu")
        return Conditioning({"prompt_embeds": null})


NANO = NanoBackbone.spec(
    name="nano",
    repo=str(WEIGHTS),
    pipeline="NanoPipeline",
    blocks=8,
    width=160,
    pixels_per_token=4,
    block=5,
    timestep=0,
    long_side=336,
    massive_channels=(),
    source="measured on held-out photographs; see the model card beside the weights",
    calibrated=True,
    license="Apache-2.0",
)

SPECS: tuple[BackboneSpec, ...] = (NANO,)
