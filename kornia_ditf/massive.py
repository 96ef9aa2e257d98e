"""Massive channels of a block's image tokens: measuring, finding and discarding them.

A massive channel stands far above the rest at every patch token (DiTF, arXiv 2505.18584,
section 3). It carries no place, only size, and it drowns the cosine between tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError, MassiveChannelsWarning
from kornia_ditf.types import Tap
from kornia_ditf.utils.checks import check_finite, check_tensor
from kornia_ditf.utils.values import require

MIN_RATIO = 8.0
"""How far above the median channel a channel must stand, by default.

Normally distributed channel means reach 5.2 times their median among 3,072 channels, so a model
without massive channels stays below.
"""

MIN_TOKEN_SHARE = 1 / 3
"""In what share of an image's tokens a channel must stand out, by default."""

MIN_GAP = 5.0
"""How wide the gap below the massive channels must be, in spreads of the next quarter of channels.

Both are of logarithms: the spread is the mean height of the channels that follow the gap above the
last of them. Narrow models need a wider gap, by 160 spreads over the number of channels. A factor
of 2 is needed at least, and one of 10 always suffices. Of 100,000 draws of 64 to 4,096 log-normal
magnitudes of spread 1, at most 50 have such a gap.
"""

USUAL_COUNT = 5
"""More massive channels than this are unusual: published models have one to three."""


@dataclass(frozen=True, slots=True, eq=False)
class ChannelStatistics:
    """Statistics of each channel at one block, over all tokens, images and noise draws.

    Args:
        magnitude: mean of |x|, shape (D,).
        ratio: magnitude over the median magnitude of all channels, shape (D,).
        token_variation: standard deviation of |x| over its mean, within an image, shape (D,);
            0 is constant.
        image_variation: the same between the images' means, shape (D,).
        token_share: share of the tokens where |x| exceeds half of `ratio`'s threshold times
            that token's median, shape (D,).
        image_share: share of the images in which the channel is massive, shape (D,).
    """

    magnitude: Tensor
    ratio: Tensor
    token_variation: Tensor
    image_variation: Tensor
    token_share: Tensor
    image_share: Tensor

    def massive(self) -> tuple[int, ...]:
        """Return the channels that are massive in at least one image, in ascending order."""
        return tuple(int(channel) for channel in self.image_share.nonzero().flatten())

    def doubts(self) -> tuple[str, ...]:
        """Return the reasons to look at the massive channels before they are discarded."""
        found, doubts = self.massive(), []
        if len(found) > USUAL_COUNT:
            doubts.append(_many(len(found), len(self.magnitude)))
        partly = [f"{c} in {self.image_share[c]:.0%}" for c in found if self.image_share[c] < 1]
        if partly:
            doubts.append(f"channels are massive in some images only: {', '.join(partly)}")
        return tuple(doubts)

    def largest(self, count: int) -> tuple[int, ...]:
        """Return at most `count` channels of largest magnitude, largest first."""
        count = min(count, len(self.magnitude))
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
    return _record(tokens, ChannelRecorder()).compute()


