"""The interface of every dense descriptor, from a DiT or not: images to `DescriptorMap`s."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor, nn

from kornia_ditf.errors import CaptureError, DiTFError, ImageError, InvalidArgumentError
from kornia_ditf.matching.joint import PCA
from kornia_ditf.preprocess import ImageLike, as_image
from kornia_ditf.types import DescriptorMap, Frame
from kornia_ditf.types.prepared import PreparedImage
from kornia_ditf.utils.borrowing import execution_device
from kornia_ditf.utils.checks import check_integer, check_spec
from kornia_ditf.utils.isolation import eager
from kornia_ditf.utils.pipeline import readers, run_in_groups
from kornia_ditf.utils.state import leave_out_frozen
from kornia_ditf.utils.values import deferred_checks


class DenseDescriptor(nn.Module, ABC):
    """Interface of dense descriptors of images, as matchers, hosts and studies expect it.

    `DiTF` is one; DINO, a Stable Diffusion UNet or a fusion of several are others. Whatever it does
    to an image inside (scaling, padding), its maps refer to the pixels of the original image.
    """

    save_frozen: bool = False
    """Whether `state_dict` also holds the parts that are frozen, such as a backbone's weights."""

    pca: PCA = 0
    """Joint PCA by which `match_images` and studies reduce pairs, see `joint_pca`; 0 for none."""

    def __init__(self) -> None:
        super().__init__()
        leave_out_frozen(self)

    def __repr__(self) -> str:
        # Without the layers of a backbone; they are at its attributes.
        return f"{type(self).__name__}({self.extra_repr()})"

    def extra_repr(self) -> str:
        return f"width={self.width}, long_side={self.long_side}"

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
        """Identifier of everything that affects the numbers: weights, settings and dtype.

        Descriptors are cached under it. None means that they must not be.
        """
        return None

    @property
    def token_norm(self) -> float | None:
        """Length of every descriptor but zeros, where it is the same for all; else None."""
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
        texts = one_prompt_each(prompts, len(images))
        return [self(image, prompt) for image, prompt in zip(images, texts, strict=True)]

    def describe_many(
        self,
        images: Iterable[ImageLike],
        prompts: str | Sequence[str] | None = None,
        *,
        batch: int | None = None,
    ) -> Iterator[DescriptorMap]:
        """Describe many images, each as alone, while the next ones are read in the background.

        Images that the model sees in one size share a forward pass, all their noise draws with
        them. No more than a few batches are in memory at a time, so there may be any number.

        Args:
            images: each as in `forward`, one image each; an iterator is read as needed.
            prompts: none, one for all images, or one per image.
            batch: how many images share a forward pass. None lets the descriptor choose; a batch
                that the device's memory does not hold is halved.

        Yields:
            one map per image, with B = 1, in the order of the images. They equal the maps of
            single images up to rounding.

        Raises:
            InvalidArgumentError: there are not as many prompts as images; or as `forward`.
            ImageError: an image cannot be read. The message names the file, or the image's number.

        Example:
            >>> from kornia_ditf import create_descriptor
            >>> descriptor = create_descriptor("nano", long_side=64)
            >>> images = [torch.rand(3, 32, 48), torch.rand(3, 48, 32), torch.rand(3, 64, 96)]
            >>> [described.grid for described in descriptor.describe_many(images)]
            [(11, 16), (16, 11), (11, 16)]
        """
        if isinstance(images, str | os.PathLike):
            raise InvalidArgumentError(f"images must be a list, got one path: [{images!r}]")
        if batch is not None:
            check_integer("batch", batch, minimum=1)
        texts: Iterable[str | None] = repeat(prompts if isinstance(prompts, str) else None)
        if prompts is not None and not isinstance(prompts, str):
            images = list(images)
            texts = one_prompt_each(prompts, len(images))
        return self._describe_many(zip(images, texts, strict=False), batch)

    def prepare(self, image: ImageLike) -> PreparedImage:
        """Read an image, or a batch of them, in any thread; `describe_prepared` takes the result.

        Raises:
            InvalidArgumentError: as `forward`.
            ImageError: as `forward`.
        """
        with deferred_checks() as checks:
            pixels = as_image(image)
            size = (pixels.shape[2], pixels.shape[3])
            return PreparedImage(pixels, Frame(size, size), checks=checks)

    def describe_prepared(
        self, images: Sequence[PreparedImage], prompts: Sequence[str | None]
    ) -> list[DescriptorMap]:
        """Describe prepared images of one size together.

        Args:
            images: of one image each; their pixels have equal shapes.
            prompts: one for each, or None.

        Returns:
            one map per image, with B = 1.
        """
        some = None if None in prompts else [str(prompt) for prompt in prompts]
        together = self(torch.cat([image.pixels for image in images]), some)
        checks = [*together.checks, *chain.from_iterable(image.checks for image in images)]
        return [replace(one, checks=checks) for one in together]

    def batch_of(self, image: PreparedImage, batch: int | None = None) -> int:
        """Return how many images of this size are described together; `batch` if it is given."""
        return batch or 1

    def images_ahead(self, batch: int | None = None) -> int:
        """Return how many prepared images may wait; they are whole ones where nothing fits them."""
        return 2 * (batch or 1)

    def _describe_many(
        self, pairs: Iterable[tuple[ImageLike, str | None]], batch: int | None
    ) -> Iterator[DescriptorMap]:
        grad = torch.is_grad_enabled()

        def read(pair: tuple[ImageLike, str | None]) -> tuple[PreparedImage, str | None]:
            with torch.set_grad_enabled(grad):
                prepared = self.prepare(pair[0])
            if len(prepared.pixels) > 1:
                raise InvalidArgumentError(
                    f"describe_many takes one image at a time, got {len(prepared.pixels)} in a "
                    "batch: describe_many(list(batch))"
                )
            return prepared, pair[1]

        described = run_in_groups(
            pairs,
            read,
            lambda some: self.describe_prepared(*zip(*some, strict=True)),
            lambda one: ((one[0].pixels.shape, one[1] is None), self.batch_of(one[0], batch)),
            ahead=self.images_ahead(batch),
            workers=readers(self.place),
        )
        for number, ((image, _), found) in enumerate(described):
            if isinstance(found, DiTFError):
                raise _named(found, image, number)
            yield found

    @property
    def place(self) -> torch.device:
        """The device where it computes."""
        held = next(chain(self.parameters(), self.buffers()), torch.empty(0, device="cpu"))
        return execution_device(self) or held.device


