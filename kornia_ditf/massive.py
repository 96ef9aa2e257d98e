"""A block's image tokens in; their massive channels described, found and discarded.

A massive channel stands far above the rest at every patch token (DiTF, arXiv 2505.18584,
section 3). It carries no place, only size, and it drowns the cosine between tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.types import Tap

MIN_RATIO = 8.0
"""How far above the median channel a channel must stand, by default.

Normally distributed channel means reach 5.2 times their median among 3,072 channels, so a model
without massive channels stays below.
"""

MIN_TOKEN_SHARE = 0.5
"""In what share of the tokens a channel must stand out, by default."""


@dataclass(frozen=True, slots=True, eq=False)
class ChannelStatistics:
    """What is known of each channel at one block, over all tokens, images and noise draws.

    Args:
        magnitude: mean of |x|, shape (D,).
        ratio: magnitude over the median magnitude of all channels, shape (D,).
        token_variation: standard deviation of |x| over its mean, within an image, shape (D,);
            0 is constant.
        image_variation: the same between the images' means, shape (D,).
        token_share: share of the tokens where |x| exceeds half of `ratio`'s threshold times
            that token's median, shape (D,).
    """

    magnitude: Tensor
    ratio: Tensor
    token_variation: Tensor
    image_variation: Tensor
    token_share: Tensor

    def massive(
        self, *, min_ratio: float = MIN_RATIO, min_token_share: float = MIN_TOKEN_SHARE
    ) -> tuple[int, ...]:
        """List the massive channels, in ascending order."""
        found = (self.ratio >= min_ratio) & (self.token_share >= min_token_share)
        return tuple(int(channel) for channel in found.nonzero().flatten())

    def largest(self, count: int) -> tuple[int, ...]:
        """List the channels of largest magnitude, largest first."""
        return tuple(int(channel) for channel in self.magnitude.topk(count).indices)


def describe_channels(tokens: Tensor | Sequence[Tensor]) -> ChannelStatistics:
    """Measure every channel of a block's image tokens.

    Args:
        tokens: one tensor (B, N, D), or several whose B and N differ.

    Returns:
        statistics over all of them, float32 on the CPU.

    Raises:
        InvalidArgumentError: no tokens, a wrong shape, different widths, or values not finite.

    Example:
        >>> x = torch.randn(1, 64, 16); x[..., 5] = 100.0
        >>> describe_channels(x).massive()
        (5,)
    """
    recorder = ChannelRecorder()
    for batch in [tokens] if isinstance(tokens, Tensor) else tokens:
        recorder.update(batch)
    return recorder.compute()


class ChannelRecorder:
    """Measures channels batch by batch, so that no more than one batch is ever held."""

    def __init__(self) -> None:
        self._means: list[Tensor] = []
        self._variances: list[Tensor] = []
        self._shares: list[Tensor] = []

    def update(self, tokens: Tensor) -> None:
        """Take in a block's tokens of some images, shape (B, N, D).

        Raises:
            InvalidArgumentError: a wrong shape, another width than before, or values not finite.
        """
        if tokens.ndim != 3 or not tokens.numel():
            raise InvalidArgumentError(
                f"tokens must have the shape (B, N, D), got {tuple(tokens.shape)}"
            )
        widths = {tokens.shape[-1], *(len(mean) for mean in self._means[:1])}
        if len(widths) > 1:
            raise InvalidArgumentError(f"tokens must all have one width, got {sorted(widths)}")
        if not bool(torch.isfinite(tokens).all()):
            raise InvalidArgumentError("tokens must be finite, got NaN or infinity among them")
        # One image at a time, in float64: a massive channel must not cost the others their digits.
        for image in tokens.detach():
            size = image.abs().double()
            floor = 0.5 * MIN_RATIO * size.median(1, keepdim=True).values
            self._means.append(size.mean(0).cpu())
            self._variances.append(size.var(0, correction=0).cpu())
            self._shares.append((size > floor).double().mean(0).cpu())

    def compute(self) -> ChannelStatistics:
        """Give the statistics over all images so far.

        Raises:
            InvalidArgumentError: there were none.
        """
        if not self._means:
            raise InvalidArgumentError("tokens must be given of one image at least, got none")
        means = torch.stack(self._means)
        magnitude = means.mean(0)
        tiny = torch.finfo(torch.float64).tiny
        scale = magnitude.clamp_min(tiny)
        values = (
            magnitude,
            magnitude / magnitude.median().clamp_min(tiny),
            torch.stack(self._variances).mean(0).sqrt() / scale,
            means.std(0, correction=0) / scale,
            torch.stack(self._shares).mean(0),
        )
        return ChannelStatistics(*(value.float() for value in values))


def find_massive_channels(
    tokens: Tensor | Sequence[Tensor],
    *,
    min_ratio: float = MIN_RATIO,
    min_token_share: float = MIN_TOKEN_SHARE,
) -> tuple[int, ...]:
    """Find the massive channels of a block from its image tokens, for any backbone.

    Args:
        tokens: the block's input, (B, N, D), or several such tensors of other images.
        min_ratio: how far above the median channel's magnitude a channel must stand.
        min_token_share: in what share of the tokens it must stand out.

    Returns:
        channel indices in ascending order; empty where there are none.

    Raises:
        InvalidArgumentError: no tokens, a wrong shape, different widths, or values not finite.

    Example:
        >>> find_massive_channels(torch.randn(2, 64, 32))
        ()
    """
    statistics = describe_channels(tokens)
    return statistics.massive(min_ratio=min_ratio, min_token_share=min_token_share)


def discard_channels(tap: Tap, channels: Sequence[int]) -> Tap:
    """Zero channels of a tap's tokens; a tap in, a tap out.

    Raises:
        InvalidArgumentError: a channel is out of range.
    """
    # Before normalisation: afterwards the spike has already set every other channel's variance.
    return replace(tap, x=tap.x * kept_channels(tap, channels))


def kept_channels(tap: Tap, channels: Sequence[int]) -> Tensor:
    """Give 1 for every channel that is kept and 0 for the others, shape (D,), as the tap's x is.

    Raises:
        InvalidArgumentError: a channel is out of range.
    """
    width = tap.x.shape[-1]
    wrong = [channel for channel in channels if not 0 <= channel < width]
    if wrong:
        raise InvalidArgumentError(f"channels must lie in [0, {width - 1}], got {wrong}")
    keep = torch.ones(width, dtype=tap.x.dtype, device=tap.x.device)
    keep[list(channels)] = 0
    return keep
