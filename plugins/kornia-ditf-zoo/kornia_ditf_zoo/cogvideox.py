"""CogVideoX: a video model on one frame; text in a stream of its own, with the same norm.

LayerNorm with gain and bias, then scale and shift: `adaln` is (1 + scale) * norm(x) + shift with
the block's own gain and bias inside norm; `discard+layernorm` keeps them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.video import VideoBackbone, as_clip
from kornia_ditf.errors import CheckpointError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf.types import Conditioning
from kornia_ditf_zoo.family import fit_grid, read_own_schedule


class CogVideoXBackbone(VideoBackbone):
    """CogVideoX; its schedule is the checkpoint's own, shifted. Version 1.5 is refused."""

    transformer_class = "CogVideoXTransformer3DModel"
    pipeline_class = "CogVideoXPipeline"
    vae_class = "AutoencoderKLCogVideoX"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="norm1.norm",  # the image's tokens go first, the text's in a second call
            attention="attn1",
            modulation=LinearModulation("norm1.linear"),
        ),
    )
    frame_axis = 1
    time = "int(t)"
    head = ("norm_final", "norm_out", "proj_out")
    prompt_outputs = ("prompt_embeds",)

    @classmethod
    def checkpoint_options(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        if checkpoint.json("transformer/config.json").get("patch_size_t") is not None:
            raise CheckpointError(
                f"{checkpoint.source} puts several frames into one token (CogVideoX 1.5); "
                "only models with one frame per token are known"
            )
        return {"schedule": read_own_schedule(checkpoint)}

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Inputs:
        told = super().transformer_inputs(latent, timestep, conditioning)
        return {**told, "image_rotary_emb": self._rotations(latent)}

    def _rotations(self, latent: Tensor) -> tuple[Tensor, Tensor] | None:
        config = self.config
        if not config.use_rotary_positional_embeddings:
            return None
        from diffusers.models.embeddings import get_3d_rotary_pos_embed

        patch = self.patch_size
        grid = (latent.shape[-2] // patch, latent.shape[-1] // patch)
        base = (config.sample_height // patch, config.sample_width // patch)
        cosines, sines = get_3d_rotary_pos_embed(
            config.attention_head_dim,
            fit_grid(grid, base),
            grid,
            as_clip(latent).shape[2],
            device=latent.device,
        )
        return cosines, sines


SPECS = (
    CogVideoXBackbone.spec(
        name="cogvideox-2b",
        repo="THUDM/CogVideoX-2b",
        blocks=30,
        width=1920,
        long_side=720,
        license="Apache-2.0",
    ),
    CogVideoXBackbone.spec(
        name="cogvideox-5b",
        repo="THUDM/CogVideoX-5b",
        blocks=42,
        width=3072,
        long_side=720,
        license="CogVideoX License",
    ),
)