class DerivedDescriptor(DenseDescriptor):
    """A descriptor whose maps are derived from those of another one.

    Args:
        base: the other one. It prepares and describes the images.
    """

    def __init__(self, base: DenseDescriptor) -> None:
        super().__init__()
        self.base, self.pca = base, base.pca

    @abstractmethod
    def derive(self, described: DescriptorMap, pixels: Tensor) -> DescriptorMap:
        """Derive a map from the base's, which describes pixels (B, 3, H, W) in [0, 1]."""

    @abstractmethod
    def of(self, base: DenseDescriptor) -> DerivedDescriptor:
        """Return the same descriptor on another base."""

    @property
    def width(self) -> int:
        return self.base.width

    @property
    def long_side(self) -> int | None:
        return self.base.long_side

    def with_long_side(self, long_side: int) -> DerivedDescriptor:
        return self.of(self.base.with_long_side(long_side))

    def forward(
        self, image: ImageLike, prompts: str | Sequence[str] | None = None
    ) -> DescriptorMap:
        pixels = as_image(image)
        return self.derive(self.base(pixels, prompts), pixels)

    def describe_together(
        self, images: Sequence[ImageLike], prompts: str | Sequence[str] | None = None
    ) -> list[DescriptorMap]:
        pixels = [as_image(image) for image in images]
        maps = self.base.describe_together(pixels, prompts)
        return [self.derive(one, image) for one, image in zip(maps, pixels, strict=True)]

    def prepare(self, image: ImageLike) -> PreparedImage:
        return self.base.prepare(image)

    def describe_prepared(
        self, images: Sequence[PreparedImage], prompts: Sequence[str | None]
    ) -> list[DescriptorMap]:
        maps = self.base.describe_prepared(images, prompts)
        return [self.derive(one, image.pixels) for one, image in zip(maps, images, strict=True)]

    def batch_of(self, image: PreparedImage, batch: int | None = None) -> int:
        return self.base.batch_of(image, batch)

    def images_ahead(self, batch: int | None = None) -> int:
        return self.base.images_ahead(batch)


def _named(error: DiTFError, image: ImageLike, number: int) -> DiTFError:
    """Add the image to the error of one of many."""
    name = os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {number}"
    if name in str(error) or type(error) not in (ImageError, InvalidArgumentError, CaptureError):
        return error
    named: DiTFError = type(error)(f"{name}: {error}")
    named.__cause__ = error
    return named


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
        pipeline: name of its pipeline's class; with the next two it tells models apart.
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
    """Description of a dense descriptor other than a DiT, available before any weights are loaded.

    Args:
        name: what the user types.
        load: makes it; called with the user's options, among them `source`, `dtype`, `device`.
        width: channels D of the descriptors, with the preset's options.
        pixels_per_token: side of the square of pixels that one token covers.
        source: where the preset's numbers come from.
        license: licence of the weights.
        repo: hub id of the weights; empty where there are several, or none.
        in_memory: how it is made of a model in memory; None where it is not.
        protocol: name of the evaluation protocol that the preset was published for.
        options: where `load` passes its options on, returns the function that takes them and the
            dataclass of the others, so that they are checked before a weight is loaded.
        pca: the descriptor's `pca`, known before it is loaded.
    """

    name: str
    load: Callable[..., DenseDescriptor]
    width: int
    pixels_per_token: int
    source: str
    license: str
    repo: str = ""
    in_memory: InMemory | None = None
    protocol: str = ""
    options: Callable[[], tuple[Callable[..., Any], type]] | None = None
    pca: PCA = 0

    def __post_init__(self) -> None:
        check_spec(self, ("name", "source", "license"))
        for name in ("width", "pixels_per_token"):
            check_integer(name, getattr(self, name), minimum=1)
