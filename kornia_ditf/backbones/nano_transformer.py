"""nano's transformer as a plain module, so that the default backbone does without diffusers.

The same arithmetic, names and configuration as diffusers' SanaTransformer2DModel (Xie et al., Sana,
arXiv 2410.10629), in the form that nano uses: no position code, no guidance and no norm of queries
and keys. Importing diffusers' class takes several seconds; this takes none.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FIXED = {"guidance_embeds": False, "interpolation_scale": None, "qk_norm": None, "dropout": 0.0}
_FREQUENCIES = 128


class Config(dict[str, Any]):
    """A configuration whose values are attributes too, as in diffusers."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        return self[name]


class NanoTransformer(nn.Module):
    """The transformer: patches of an image to the velocity of the flow.

    Args:
        config: that of a SanaTransformer2DModel.

    Raises:
        ValueError: the configuration asks for a part that nano has not.
        KeyError: a value is missing.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config = Config(config)
        for name, expected in _FIXED.items():
            if config.get(name, expected) != expected:
                raise ValueError(f"{name} must be {expected}, got {config[name]!r}")
        width = config.num_attention_heads * config.attention_head_dim
        patch = config.patch_size
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(config.in_channels, width, patch, stride=patch)}
        )
        self.time_embed = _TimeEmbedding(width)
        self.caption_projection = _mlp(config.caption_channels, width, nn.GELU("tanh"))
        self.caption_norm = _RMSNorm(width)
        self.transformer_blocks = nn.ModuleList(
            _Block(width, config) for _ in range(config.num_layers)
        )
        self.scale_shift_table = nn.Parameter(torch.zeros(2, width))
        self.norm_out = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.proj_out = nn.Linear(width, patch * patch * (config.out_channels or 0))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, as diffusers' models tell it."""
        return self.scale_shift_table.dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.scale_shift_table.device

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NanoTransformer:
        """Build the transformer of a configuration; its weights are to be loaded."""
        return cls(config)

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, timestep: Tensor
    ) -> Tensor:
        """Predict the velocity, noise minus image.

        Args:
            hidden_states: noisy images in [-1, 1], shape (B, C, H, W).
            encoder_hidden_states: the null caption, shape (B, 1, caption channels).
            timestep: in [0, 1000], shape (B,).

        Returns:
            shape (B, C, H, W).
        """
        patch = self.config.patch_size
        rows, columns = hidden_states.shape[2] // patch, hidden_states.shape[3] // patch
        x = self.patch_embed["proj"](hidden_states).flatten(2).transpose(1, 2)
        modulation, embedded = self.time_embed(timestep, x.dtype)
        caption = self.caption_norm(self.caption_projection(encoder_hidden_states))
        for block in self.transformer_blocks:
            x = block(x, caption, timestep=modulation, grid=(rows, columns))
        shift, scale = (self.scale_shift_table[None] + embedded[:, None]).chunk(2, dim=1)
        x = self.proj_out(self.norm_out(x) * (1 + scale) + shift)
        x = x.unflatten(2, (patch, patch, -1)).unflatten(1, (rows, columns))
        velocity: Tensor = x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return velocity


class _TimeEmbedding(nn.Module):
    """A timestep to shift, scale and gate of attention and of convolution (adaLN-single)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        embedder = _mlp(2 * _FREQUENCIES, width, nn.SiLU())
        self.emb = nn.ModuleDict({"timestep_embedder": embedder})
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        exponents = -math.log(10000) * torch.arange(
            _FREQUENCIES, dtype=torch.float32, device=timestep.device
        )
        angles = timestep[:, None].float() * torch.exp(exponents / _FREQUENCIES)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype)
        embedded = self.emb["timestep_embedder"](waves)
        return self.linear(F.silu(embedded)), embedded


class _Block(nn.Module):
    """Linear attention, cross-attention to the caption, and a gated convolution."""

    def __init__(self, width: int, config: Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=config.norm_eps, elementwise_affine=False)
        self.attn1 = _LinearAttention(width, config.num_attention_heads, config.attention_bias)
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps, elementwise_affine=False)
        heads = config.num_cross_attention_heads
        self.attn2 = _CrossAttention(
            width, config.cross_attention_dim, heads, config.cross_attention_head_dim
        )
        self.ff = _GatedConvolution(width, int(config.mlp_ratio * width))
        self.scale_shift_table = nn.Parameter(torch.zeros(6, width))

    def forward(
        self, x: Tensor, caption: Tensor, *, timestep: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        table = self.scale_shift_table[None] + timestep.reshape(len(x), 6, -1)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = table.chunk(6, dim=1)
        attended = (self.norm1(x) * (1 + scale_1) + shift_1).to(x.dtype)
        x = x + gate_1 * self.attn1(attended)
        x = self.attn2(x, caption) + x
        normed = self.norm2(x) * (1 + scale_2) + shift_2
        mixed = self.ff(normed.unflatten(1, grid).permute(0, 3, 1, 2))
        out: Tensor = x + gate_2 * mixed.flatten(2, 3).permute(0, 2, 1)
        return out


class _LinearAttention(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=bias) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).transpose(1, 2).unflatten(1, (self.heads, -1))
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        query, key = F.relu(query).float(), F.relu(key.transpose(2, 3)).float()
        # A channel of ones sums the weights that the others are divided by.
        sums = (F.pad(value.float(), (0, 0, 0, 1), value=1.0) @ key) @ query
        mixed = (sums[:, :, :-1] / (sums[:, :, -1:] + 1e-15)).flatten(1, 2).transpose(1, 2)
        out: Tensor = self.to_out[0](mixed.to(x.dtype))
        return out.clip(-65504, 65504) if x.dtype == torch.float16 else out


class _CrossAttention(nn.Module):
    def __init__(self, width: int, caption_width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, heads * head_width)
        self.to_k, self.to_v = (nn.Linear(caption_width, heads * head_width) for _ in range(2))
        self.to_out = nn.ModuleList([nn.Linear(heads * head_width, width)])

    def forward(self, x: Tensor, caption: Tensor) -> Tensor:
        query, key, value = (
            projected.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projected in (self.to_q(x), self.to_k(caption), self.to_v(caption))
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.to_out[0](mixed.transpose(1, 2).flatten(2))
        return out


class _GatedConvolution(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv_inverted = nn.Conv2d(width, 2 * hidden, 1)
        self.conv_depth = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.conv_point = nn.Conv2d(hidden, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.conv_depth(F.silu(self.conv_inverted(x))).chunk(2, dim=1)
        out: Tensor = self.conv_point(x * F.silu(gate))
        return out


class _RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
        return (x * scale).to(self.weight.dtype) * self.weight


def _mlp(width_in: int, width: int, activation: nn.Module) -> nn.Sequential:
    layers = {"linear_1": nn.Linear(width_in, width), "act": activation}
    return nn.Sequential(OrderedDict(layers, linear_2=nn.Linear(width, width)))
