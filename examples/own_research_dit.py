"""Describe images with a DiT of one's own code: a small SiT with adaLN-zero, and no diffusers.

Replace `SiT` by the class of the repository that trained the weights, load them, and declare where
its blocks keep norm, modulation and attention. A wrong declaration raises an error at the first
image, since it is checked against what the attention receives.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

import kornia_ditf as kd
from kornia_ditf.backbones.inputs import full_batch
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.tap import BlockStream, LinearModulation

DATA = Path(__file__).parent / "data"


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = (
            heads,
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(
            nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        )


class Block(nn.Module):
    """As in SiT, REPA and LightningDiT: six chunks, shift and scale of the attention first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(c).chunk(6, 1)
        x = x + gate[:, None] * self.attn(self.norm1(x) * (1 + scale[:, None]) + shift[:, None])
        modulated = self.norm2(x) * (1 + scale_mlp[:, None]) + shift_mlp[:, None]
        return x + gate_mlp[:, None] * self.mlp(modulated)


class SiT(nn.Module):
    def __init__(
        self, width: int = 48, depth: int = 4, heads: int = 4, patch: int = 8, channels: int = 3
    ) -> None:
        super().__init__()
        self.x_embedder = nn.Conv2d(channels, width, patch, patch)
        self.t_embedder = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.y_embedder = nn.Embedding(11, width)  # ten classes, and one for none
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        tokens = self.x_embedder(x)
        rows, columns = (waves(side, tokens) for side in tokens.shape[2:])
        places = torch.cat(
            [rows[:, None].expand(-1, len(columns), -1), columns.expand(len(rows), -1, -1)], -1
        )
        tokens = tokens.flatten(2).transpose(1, 2) + places.flatten(0, 1)
        frequencies = torch.arange(tokens.shape[-1], device=t.device).float() / 8
        c = self.t_embedder(torch.cos(t[:, None] * frequencies).to(x)) + self.y_embedder(y)
        for block in self.blocks:
            tokens = block(tokens, c)
        return tokens


def waves(count: int, tokens: Tensor) -> Tensor:
    """Positions along one axis, shape (count, width / 2)."""
    channels = torch.arange(tokens.shape[1] // 4, device=tokens.device)
    angles = torch.arange(count, device=tokens.device)[:, None] / 10 ** (channels / 4)
    return torch.cat([angles.sin(), angles.cos()], -1).to(tokens)


def inputs(latent: Tensor, timestep: float, conditioning: kd.Conditioning) -> dict[str, Tensor]:
    # SiT's time runs from noise at 0 to data at 1, so it is reversed here.
    return {"x": latent, "t": full_batch(latent, 1 - timestep / 1000), "y": conditioning["label"]}


def condition(prompts: list[str]) -> kd.Conditioning:
    """A prompt is the number of a class; the empty one means none."""
    if not all(prompt.isdigit() or not prompt for prompt in prompts):
        raise InvalidArgumentError(f"prompts must be numbers of classes, got {prompts!r}")
    return kd.Conditioning({"label": torch.tensor([int(p) if p else 10 for p in prompts])})


def load(dtype: torch.dtype | None = None) -> kd.ModuleBackbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # in place of load_state_dict(...)
        model = SiT().to(dtype).eval().requires_grad_(False)
    blocks = BlockStream(
        blocks="blocks",
        norm="norm1",
        attention="attn",
        modulation=LinearModulation("adaLN_modulation"),
    )
    return kd.ModuleBackbone(
        model,
        [blocks],
        inputs,
        patch_size=8,
        latent_channels=3,
        condition=condition,
        identity="sit-random",
    )


if __name__ == "__main__":
    ditf = kd.DiTF(load(), kd.DiTFConfig(block=2, timestep=100, long_side=256, massive_channels=()))
    a, b = ditf(DATA / "graffiti_a.jpg"), ditf(DATA / "graffiti_b.jpg")
    print(f"{len(kd.match(a, b))} matches from {math.prod(a.grid)} tokens of {ditf.width} channels")
