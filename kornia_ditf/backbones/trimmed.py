"""Families whose transformer is given no padded text: prompts of different lengths take turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.types import Conditioning, Tap


class TrimmedPromptBackbone(DiffusersBackbone):
    """A family whose forward takes a prompt at its own length.

    Conditioning is padded (`prompt_length`), so that prompts can be joined. Images whose prompts
    differ in length are run one length after another, and `transformer_inputs` is given no
    padding. So no image depends on another's prompt.
    """

    padded: ClassVar[tuple[str, ...]] = ("prompt_embeds", "prompt_attention_mask")
    """The tensors of the conditioning that are padded at their end, the mask last."""

    def taps(
        self, latent: Tensor, timestep: float, conditioning: Conditioning, **options: Any
    ) -> dict[int, Tap]:
        parts, places = [], []
        for rows, trimmed in self.trim(conditioning.expand(len(latent))):
            part = latent[rows.to(latent.device)]
            parts.append(super().taps(part, timestep, trimmed, **options))
            places.append(rows)
        if not parts:  # no image, which the family refuses
            return super().taps(latent, timestep, conditioning, **options)
        order = torch.cat(places).argsort()
        return {block: Tap.cat([p[block] for p in parts]).take(order) for block in parts[0]}

    def trim(self, conditioning: Conditioning) -> Iterator[tuple[Tensor, Conditioning]]:
        """Remove the padding: yield, length by length, the numbers of its rows and those rows."""
        # A prompt encoder gives its tensors on the CPU, so that no device is waited for.
        lengths = conditioning[self.padded[-1]].bool().sum(1).cpu()
        for length in sorted(set(lengths.tolist())):
            rows = (lengths == length).nonzero().flatten()
            tensors = {name: v[rows.to(v.device)] for name, v in conditioning.tensors.items()}
            cut = {name: tensors[name][:, :length].contiguous() for name in self.padded}
            yield rows, Conditioning({**tensors, **cut})
