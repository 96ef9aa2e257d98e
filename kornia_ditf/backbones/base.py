"""The interface of every backbone: images to the inputs of its transformer blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.noise import NoiseSchedule
from kornia_ditf.tap import Facet
from kornia_ditf.types import Conditioning, Tap

Function = TypeVar("Function", bound=Callable[..., Any])


class Backbone(nn.Module, ABC):
    """A Diffusion Transformer with its image encoder, which returns the inputs of its blocks."""

    schedule: NoiseSchedule
    """How the family mixes latents with noise."""

    identity: str | None = None
    """Which weights these are, for caches of what was measured on them; None keeps nothing."""

    @property
    @abstractmethod
    def blocks(self) -> int:
        """How many blocks the architecture has, all lists together."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Channels of the stream."""

    @property
    @abstractmethod
    def pixels_per_token(self) -> int:
        """Side of the square of pixels that one token covers."""

    def settings(self) -> str:
        """Describe the settings that affect the numbers, such as dtype and guidance."""
        return ""

    def compiled(self, function: Function) -> Function:
        """Return a function compiled as the model is: by default, as it is."""
        return function

    @abstractmethod
    def encode(self, image: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [0, 1] into latents (B, C, h, w)."""

    @abstractmethod
    def condition(self, prompts: Sequence[str]) -> Conditioning:
        """Encode prompts, one row each; an empty prompt is a valid one."""

    @abstractmethod
    def taps(
        self,
        latent: Tensor,
        timestep: float,
        conditioning: Conditioning,
        *,
        blocks: Sequence[int],
        facet: Facet = "input",
    ) -> dict[int, Tap]:
        """Capture the inputs of several blocks in one forward pass that stops at the last.

        Args:
            latent: noisy latents, shape (B, C, h, w).
            timestep: the paper's timestep in [0, 1000].
            conditioning: one row, or one per image.
            blocks: which blocks, counted from 0.
            facet: the blocks' `input`, or their attention's `query`, `key` or `value`. Given only
                where it is not `input`, so a backbone without facets need not take it.

        Returns:
            one tap per block.
        """

    def facet_width(self, block: int, facet: Facet) -> int:
        """Return the channels of a facet of a block."""
        return self.width

    def gates(self, timestep: float, conditioning: Conditioning, *, block: int) -> Tensor:
        """Return the magnitudes of the residual gates of all blocks before one, shape (gates, D).

        They follow from the weights, the timestep and the prompt alone.

        Raises:
            InvalidArgumentError: the backbone does not show its gates.
        """
        raise InvalidArgumentError(
            f"{type(self).__name__} does not expose residual gates; detect massive channels in "
            "images instead"
        )

    def tap(
        self, latent: Tensor, timestep: float, conditioning: Conditioning, *, block: int
    ) -> Tap:
        """Capture the input of one block; the forward stops there."""
        return self.taps(latent, timestep, conditioning, blocks=[block])[block]