class ChannelRecorder:
    """Measure channels batch by batch, so that no more than one batch is ever held.

    Arguments as of `find_massive_channels`.
    """

    def __init__(
        self, *, min_ratio: float = MIN_RATIO, min_token_share: float = MIN_TOKEN_SHARE
    ) -> None:
        self.min_ratio, self.min_token_share = min_ratio, min_token_share
        self._images: list[tuple[Tensor, ...]] = []  # mean, variance, share and massive, (D,) each

    def update(self, tokens: Tensor) -> None:
        """Add a block's tokens of some images, shape (B, N, D).

        Raises:
            InvalidArgumentError: a wrong shape, another width than before, or values not finite.
        """
        check_tensor(tokens, "tokens", "(B, N, D)", filled=True)
        widths = {tokens.shape[-1], *(len(image[0]) for image in self._images[:1])}
        if len(widths) > 1:
            raise InvalidArgumentError(f"tokens must all have the same width, got {sorted(widths)}")
        check_finite(tokens, "tokens")
        for image in tokens.detach():
            size = image.float().abs()
            mean, share, massive = _mark(size, self.min_ratio, self.min_token_share)
            found = (mean, size.var(0, correction=0), share, massive)
            self._images.append(tuple(each.cpu() for each in found))

    def compute(self, *, warn: bool = False) -> ChannelStatistics:
        """Return the statistics over all images so far.

        Args:
            warn: of massive channels to look at before they are discarded.

        Raises:
            InvalidArgumentError: there were none.
        """
        if not self._images:
            raise InvalidArgumentError("tokens of at least one image are needed, got none")
        means, variances, shares, massive = map(torch.stack, zip(*self._images, strict=True))
        magnitude = means.mean(0)
        tiny = torch.finfo(torch.float32).tiny
        scale = magnitude.clamp_min(tiny)
        statistics = ChannelStatistics(
            magnitude=magnitude,
            ratio=magnitude / magnitude.median().clamp_min(tiny),
            token_variation=variances.mean(0).sqrt() / scale,
            image_variation=means.std(0, correction=0) / scale,
            token_share=shares.mean(0),
            image_share=massive.float().mean(0),
        )
        for doubt in statistics.doubts() if warn else ():
            _warn(doubt)
        return statistics


def mark_massive_channels(tokens: Tensor) -> Tensor:
    """Mark the massive channels of each image, without waiting for the tokens' device.

    Args:
        tokens: a block's input, shape (B, N, D).

    Returns:
        bool, shape (B, D), on the tokens' device.

    Warns:
        MassiveChannelsWarning: unusually many are found; for an accelerator's values, when the
            descriptors are first read.
    """
    sizes = tokens.detach().float().abs()
    marked = torch.stack([_mark(size, MIN_RATIO, MIN_TOKEN_SHARE)[2] for size in sizes])
    most = marked.sum(1).amax()

    def warn() -> None:
        _warn(_many(int(most), marked.shape[1]))

    require(most <= USUAL_COUNT, warn)
    return marked


