"""Families whose transformer is given no padded text: prompts of different lengths take turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.tap import Facet
from kornia_ditf.types import Conditioning, Tap


class TrimmedPromptBackbone(DiffusersBackbone):
    """A family whose forward takes a prompt at its own length.

    Conditioning is padded (`prompt_length`), so that prompts can be joined. `transformer_inputs`
    begins with `trim`, which removes the padding, and images whose prompts differ in length are
    run one length after another. So no image depends on another's prompt.
    """

    padded: ClassVar[tuple[str, ...]] = ("prompt_embeds", "prompt_attention_mask")
    """The tensors of the conditioning that are padded, the mask last."""

    def taps(
        self,
        latent: Tensor,
        timestep: float,
        conditioning: Conditioning,
        *,
        blocks: Sequence[int],
        facet: Facet = "input",
    ) -> dict[int, Tap]:
        given = conditioning.expand(len(latent))
        lengths = given[self.padded[-1]].bool().sum(1).cpu()
        groups = [(lengths == length).nonzero()[:, 0] for length in sorted(set(lengths.tolist()))]
        if not groups:
            return super().taps(latent, timestep, given, blocks=blocks, facet=facet)
        parts = [
            super(TrimmedPromptBackbone, self).taps(
                latent[rows.to(latent.device)],
                timestep,
                _take(given, rows),
                blocks=blocks,
                facet=facet,
            )
            for rows in groups
        ]
        order = torch.cat(groups).argsort()
        return {block: _reorder(Tap.cat([p[block] for p in parts]), order) for block in parts[0]}

    def trim(self, conditioning: Conditioning) -> Conditioning:
        """Remove what is padding in every row."""
        length = int(conditioning[self.padded[-1]].bool().sum(1).max())
        cut = {name: conditioning[name][:, :length].contiguous() for name in self.padded}
        return Conditioning({**conditioning.tensors, **cut})


def _take(conditioning: Conditioning, rows: Tensor) -> Conditioning:
    return Conditioning({n: v[rows.to(v.device)] for n, v in conditioning.tensors.items()})


def _reorder(tap: Tap, order: Tensor) -> Tap:
    order = order.to(tap.x.device)
    shift, scale = (None if v is None else v[order] for v in (tap.shift, tap.scale))
    return replace(tap, x=tap.x[order], shift=shift, scale=scale)
