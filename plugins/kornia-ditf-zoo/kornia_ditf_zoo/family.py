"""What the families of this package share: specs, packing, positions, and texts of any length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.noise import VariancePreserving
from kornia_ditf.types import Conditioning, Tap


def describe(backbone: type[DiffusersBackbone], **known: Any) -> BackboneSpec:
    """Describe a published model of a family, with the neutral rule's block and timestep."""
    return BackboneSpec.uncalibrated(
        pipeline=str(backbone.pipeline_class),
        load=backbone.from_pretrained,
        plan=backbone.plan_loading,
        blocks_from=backbone.blocks_from,
        width_from=backbone.width_from,
        **known,
    )


def every_row(latent: Tensor, value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Give a time, guidance or the like to every row of a batch of latents, shape (B,)."""
    return torch.full((len(latent),), value, dtype=dtype, device=latent.device)


def pack(latent: Tensor, patch: int = 2) -> Tensor:
    """Lay a latent (B, C, h, w) out as tokens (B, N, C * patch * patch), row by row."""
    # Contiguous, as the pipelines pack it: some quantised layers take nothing else.
    return F.pixel_unshuffle(latent, patch).flatten(2).transpose(1, 2).contiguous()


def positions(rows: int, columns: int, *, device: torch.device, before: int = 1) -> Tensor:
    """Number the tokens of a grid by row and column, after so many axes that stay 0: (N, axes)."""
    grid = torch.zeros(rows, columns, before + 2, device=device)
    grid[..., before] = torch.arange(rows, device=device)[:, None]
    grid[..., before + 1] = torch.arange(columns, device=device)
    return grid.flatten(0, 1)


def fit_grid(
    grid: tuple[int, int], base: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Fit a grid of tokens into the one of training, centred, its aspect kept.

    Returns:
        the first and the last corner (row, column), in units of the training grid's tokens.
    """
    (rows, columns), (base_rows, base_columns) = grid, base
    if rows / columns > base_rows / base_columns:
        height, width = base_rows, round(base_rows / rows * columns)
    else:
        height, width = round(base_columns / columns * rows), base_columns
    top, left = round((base_rows - height) / 2), round((base_columns - width) / 2)
    return (top, left), (top + height, left + width)


def read_own_schedule(checkpoint: Checkpoint) -> VariancePreserving:
    """Read the noise schedule of a checkpoint's scheduler as that scheduler itself works it out.

    Those of CogVideoX shift the signal's share after the betas, which DDPM's do not.
    """
    import diffusers

    config = checkpoint.json("scheduler/scheduler_config.json")
    schedulers: Any = diffusers
    scheduler = getattr(schedulers, config["_class_name"]).from_config(config)
    return VariancePreserving(scheduler.alphas_cumprod)


def pad_texts(texts: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor]:
    """Lay texts (L_i, D) side by side, filled up with zeros to one length.

    Returns:
        the texts (B, length, D), and a mask (B, length) that is True where a token is real.
    """
    padded = torch.stack([F.pad(text, (0, 0, 0, length - len(text))) for text in texts])
    counts = torch.tensor([len(text) for text in texts], device=padded.device)
    return padded, torch.arange(length, device=padded.device) < counts[:, None]


class TrimmedTexts(DiffusersBackbone):
    """A family whose text has no padding in its forward: its length is that of the prompt.

    Conditioning is padded, so that prompts can be joined. `transformer_inputs` begins with `trim`,
    which cuts the padding off, and images whose prompts differ in length take turns. So no image
    depends on another's prompt, and each is told what the pipeline tells the model for it alone.
    """

    texts: ClassVar[tuple[str, ...]] = ("prompt_embeds", "prompt_attention_mask")
    """The conditioning's tensors that are padded, the mask last."""

    def taps(
        self, latent: Tensor, timestep: float, conditioning: Conditioning, *, blocks: Sequence[int]
    ) -> dict[int, Tap]:
        told = conditioning.expand(len(latent))
        lengths = told[self.texts[-1]].bool().sum(1).cpu()
        groups = [(lengths == length).nonzero()[:, 0] for length in sorted(set(lengths.tolist()))]
        if not groups:
            return super().taps(latent, timestep, told, blocks=blocks)
        parts = [
            super(TrimmedTexts, self).taps(
                latent[rows.to(latent.device)], timestep, _take(told, rows), blocks=blocks
            )
            for rows in groups
        ]
        order = torch.cat(groups).argsort()
        return {block: _reorder(Tap.cat([p[block] for p in parts]), order) for block in parts[0]}

    def trim(self, told: Conditioning) -> Conditioning:
        """Cut off what is padding in every row."""
        length = int(told[self.texts[-1]].bool().sum(1).max())
        cut = {name: told[name][:, :length].contiguous() for name in self.texts}
        return Conditioning({**told.tensors, **cut})


def _take(told: Conditioning, rows: Tensor) -> Conditioning:
    return Conditioning({n: value[rows.to(value.device)] for n, value in told.tensors.items()})


def _reorder(tap: Tap, order: Tensor) -> Tap:
    order = order.to(tap.x.device)
    shift, scale = (None if v is None else v[order] for v in (tap.shift, tap.scale))
    return replace(tap, x=tap.x[order], shift=shift, scale=scale)
