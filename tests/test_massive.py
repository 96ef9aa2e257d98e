from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError, MassiveChannelsWarning
from kornia_ditf.massive import describe_channels, discard_channels, find_massive_channels
from kornia_ditf.types import Tap


def random_tokens(batch: int = 2, tokens: int = 48, width: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(seed))


@given(
    channels=st.sets(st.integers(0, 63), min_size=1, max_size=4),
    size=st.floats(10, 5000),
    sign=st.sampled_from([-1, 1]),
    seed=st.integers(0, 50),
)
def test_planted_channels_are_found_whatever_their_size_and_sign(
    channels: set[int], size: float, sign: int, seed: int
) -> None:
    tokens = random_tokens(seed=seed)
    tokens[..., sorted(channels)] += sign * size
    assert find_massive_channels(tokens) == tuple(sorted(channels))


def lognormal_tokens(seed: int, spread: float, width: int, images: int, tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = (spread * torch.randn(width, generator=generator)).exp()
    return torch.randn(images, tokens, width, generator=generator) * scales


@given(
    seed=st.integers(0, 10**6),
    spread=st.floats(0, 0.8),  # at 1, one scale in some thousand draws stands apart by chance
    width=st.sampled_from([64, 160, 640, 1024, 4096]),
    images=st.integers(1, 3),
    tokens=st.sampled_from([12, 48, 200]),
)
def test_channels_of_log_normal_scales_are_not_massive(
    seed: int, spread: float, width: int, images: int, tokens: int
) -> None:
    assert find_massive_channels(lognormal_tokens(seed, spread, width, images, tokens)) == ()


@given(
    seed=st.integers(0, 10**6),
    spread=st.floats(0, 1),
    width=st.sampled_from([32, 64, 160, 1024, 3072]),
    above=st.floats(10, 1000),
)
def test_constant_channels_ten_times_above_all_others_are_found_in_heavy_tails(
    seed: int, spread: float, width: int, above: float
) -> None:
    tokens = lognormal_tokens(seed, spread, width, 1, 128)
    size = above * tokens.abs().mean((0, 1)).max()
    tokens[..., 5], tokens[..., width // 2] = size, -1.5 * size
    assert find_massive_channels(tokens) == (5, width // 2)


@given(seed=st.integers(0, 1000), size=st.floats(12, 5000))
def test_a_channel_that_stands_in_half_of_the_tokens_is_found(seed: int, size: float) -> None:
    tokens = random_tokens(1, 64, seed=seed)
    tokens[:, ::2, 9] = 2 * size
    assert find_massive_channels(tokens) == (9,)


def test_a_gap_of_the_scale_alone_is_not_enough() -> None:
    # An even staircase to far above the median has no gap, so nothing stands apart from the rest.
    sizes = torch.linspace(-6, 6, 256).exp()
    tokens = random_tokens(width=256) * sizes
    assert (describe_channels(tokens).ratio > 8).sum() > 50
    assert find_massive_channels(tokens) == ()


def test_many_massive_channels_are_warned_of() -> None:
    tokens = random_tokens()
    tokens[..., 10:16] = 100.0
    with pytest.warns(MassiveChannelsWarning, match="6 of 64 channels are massive") as caught:
        assert find_massive_channels(tokens) == tuple(range(10, 16))
    assert len(caught) == 1 and caught[0].filename == __file__


@given(seed=st.integers(0, 50), offset=st.floats(0, 10))
def test_none_is_found_among_normally_distributed_channels(seed: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    means = offset * torch.randn(3072, generator=generator)
    tokens = torch.randn(1, 32, 3072, generator=generator) + means
    assert find_massive_channels(tokens) == ()


def test_a_channel_that_is_large_at_few_tokens_is_not_massive() -> None:
    tokens = random_tokens()
    tokens[:, :5, 9] = 1000.0
    assert find_massive_channels(tokens) == ()


def test_the_scale_of_the_tokens_does_not_matter() -> None:
    tokens = random_tokens()
    tokens[..., 3] = 50.0
    for scale in (1e-6, 1.0, 1e6):
        assert find_massive_channels(scale * tokens) == (3,)


def test_statistics_are_those_of_a_plain_computation() -> None:
    tokens = random_tokens()
    tokens[..., 5] = 40.0
    statistics = describe_channels(tokens)
    size = tokens.abs()
    torch.testing.assert_close(statistics.magnitude, size.mean((0, 1)))
    torch.testing.assert_close(statistics.ratio, size.mean((0, 1)) / size.mean((0, 1)).median())
    assert statistics.token_variation[5] == 0
    assert statistics.image_variation[5] == 0
    assert statistics.token_share[5] == 1
    assert statistics.largest(1) == (5,)


def test_images_of_different_sizes_are_described_together() -> None:
    small, large = random_tokens(1, 12), random_tokens(2, 30, seed=1)
    for tokens in (small, large):
        tokens[..., 8] = -30.0
    assert find_massive_channels([small, large]) == (8,)


@pytest.mark.parametrize("images", [3, 8])
def test_a_channel_that_is_massive_in_one_image_is_found_and_warned_of(images: int) -> None:
    tokens = random_tokens(images)
    tokens[0, :, 2] = 100.0
    tokens[..., 4] = 100.0
    statistics = describe_channels(tokens)
    assert statistics.image_variation[2] > 1
    assert statistics.image_share[[2, 4]].tolist() == pytest.approx([1 / images, 1])
    with pytest.warns(MassiveChannelsWarning, match=f"some images only: 2 in {1 / images:.0%};"):
        assert find_massive_channels(list(tokens.split(1))) == (2, 4)


def test_half_precision_tokens_are_measured_without_overflow() -> None:
    tokens = random_tokens().half()
    tokens[..., 1] = 60000.0
    assert find_massive_channels(tokens) == (1,)


def test_discarding_zeroes_the_channels_and_nothing_else() -> None:
    tap = Tap(random_tokens(), None, None, grid=(6, 8))
    discarded = discard_channels(tap, [3, 60])
    assert (discarded.x[..., [3, 60]] == 0).all()
    rest = [channel for channel in range(64) if channel not in (3, 60)]
    assert torch.equal(discarded.x[..., rest], tap.x[..., rest])
    assert tap.x[..., 3].abs().min() > 0


@pytest.mark.parametrize("channel", [-1, 64])
def test_a_channel_out_of_range_is_refused(channel: int) -> None:
    tap = Tap(random_tokens(), None, None, grid=(6, 8))
    with pytest.raises(InvalidArgumentError, match=r"channels must lie in \[0, 63\]"):
        discard_channels(tap, [channel])


@pytest.mark.parametrize(
    "tokens",
    [torch.zeros(3, 4), torch.zeros(1, 0, 4), [], [torch.zeros(1, 2, 3), torch.zeros(1, 2, 4)]],
)
def test_tokens_of_a_wrong_shape_are_refused(tokens: Tensor | list[Tensor]) -> None:
    with pytest.raises(InvalidArgumentError, match="tokens (must|of)"):
        find_massive_channels(tokens)


def test_tokens_that_are_not_finite_are_refused() -> None:
    tokens = random_tokens()
    tokens[0, 0, 0] = float("nan")
    with pytest.raises(InvalidArgumentError, match="finite"):
        find_massive_channels(tokens)


def test_all_zero_tokens_have_no_massive_channels() -> None:
    assert find_massive_channels(torch.zeros(1, 4, 8)) == ()