def _mark(size: Tensor, min_ratio: float, min_token_share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, share of tokens and which are massive, (D,) each, of |x| of an image (N, D)."""
    mean = size.mean(0)
    share = (size > 0.5 * min_ratio * size.median(1, keepdim=True).values).float().mean(0)
    # A massive channel is nearly constant, so at their least it stands even further above channels
    # of the same mean that vary over the tokens.
    floor = size.kthvalue(1 + len(size) // 10, 0).values
    apart = _stands_apart(mean) | _stands_apart(floor)
    large = (mean >= min_ratio * mean.median()) & (mean > 0)
    return mean, share, large & (share >= min_token_share) & apart


def _stands_apart(sizes: Tensor) -> Tensor:
    """Mark the largest of (D,) sizes where a gap separates them from the bulk."""
    width = len(sizes)
    marked = torch.zeros_like(sizes, dtype=torch.bool)
    if width < 8:
        return marked
    most = max(2, width // 8)
    following = min(max(16, width // 4), width - most - 1)
    scale = sizes.median().clamp_min(torch.finfo(torch.float32).tiny)
    # Gaps of logarithms are comparable whatever the scale of the tokens; zeros must not dominate.
    height, order = (sizes / scale + 1e-3).log().sort(descending=True)
    sums = height.cumsum(0)
    below = height[1 + following : 1 + following + most]
    spread = (sums[following : following + most] - sums[:most]) / following - below
    gap = height[:most] - height[1 : 1 + most]
    needed = (MIN_GAP + 160 / width) * spread  # the spread of few channels is less certain
    wide = gap >= needed.clamp(0.69, 2.3)  # a factor of 2 at least, and of 10 always suffices
    rank = torch.arange(width, device=sizes.device)
    last = torch.where(wide, rank[:most] + 1, 0).amax()
    return marked.scatter(0, order, rank < last)


def find_massive_channels(
    tokens: Tensor | Sequence[Tensor],
    *,
    min_ratio: float = MIN_RATIO,
    min_token_share: float = MIN_TOKEN_SHARE,
) -> tuple[int, ...]:
    """Find the massive channels of a block from its image tokens, for any backbone.

    A channel is massive in an image where its magnitude is far above the median channel's, a gap
    separates it from the bulk of the channels, and it stands out in enough of the tokens. See
    docs/method.md for what the rule does not see.

    Args:
        tokens: the block's input, (B, N, D), or several such tensors of other images.
        min_ratio: how far above the median channel's magnitude a channel must stand.
        min_token_share: in what share of an image's tokens it must stand out.

    Returns:
        channels that are massive in at least one image, in ascending order; empty where there are
        none.

    Raises:
        InvalidArgumentError: no tokens, a wrong shape, different widths, or values not finite.

    Warns:
        MassiveChannelsWarning: unusually many are found, or images disagree.

    Example:
        >>> find_massive_channels(torch.randn(2, 64, 32))
        ()
    """
    recorder = ChannelRecorder(min_ratio=min_ratio, min_token_share=min_token_share)
    return _record(tokens, recorder).compute(warn=True).massive()


def channels_of_gates(gates: Tensor, *, min_ratio: float = MIN_RATIO) -> tuple[int, ...]:
    """Find the massive channels of a block from the residual gates of the blocks before it.

    A residual gate multiplies what a block adds to the stream. A channel is massive where a gate is
    far above the median channel's and a gap separates it from the bulk, as with tokens' magnitudes.

    Args:
        gates: magnitudes, shape (gates, D), see `Backbone.gates`.
        min_ratio: how far above the median channel's gate a massive channel's stands.

    Returns:
        channels that any gate marks, in ascending order.

    Example:
        >>> gates = torch.rand(4, 64) + 0.5; gates[2, 7] = 40.0
        >>> channels_of_gates(gates)
        (7,)
    """
    found: set[int] = set()
    for gate in gates.detach().float().abs().cpu():
        large = (gate >= min_ratio * gate.median()) & (gate > 0)
        found |= set((large & _stands_apart(gate)).nonzero().flatten().tolist())
    return tuple(sorted(found))


def _many(found: int, width: int) -> str:
    return f"{found} of {width} channels are massive; one to three are usual"


def _warn(doubt: str) -> None:
    warnings.warn(
        f"{doubt}; look at them with `kornia-ditf inspect`, and name those to discard by "
        "massive_channels=(...)",
        MassiveChannelsWarning,
        stacklevel=4,
    )


def _record(tokens: Tensor | Sequence[Tensor], recorder: ChannelRecorder) -> ChannelRecorder:
    for batch in [tokens] if isinstance(tokens, Tensor) else tokens:
        recorder.update(batch)
    return recorder


def discard_channels(tap: Tap, channels: Sequence[int] | Tensor) -> Tap:
    """Set channels of a tap's tokens to zero.

    Args:
        tap: of B images.
        channels: numbers of channels; or those of each image, bool, shape (B, D).

    Raises:
        InvalidArgumentError: a channel is out of range.
    """
    # Before normalisation: afterwards the spike has already set every other channel's variance.
    if isinstance(channels, Tensor):
        return replace(tap, x=tap.x.masked_fill(channels[:, None], 0))
    width = tap.x.shape[-1]
    wrong = [channel for channel in channels if not 0 <= channel < width]
    if wrong:
        raise InvalidArgumentError(f"channels must lie in [0, {width - 1}], got {wrong}")
    keep = torch.ones(width, dtype=tap.x.dtype, device=tap.x.device)
    keep[list(channels)] = 0
    return replace(tap, x=tap.x * keep)
