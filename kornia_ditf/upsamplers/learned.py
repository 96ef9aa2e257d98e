"""Learned upsamplers of other packages, by name: AnyUp and FeatUp."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from kornia_ditf.errors import HubError, InvalidArgumentError
from kornia_ditf.upsamplers.filters import Upsampling, adapt_module
from kornia_ditf.utils.checks import check_one_of
from kornia_ditf.utils.files import os_errors_as

ANYUP = "https://github.com/wimmerth/anyup"
FEATUP = "https://github.com/mhamilton723/FeatUp"
_ANYUP_WEIGHTS = {
    "multi": f"{ANYUP}/releases/download/checkpoint_v2/anyup_multi_backbone.pth",
    "paper": f"{ANYUP}/releases/download/checkpoint/anyup_paper.pth",
}
_FEATUP_WEIGHTS = (
    "https://marhamilresearch4.blob.core.windows.net/feature-upsampling-public/pretrained/"
    "{}_jbu_stack_cocostuff.ckpt"
)
_FEATUP_BACKBONES = ("dino16", "dinov2", "clip", "vit", "resnet50")


def lacks(package: str, home: str) -> str:
    """Return what is missing for a package to be used, or an empty text."""
    if find_spec(package) is not None:
        return ""
    return f"the package {package} is not installed; type `pip install git+{home}`"


def anyup(weights: str = "multi") -> Upsampling:
    """Load AnyUp, which upsamples the features of any model (Wimmer et al., arXiv 2510.12764).

    Args:
        weights: `multi`, trained on several models' features, or `paper`, on DINOv2's.
    """
    check_one_of("weights of anyup", weights, _ANYUP_WEIGHTS)
    module = import_module("anyup.model").AnyUp()
    module.load_state_dict(_download(_ANYUP_WEIGHTS[weights]))
    return _placed(module)


def featup(backbone: str = "dinov2") -> Upsampling:
    """Load FeatUp's stack of learned joint bilateral filters; it enlarges 16 times.

    Args:
        backbone: whose features it was trained for, and which alone it takes: dino16, dinov2,
            clip, vit or resnet50.
    """
    check_one_of("backbone of featup", backbone, _FEATUP_BACKBONES)
    state = _download(_FEATUP_WEIGHTS.format(backbone))["state_dict"]
    prefix = "upsampler."
    own = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
    width = own["fixup_proj.1.weight"].shape[0]
    module = import_module("featup.upsamplers").get_upsampler("jbu_stack", width)
    module.load_state_dict(own)
    return _placed(_Swapped(module, width))


class _Swapped(nn.Module):
    """A module that takes the features first, and of one width."""

    def __init__(self, module: nn.Module, width: int) -> None:
        super().__init__()
        self.module, self.width = module, width

    def forward(self, image: Tensor, features: Tensor) -> Any:
        if features.shape[1] != self.width:
            raise InvalidArgumentError(
                f"these weights of featup are for {self.width} channels, got {features.shape[1]}; "
                "anyup takes the features of any descriptor"
            )
        return self.module(features, image)


def _download(address: str) -> Any:
    folder = f"{torch.hub.get_dir()}/checkpoints"
    advice = f"where there is no network, put the file into {folder}"
    with os_errors_as(HubError, f"cannot download {address}", advice):
        return torch.hub.load_state_dict_from_url(address, map_location="cpu", weights_only=True)


def _placed(module: nn.Module) -> Upsampling:
    """Freeze a module, and move it to where features are."""
    module = module.eval().requires_grad_(False)
    adapted = adapt_module(module)

    def upsample(image: Tensor, features: Tensor, size: tuple[int, int]) -> Tensor:
        module.to(features.device)
        return adapted(image, features, size)

    return upsample
