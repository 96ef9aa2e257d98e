"""What a family of diffusers declares about its transformer, its prompts and its VAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from kornia_ditf.backbones.inputs import Time
from kornia_ditf.noise import NoiseSchedule, RectifiedFlow
from kornia_ditf.tap import BlockStream

Inputs = Mapping[str, Any]
"""Keyword arguments of a transformer's forward."""
MASKED_TEXT: Mapping[str, str] = {
    "encoder_hidden_states": "prompt_embeds",
    "encoder_attention_mask": "prompt_attention_mask",
}
"""The `prompt_inputs` of families that read padded text with its mask."""


class Declaration:
    """The attributes by which a subclass of `DiffusersBackbone` describes its family."""

    transformer_class: ClassVar[str]
    """Name of the transformer's class in diffusers."""
    transformer_module: ClassVar[type[nn.Module] | None] = None
    """A class with the same arithmetic and names, to use in its place; None takes diffusers'."""
    blocks_from: ClassVar[tuple[str, ...]] = ("num_layers", "num_single_layers")
    """Keys of the transformer's configuration whose sum is the number of blocks."""
    width_from: ClassVar[tuple[str, ...]] = ("num_attention_heads", "attention_head_dim")
    """Keys of the transformer's configuration whose product is the width."""
    streams: ClassVar[tuple[BlockStream, ...]]
    """Where the blocks keep norm, modulation and attention, list by list as they run."""
    head: ClassVar[tuple[str, ...]] = ("norm_out", "proj_out")
    """Modules after the last block, never reached and so never loaded."""
    packed: ClassVar[int | None] = None
    """Side of the square of latent cells that the pipeline packs into a token, 1 where it only
    flattens the latent; None where the transformer makes its tokens itself."""
    time: ClassVar[Time] = "t / 1000"
    """What the transformer is given for the paper's timestep t."""
    schedule: NoiseSchedule = RectifiedFlow()
    """How the family mixes latents with noise."""
    vae_class: ClassVar[str] = "AutoencoderKL"
    """Name of the VAE's class in diffusers."""
    patch_first: ClassVar[bool] = False
    """Whether the packed channels of a VAE that packs them run cell by cell."""
    pipeline_class: ClassVar[str | None] = None
    """Name of the diffusers pipeline that encodes prompts; None where there are none."""
    prompt_outputs: ClassVar[tuple[str | None, ...]] = ()
    """Names for what the pipeline's `encode_prompt` returns, in its order; None where unused."""
    prompt_options: ClassVar[Mapping[str, Any]] = {"do_classifier_free_guidance": False}
    """Keyword arguments of the pipeline's `encode_prompt`."""
    prompt_length: ClassVar[int | None] = None
    """Tokens to pad every prompt to, where the pipeline pads none itself."""
    prompt_inputs: ClassVar[Mapping[str, str]] = {"encoder_hidden_states": "prompt_embeds"}
    """Arguments of the transformer that are tensors of the conditioning, and their names there."""
