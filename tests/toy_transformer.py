"""A transformer small enough to run block by block, with its declarations and inputs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_ditf.tap import BlockStream, LinearModulation

WIDTH, TEXT, GRID = 16, 3, (2, 4)
TOKENS = GRID[0] * GRID[1]


class ToyBlock(nn.Module):
    """A block with AdaLN; `after` tells what runs behind the attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False, eps=1e-5)
        self.linear = nn.Linear(WIDTH, 6 * WIDTH)
        self.attention = nn.Linear(WIDTH, WIDTH)
        self.after = nn.Identity()

    def forward(self, stream: Tensor, emb: Tensor) -> Tensor:
        shift, scale, gate, *_ = self.linear(F.silu(emb)).chunk(6, dim=-1)
        modulated = self.norm(stream) * (1 + scale[:, None]) + shift[:, None]
        return stream + self.after(gate[:, None] * self.attention(modulated))


class ToyTransformer(nn.Module):
    """Two lists of blocks; the second sees text before the image."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleList(ToyBlock() for _ in range(2))
        self.second = nn.ModuleList(ToyBlock() for _ in range(3))
        self.calls = 0

    def forward(self, hidden: Tensor, text: Tensor, emb: Tensor) -> Tensor:
        self.calls += 1
        for block in self.first:
            hidden = block(hidden, emb=emb)
        hidden = torch.cat([text, hidden], 1)
        for block in self.second:
            hidden = block(hidden, emb=emb)
        return hidden[:, TEXT:]


def stream(blocks: str, **changes: Any) -> BlockStream:
    known: dict[str, Any] = {
        "norm": "norm",
        "attention": "attention",
        "modulation": LinearModulation("linear"),
    }
    return BlockStream(blocks=blocks, **{**known, **changes})


STREAMS = (stream("first"), stream("second", tokens="last"))


def hook_count(module: nn.Module) -> int:
    return sum(
        len(child._forward_pre_hooks) + len(child._forward_hooks) for child in module.modules()
    )


def stream_before(toy: ToyTransformer, inputs: dict[str, Tensor], block: int) -> Tensor:
    """Compute the image tokens that enter a block, by running the blocks before it."""
    hidden, emb = inputs["hidden"], inputs["emb"]
    for one in toy.first[:block]:
        hidden = one(hidden, emb)
    if block < 2:
        return hidden
    hidden = torch.cat([inputs["text"], hidden], 1)
    for one in toy.second[: block - 2]:
        hidden = one(hidden, emb)
    return hidden[:, TEXT:]
