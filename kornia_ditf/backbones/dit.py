"""DiT-XL/2: class-conditional, trained on ImageNet; a prompt is the name of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from kornia_ditf.backbones import configs
from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone, read_schedule
from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.errors import CheckpointError, InvalidArgumentError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.tap import ADALN_ZERO
from kornia_ditf.types import Conditioning
from kornia_ditf.utils.checks import did_you_mean


class DiTBackbone(DiffusersBackbone):
    """DiT at 256 and 512 pixels; its schedule is the checkpoint's own.

    Args:
        transformer: a DiTTransformer2DModel.
        vae: its AutoencoderKL, or the encoder alone.
        labels: from the names of classes to their indices.
        options: see `DiffusersBackbone`.
    """

    transformer_class = "DiTTransformer2DModel"
    streams = (ADALN_ZERO,)
    head = ("norm_out", "proj_out_1", "proj_out_2")
    time = "int(t)"
    prompt_inputs = {"class_labels": "class_labels"}

    def __init__(
        self,
        transformer: nn.Module,
        vae: nn.Module | None = None,
        *,
        labels: Mapping[str, int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(transformer, vae, **options)
        self.labels = dict(labels or {})

    @classmethod
    def checkpoint_options(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        names = checkpoint.json("model_index.json").get("id2label", {})
        try:
            # One class has several names: "tench, Tinca tinca".
            labels = {
                name.strip(): int(index)
                for index, synonyms in names.items()
                for name in synonyms.split(",")
            }
        except (AttributeError, ValueError) as error:
            raise CheckpointError(
                f"{checkpoint.source}/model_index.json: id2label must name classes by their "
                f"indices ({error}); download it again"
            ) from error
        return {"schedule": read_schedule(checkpoint), "labels": labels}

    def condition(self, prompts: Sequence[str]) -> Conditioning:
        classes = torch.tensor([self._class_index(prompt) for prompt in prompts], device="cpu")
        return Conditioning({"class_labels": classes})

    def _class_index(self, prompt: str) -> int:
        if not prompt:
            return int(self.config.num_embeds_ada_norm)  # the last row is the null class
        if prompt not in self.labels:
            raise InvalidArgumentError(
                f"this DiT has {len(self.labels)} classes, and {prompt!r} is not one of "
                f"them{did_you_mean(prompt, self.labels)}"
            )
        return self.labels[prompt]


def _spec(side: int) -> BackboneSpec:
    return DiTBackbone.spec(
        name=f"dit-xl-2-{side}",
        repo=f"facebook/DiT-XL-2-{side}",
        pipeline="DiTPipeline",
        architecture=configs.dit(side // 8),
        blocks=28,
        width=1152,
        long_side=side,
        license="CC-BY-NC-4.0",
    )


SPECS: tuple[BackboneSpec, ...] = (_spec(256), _spec(512))
