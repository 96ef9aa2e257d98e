"""PRX on latents and on pixels: a stream of the image alone, whose attention reads the text."""

from __future__ import annotations

from torch import Tensor, nn

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.noise import RectifiedFlow
from kornia_ditf.tap import BlockStream, LinearModulation


class PRXBackbone(DiffusersBackbone):
    """PRX on the latents of FLUX.1's VAE."""

    transformer_class = "PRXTransformer2DModel"
    pipeline_class = "PRXPipeline"
    blocks_from = ("depth",)
    width_from = ("hidden_size",)
    streams = (
        BlockStream(
            blocks="blocks",
            norm="img_pre_norm",
            attention="attention",
            modulation=LinearModulation("modulation.lin"),
        ),
    )
    head = ("final_layer",)
    prompt_outputs = ("prompt_embeds", "prompt_attention_mask")
    prompt_inputs = {
        "encoder_hidden_states": "prompt_embeds",
        "attention_mask": "prompt_attention_mask",
    }


class PRXDCBackbone(PRXBackbone):
    """PRX on the latents of the deep-compression VAE that Sana uses."""

    vae_class = "AutoencoderDC"


class _StrongNoise(RectifiedFlow):
    """The straight path, with twice the noise at every timestep."""

    def weights(self, timestep: float) -> tuple[float, float]:
        signal, spread = super().weights(timestep)
        return signal, 2 * spread


class PRXPixelBackbone(PRXBackbone):
    """PRX on pixels: its latent is the image itself, in [-1, 1]."""

    pipeline_class = "PRXPixelPipeline"
    schedule = _StrongNoise()

    @classmethod
    def load_vae(cls, checkpoint: Checkpoint) -> nn.Module | None:
        return None

    def encode(self, image: Tensor) -> Tensor:
        return 2 * image - 1
