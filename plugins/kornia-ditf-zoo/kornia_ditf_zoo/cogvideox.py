"""CogVideoX: a video model on one frame; text in a stream of its own, with the same norm.

LayerNorm with gain and bias, then scale and shift: `adaln` is (1 + scale) * norm(x) + shift with
the block's own gain and bias inside norm; `discard+layernorm` keeps them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.video import VideoBackbone, as_clip
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.tap import BlockCall, BlockStream, LinearModulation
from kornia_ditf.types import Tap
from kornia_ditf_zoo.family import fit_grid, read_own_schedule


class _TwoNormModulation(LinearModulation):
    """Gates of the attention and of the feed-forward, whose norms make one each."""

    __slots__ = ()

    def read_gates(self, call: BlockCall, width: int, rows: int) -> Tensor:
        norm: Any = call.block.get_submodule("norm2")
        output = norm.linear(norm.silu(call.arguments["temb"]))
        later = BlockCall(call.block, call.arguments, output)
        read = super().read_gates
        return torch.cat([read(each, width, rows) for each in (call, later)])


class CogVideoXBackbone(VideoBackbone):
    """CogVideoX; its schedule is the checkpoint's own, shifted.

    In version 1.5 a token covers two latent frames. Of an odd number of them the first is shown
    twice, as its pipelines do with a first frame, and the two of a token share its features.
    """

    transformer_class = "CogVideoXTransformer3DModel"
    pipeline_class = "CogVideoXPipeline"
    vae_class = "AutoencoderKLCogVideoX"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="norm1.norm",  # the image's tokens go first, the text's in a second call
            attention="attn1",
            modulation=_TwoNormModulation("norm1.linear", gates=(2,)),
        ),
    )
    frame_axis = 1
    time = "int(t)"
    head = ("norm_final", "norm_out", "proj_out")
    prompt_outputs = ("prompt_embeds",)

    @classmethod
    def checkpoint_options(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"schedule": read_own_schedule(checkpoint)}

    @property
    def latents_per_token(self) -> int:
        return int(self.config.patch_size_t or 1)

    @property
    def max_cells(self) -> int | None:
        sides = (self.config.sample_height, self.config.sample_width)
        return None if self.config.patch_size_t is None else int(min(sides))

    def arrange(self, latent: Tensor) -> Tensor:
        clip = as_clip(latent)
        first = clip[:, :, :1].expand(-1, -1, -clip.shape[2] % self.latents_per_token, -1, -1)
        return super().arrange(torch.cat([first, clip], 2))

    def taps(self, latent: Tensor, *inputs: Any, **options: Any) -> dict[int, Tap]:
        found = super().taps(latent, *inputs, **options)
        frames, times = as_clip(latent).shape[2], self.latents_per_token
        return {block: _repeat_frames(tap, frames, times) for block, tap in found.items()}

    def token_grid(self, latent: Tensor) -> tuple[int, int]:
        rows, columns = super().token_grid(latent)
        frames = as_clip(latent).shape[2]
        return rows // frames * -(-frames // self.latents_per_token), columns

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        return {"image_rotary_emb": self._rotations(latent)}

    def _rotations(self, latent: Tensor) -> tuple[Tensor, Tensor] | None:
        config = self.config
        if not config.use_rotary_positional_embeddings:
            return None
        from diffusers.models.embeddings import get_3d_rotary_pos_embed

        patch = self.patch_size
        grid = (latent.shape[-2] // patch, latent.shape[-1] // patch)
        base = (config.sample_height // patch, config.sample_width // patch)
        sliced = config.patch_size_t is not None
        cosines, sines = get_3d_rotary_pos_embed(
            config.attention_head_dim,
            None if sliced else fit_grid(grid, base),
            grid,
            -(-as_clip(latent).shape[2] // self.latents_per_token),
            device=latent.device,
            **({"grid_type": "slice", "max_size": base} if sliced else {}),
        )
        return cosines, sines


def _repeat_frames(tap: Tap, frames: int, times: int) -> Tap:
    """Assign to each latent frame the tokens that cover it; the first frame may be there twice."""
    if times == 1:
        return tap
    batch, _, width = tap.x.shape
    covered = -(-frames // times)
    x = tap.x.reshape(batch, covered, -1, width).repeat_interleave(times, 1)[:, -frames:]
    rows = tap.grid[0] // covered * frames
    return replace(tap, x=x.flatten(1, 2), grid=(rows, tap.grid[1]))
