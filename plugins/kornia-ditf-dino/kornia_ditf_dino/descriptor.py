"""Patch tokens or attention projections of one layer of a DINO, as a descriptor map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_ditf.dense import DenseDescriptor, one_prompt_each
from kornia_ditf.errors import CaptureError, InvalidArgumentError
from kornia_ditf.preprocess import ImageLike, as_image, check_size, fit_image, squash_image
from kornia_ditf.types import DescriptorMap, Frame
from kornia_ditf.utils.checks import check_integer, check_one_of
from kornia_ditf.utils.hooks import capture_output
from kornia_ditf.utils.isolation import isolated

Facet = Literal["token", "key", "query", "value"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Projections of the attention, in this and in earlier versions of transformers.
_PROJECTIONS = {
    "key": ("k_proj", "key"),
    "query": ("q_proj", "query"),
    "value": ("v_proj", "value"),
}
_FINAL_NORMS = ("norm", "layernorm")


@dataclass(frozen=True, slots=True, kw_only=True)
class DINOConfig:
    """What a DINO descriptor computes.

    Args:
        layer: counted from 0, as in dino-vit-features and sd-dino; None is the last one. In
            transformers' numbering its tokens are `hidden_states[layer + 1]`.
        facet: the layer's output `token`, or the `key`, `query` or `value` of its attention, all
            heads side by side, before any rotary embedding.
        layernorm: apply the model's final layer norm to the tokens. None applies it where the
            model does, to the last layer's; never to keys, queries or values.
        stride: pixels between neighbouring patches; below the patch's side they overlap. None is
            the patch's side.
        long_side: longest side of the fitted image in pixels, aspect kept; None keeps the size.
        size: height and width to squash to instead, multiples of the stride.
        mean: of each colour, subtracted from an image in [0, 1].
        std: of each colour, divided by.

    Raises:
        InvalidArgumentError: a value is out of range.

    Example:
        >>> DINOConfig(layer=9, facet="keys")
        Traceback (most recent call last):
        kornia_ditf.errors.InvalidArgumentError: facet must be one of token, key, query, value,
        got 'keys'; did you mean 'key'?
    """

    layer: int | None = None
    facet: Facet = "token"
    layernorm: bool | None = None
    stride: int | None = None
    long_side: int | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name, minimum in (("layer", 0), ("stride", 1), ("long_side", 1)):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), minimum=minimum)
        check_one_of("facet", self.facet, get_args(Facet))
        for name in ("mean", "std"):
            _check_colours(name, getattr(self, name))
        if self.layernorm and self.facet != "token":
            raise InvalidArgumentError(
                f"layernorm is for tokens, but facet is {self.facet!r}; leave one of them out"
            )

    def settle(self, layers: int) -> DINOConfig:
        """Fill in the layer and its norm for a model with this number of layers.

        Raises:
            InvalidArgumentError: the model has no such layer.
        """
        last = layers - 1
        layer = last if self.layer is None else self.layer
        check_integer("layer", layer, 0, last)
        norm = self.layernorm
        if norm is None:
            norm = self.facet == "token" and layer == last
        return replace(self, layer=layer, layernorm=norm)


def _check_colours(name: str, values: object) -> None:
    numbers = values if isinstance(values, tuple | list) else ()
    real = [v for v in numbers if isinstance(v, Real) and math.isfinite(v)]
    if len(real) != 3 or len(numbers) != 3 or (name == "std" and min(real) <= 0):
        above = " above 0" if name == "std" else ""
        raise InvalidArgumentError(f"{name} must be three numbers{above}, got {values!r}")


class DINO(DenseDescriptor):
    """Dense descriptors from DINO, DINOv2 (with or without registers) or DINOv3.

    Class and register tokens are dropped; positions are interpolated by the model's own code. With
    overlapping patches, see `overlap_patches` for what happens at the border.

    Args:
        model: a transformers ViTModel, Dinov2Model, Dinov2WithRegistersModel or DINOv3ViTModel.
        config: what to compute.
        identity: which weights these are; None keeps descriptors out of caches.

    Raises:
        InvalidArgumentError: the model has no such layer, the stride is larger than its patch, or
            the size does not fit.
        CaptureError: the model is none of these.
    """

    def __init__(
        self, model: nn.Module, config: DINOConfig, *, identity: str | None = None
    ) -> None:
        super().__init__()
        self.model, self.config = model, config.settle(len(find_blocks(model)))
        self._layer, self._weights = int(self.config.layer or 0), identity
        if config.stride is not None:
            check_integer("stride", config.stride, 1, self.patch_size)
        if config.size is not None:
            check_size(config.size, self.pixels_per_token)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        config: Any = self.model.config
        side = config.patch_size
        return int(side if isinstance(side, int) else side[0])

    @property
    def pixels_per_token(self) -> int:
        """Pixels of the fitted image between neighbouring tokens."""
        return self.config.stride or self.patch_size

    @property
    def width(self) -> int:
        config: Any = self.model.config
        return int(config.hidden_size)

    @property
    def identity(self) -> str | None:
        """Identifier of weights, configuration and dtype; None if the weights have none."""
        if self._weights is None:
            return None
        return f"{self._weights} {self.config} {next(self.model.parameters()).dtype}"

    @torch.no_grad()
    def forward(
        self, image: ImageLike, prompts: str | Sequence[str] | None = None
    ) -> DescriptorMap:
        """Describe an image, or a batch of equally large ones; prompts are not read.

        Arguments, result and errors as in `DenseDescriptor.forward`; descriptors are float32.
        """
        pixels = as_image(image)
        one_prompt_each(prompts, len(pixels))
        fitted, frame = self._fit(pixels)
        rows, columns = (side // self.pixels_per_token for side in frame.model_size)
        place = next(self.model.parameters())
        mean, std = (
            torch.tensor(value, dtype=torch.float32, device=place.device).view(3, 1, 1)
            for value in (self.config.mean, self.config.std)
        )
        seen = (fitted.to(place.device, torch.float32) - mean) / std
        seen = overlap_patches(seen, self.patch_size, self.pixels_per_token)
        found = capture_layer(self.model, seen.to(place.dtype), self._layer, self.config.facet)
        others = found.shape[1] - rows * columns
        if others != 1 + getattr(self.model.config, "num_register_tokens", 0):
            raise CaptureError(
                f"{type(self.model).__name__} gave {found.shape[1]} tokens for {rows} x {columns} "
                "patches, which its class and register tokens do not explain"
            )
        if self.config.layernorm:
            with isolated(self.model):
                found = _final_norm(self.model)(found)
        data = found[:, others:].float().transpose(1, 2)
        return DescriptorMap(data.reshape(len(data), -1, rows, columns), frame)

    def _fit(self, image: Tensor) -> tuple[Tensor, Frame]:
        step = self.pixels_per_token
        if self.config.size is not None:
            return squash_image(image, self.config.size, step)
        return fit_image(image, self.config.long_side, step)


def overlap_patches(image: Tensor, patch: int, stride: int) -> Tensor:
    """Lay overlapping patches side by side, so that a ViT reads each as one of its own.

    A ViT's patch embedding is a convolution whose stride is the patch. Run on this picture it
    gives what it would give on the image with the smaller stride, its positions are interpolated
    to the finer grid by its own code, and nothing in it is changed.

    So that token (i, j) stands at the middle of the image's square (i, j) of `stride` pixels, the
    image's border pixels are repeated (patch - stride) / 2 times on every side. Where that is no
    whole number, all tokens stand half a pixel of the fitted image too far right and down.
    dino-vit-features does not pad: it has (patch - stride) / stride fewer rows and columns.

    Args:
        image: shape (B, C, h, w), sides multiples of `stride`.
        patch: side of a patch in pixels.
        stride: pixels between patches, at most `patch`.

    Returns:
        shape (B, C, h / stride * patch, w / stride * patch); the image itself if no patch overlaps.

    Example:
        >>> overlap_patches(torch.zeros(1, 3, 32, 48), patch=16, stride=8).shape
        torch.Size([1, 3, 64, 96])
    """
    if stride == patch:
        return image
    margin = patch - stride
    before, after = margin // 2, margin - margin // 2
    padded = F.pad(image, (before, after, before, after), mode="replicate")
    patches = padded.unfold(2, patch, stride).unfold(
        3, patch, stride
    )  # (B, C, rows, columns, p, p)
    batch, channels, rows, columns = patches.shape[:4]
    side_by_side = patches.transpose(3, 4)
    return side_by_side.reshape(batch, channels, rows * patch, columns * patch)


def capture_layer(model: nn.Module, image: Tensor, layer: int, facet: Facet) -> Tensor:
    """Run a ViT up to a layer and give its tokens, or its attention's keys, queries or values.

    Args:
        model: see `DINO`.
        image: normalised images (B, 3, h, w), sides multiples of the patch.
        layer: counted from 0.
        facet: see `DINOConfig`.

    Returns:
        shape (B, N, D), class and register tokens first, in the model's dtype.

    Raises:
        CaptureError: the forward never reached it. No hook remains, whatever happens.
    """
    block: nn.Module = find_blocks(model)[layer]
    source = block if facet == "token" else _projection(block, facet)
    config: Any = model.config
    # DINO's own class refuses other sizes than it was trained on unless it is told.
    options = {"interpolate_pos_encoding": True} if config.model_type == "vit" else {}
    inputs = {"pixel_values": image, **options}
    return capture_output(model, source, inputs, name=f"layer {layer}")


def find_blocks(model: nn.Module) -> nn.ModuleList:
    """Find a ViT's list of layers, wherever its class keeps it.

    Raises:
        CaptureError: there is none.
    """
    depth = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise CaptureError(f"{type(model).__name__} has no list of its {depth} layers")


def _projection(block: nn.Module, facet: str) -> nn.Module:
    for name, module in block.named_modules():
        if name.rpartition(".")[2] in _PROJECTIONS[facet] and isinstance(module, nn.Linear):
            return module
    raise CaptureError(f"{type(block).__name__} has no projection for the {facet}")


def _final_norm(model: nn.Module) -> nn.Module:
    for name in _FINAL_NORMS:
        norm = getattr(model, name, None)
        if isinstance(norm, nn.LayerNorm):
            return norm
    raise CaptureError(f"{type(model).__name__} has no final layer norm")
