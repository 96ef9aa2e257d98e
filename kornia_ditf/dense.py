"""The interface of every dense descriptor, from a DiT or not: images to `DescriptorMap`s."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.preprocess import ImageLike
from kornia_ditf.types import DescriptorMap
from kornia_ditf.utils.checks import check_integer, check_spec
from kornia_ditf.utils.isolation import eager
from kornia_ditf.utils.state import leave_out_frozen
from kornia_ditf.utils.values import deferred_checks


class DenseDescriptor(nn.Module, ABC):
    """Dense descriptors of images: the interface that matchers, hosts and studies ask for.

    `DiTF` is one; DINO, a Stable Diffusion UNet or a fusion of several are others. Whatever it
    does to an image inside (scaling, padding), the map that it gives knows the image's own pixels.
    """

    save_frozen: bool = False
    """Whether `state_dict` also holds the parts that are frozen, such as a backbone's weights."""

    def __init__(self) -> None:
        super().__init__()
        leave_out_frozen(self)

    @eager
    def __call__(self, *args: Any, **kwargs: Any) -> DescriptorMap:
        with deferred_checks() as checks:
            described: DescriptorMap = super().__call__(*args, **kwargs)
        return replace(described, checks=checks) if checks else described

    @eager
    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        # What `compile()` of a module traces.
        return super()._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]

    @property
    @abstractmethod
    def width(self) -> int:
        """Channels D of the descriptors."""

    @property
    def identity(self) -> str | None:
        """Name everything that decides the numbers: weights, settings and dtype.

        Descriptors are cached under it. None means that they must not be.
        """
        return None

    @property
    def long_side(self) -> int | None:
        """Longest side in pixels to which images are fitted; None keeps their size."""
        side: int | None = getattr(getattr(self, "config", None), "long_side", None)
        return side

    def with_long_side(self, long_side: int) -> DenseDescriptor:
        """Return this descriptor for another image size; the weights are shared.

        A descriptor that keeps the size of images is returned as it is.
        """
        if self.long_side in (None, long_side):
            return self
        other: Any = copy(self)
        other.config = replace(other.config, long_side=long_side)
        resized: DenseDescriptor = other
        return resized

    @abstractmethod
    def forward(
        self, image: ImageLike, prompts: str | Sequence[str] | None = None
    ) -> DescriptorMap:
        """Describe an image, or a batch of equally large ones.

        Args:
            image: a tensor (B, 3, H, W) or (3, H, W) in [0, 1], RGB; or a path, a PIL image or an
                RGB array (see `as_image`).
            prompts: none, one for all images, or one per image, where the descriptor reads text.

        Returns:
            descriptors (B, D, rows, columns) that know the image's pixels.

        Raises:
            InvalidArgumentError: an image or the prompts do not fit.
            ImageError: a file cannot be read, or an image is too small or too thin.
        """

    def describe_together(
        self, images: Sequence[ImageLike], prompts: str | Sequence[str] | None = None
    ) -> list[DescriptorMap]:
        """Describe images of any sizes, so that their descriptors can be compared.

        Args:
            images: each as in `forward`, one image each.
            prompts: none, one for all images, or one per image.

        Returns:
            one map per image, each with B = 1.

        Raises:
            InvalidArgumentError: there are not as many prompts as images; or as `forward`.
        """
        told = one_prompt_each(prompts, len(images))
        return [self(image, prompt) for image, prompt in zip(images, told, strict=True)]


def one_prompt_each(prompts: str | Sequence[str] | None, images: int) -> list[str | None]:
    """Repeat one prompt, or none, for every image; several must be as many as the images.

    Raises:
        InvalidArgumentError: they are not.

    Example:
        >>> one_prompt_each("a cat", 2)
        ['a cat', 'a cat']
    """
    if prompts is None or isinstance(prompts, str):
        return [prompts] * images
    if len(prompts) != images:
        raise InvalidArgumentError(f"{images} images have {len(prompts)} prompts")
    return list(prompts)


@dataclass(frozen=True, slots=True, kw_only=True)
class InMemory:
    """How a backbone or descriptor is made of a model that is in memory.

    Args:
        model: name of the class of its transformer or UNet.
        make: makes it; called with a `kornia_ditf.loading.memory.LoadedModel` and options.
        pipeline: name of its pipeline's class. This, the VAE and the values tell apart several
            with the same class of model.
        vae: name of its VAE's class.
        config: values that the model's configuration has.
    """

    model: str
    make: Callable[..., Any]
    pipeline: str = ""
    vae: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorSpec:
    """All that is known of a dense descriptor that is no DiT, before a weight is loaded.

    Args:
        name: what the user types.
        load: makes the descriptor; called with the options that the user gave: `source`, `dtype`
            and `device` by convention, and those that the descriptor has besides.
        width: channels D of the descriptors, with the preset's options.
        pixels_per_token: side of the square of pixels that one token covers.
        source: where the preset's numbers come from.
        license: licence of the weights.
        repo: hub id of the weights; empty where there are several, or none.
        in_memory: how it is made of a model in memory; None where it is not.
    """

    name: str
    load: Callable[..., DenseDescriptor]
    width: int
    pixels_per_token: int
    source: str
    license: str
    repo: str = ""
    in_memory: InMemory | None = None

    def __post_init__(self) -> None:
        check_spec(self, ("name", "source", "license"))
        for name in ("width", "pixels_per_token"):
            check_integer(name, getattr(self, name), minimum=1)
