"""Taps averaged over an ensemble of noise draws, in pieces that fit memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.backbones.base import Backbone
from kornia_ditf.tap import Facet
from kornia_ditf.types import Conditioning, Tap


def mean_taps(
    backbone: Backbone,
    latent: Tensor,
    noise: Tensor,
    timestep: float,
    conditioning: Conditioning,
    *,
    blocks: Sequence[int],
    facet: Facet = "input",
    rows: int | None = None,
) -> dict[int, Tap]:
    """Capture blocks for every noise draw and average over the draws.

    Args:
        backbone: what to run.
        latent: clean latents, shape (B, C, h, w), or (B, C, F, h, w) of clips.
        noise: each image's draws, shape (B, E, C, h, w), or (E, C, h, w) for all images; of clips
            also with an axis F.
        timestep: the paper's timestep in [0, 1000].
        conditioning: B rows.
        blocks: which blocks to capture.
        facet: what of them, see `Backbone.taps`.
        rows: how many noisy latents run together; None tries all B * E, and halves the number when
            memory runs out. The result is the same up to rounding.

    Returns:
        one tap per block with B rows, float32.
    """
    noise = noise.expand(len(latent), *noise.shape[-latent.ndim :])
    ensemble = noise.shape[1]
    facets: dict[str, Any] = {} if facet == "input" else {"facet": facet}

    def in_pieces(rows: int) -> dict[int, Tap]:
        pieces: dict[int, list[Tap]] = {block: [] for block in blocks}
        for start in range(0, len(latent), rows):
            images, given = latent[start : start + rows], conditioning.rows(start, start + rows)
            sums: dict[int, Tap] = {}
            draws = noise[start : start + rows]
            for members in torch.split(draws, max(1, rows // len(images)), dim=1):
                count = members.shape[1]
                clean = images.repeat_interleave(count, 0)
                noisy = backbone.schedule.mix(clean, members.flatten(0, 1), timestep)
                prompts = given.expand(len(noisy))
                taps = backbone.taps(noisy, timestep, prompts, blocks=blocks, **facets)
                for block, tap in taps.items():
                    share = tap.mean(count) * (count / ensemble)
                    sums[block] = sums[block] + share if block in sums else share
            for block, tap in sums.items():
                pieces[block].append(tap)
        return {block: Tap.cat(taps) for block, taps in pieces.items()}

    rows = rows or len(latent) * ensemble
    while True:
        try:
            return in_pieces(rows)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            rows = (rows + 1) // 2
