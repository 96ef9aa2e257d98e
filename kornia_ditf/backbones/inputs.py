"""What most families need to call their transformer: full batches, packing, positions, padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kornia_ditf.errors import InvalidArgumentError

Time = Literal["t", "int(t)", "t / 1000", "1 - t / 1000", "1000 - t"]
"""How a transformer counts time, from the paper's timestep t: as it is, as an index of a DDPM
schedule, as a share of noise, or backwards."""


def full_batch(latent: Tensor, value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Repeat a time, a guidance scale or the like for every latent of a batch, shape (B,)."""
    return torch.full((len(latent),), value, dtype=dtype, device=latent.device)


def batch_time(latent: Tensor, timestep: float, time: Time) -> Tensor:
    """Convert the paper's timestep to a transformer's own count of time, shape (B,).

    In float32, whatever the latent's dtype: bfloat16 has no 261.
    """
    if time == "int(t)":
        return full_batch(latent, int(timestep), torch.long)
    share = timestep / 1000
    counts = {"t": timestep, "1000 - t": 1000 - timestep, "t / 1000": share}
    return full_batch(latent, counts[time] if time in counts else 1 - share)


def pack(latent: Tensor, patch: int = 2) -> Tensor:
    """Pack a latent (B, C, h, w) into tokens (B, N, C * patch * patch), row by row."""
    # Contiguous, as the pipelines pack it: some quantised layers take nothing else.
    return F.pixel_unshuffle(latent, patch).flatten(2).transpose(1, 2).contiguous()


def grid_positions(rows: int, columns: int, *, device: torch.device) -> Tensor:
    """Number the tokens of a grid by row and column, behind an axis of 0: (N, 3).

    Example:
        >>> grid_positions(1, 2, device=torch.device("cpu"))
        tensor([[0., 0., 0.],
                [0., 0., 1.]])
    """
    grid = torch.zeros(rows, columns, 3, dtype=torch.float32, device=device)
    grid[..., 1] = torch.arange(rows, device=device)[:, None]
    grid[..., 2] = torch.arange(columns, device=device)
    return grid.flatten(0, 1)


def pad_prompt(encoded: Mapping[str, Any], length: int) -> dict[str, Tensor]:
    """Pad the tokens of one prompt with zeros to a length, so that prompts can be joined.

    Padding that is masked already is removed first, wherever it stands.

    Args:
        encoded: `prompt_embeds` (1, L, D), or a list of one (L, D); and perhaps
            `prompt_attention_mask` (1, L), without which all L tokens are real.
        length: of the padded prompt, at least L.

    Returns:
        the same, with (1, length, D) and a mask (1, length).

    Raises:
        InvalidArgumentError: the prompt is longer.
    """
    text = encoded["prompt_embeds"]
    text = text if isinstance(text, Tensor) else torch.stack(list(text))
    mask = encoded.get("prompt_attention_mask")
    if mask is None:
        mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
    text, mask = (value[:, mask[0].bool()] for value in (text, mask))
    missing = length - text.shape[1]
    if missing < 0:
        raise InvalidArgumentError(
            f"a prompt may have up to {length} tokens, got {text.shape[1]}; shorten it"
        )
    padded = {
        "prompt_embeds": F.pad(text, (0, 0, 0, missing)),
        "prompt_attention_mask": F.pad(mask, (0, missing)),
    }
    return {**encoded, **padded}
