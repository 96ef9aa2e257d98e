from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.massive import describe_channels, discard_channels, find_massive_channels
from kornia_ditf.types import Tap


def random_tokens(batch: int = 2, tokens: int = 48, width: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(seed))


@given(
    channels=st.sets(st.integers(0, 63), min_size=1, max_size=4),
    size=st.floats(12, 5000),
    sign=st.sampled_from([-1, 1]),
    seed=st.integers(0, 50),
)
def test_planted_channels_are_found_whatever_their_size_and_sign(
    channels: set[int], size: float, sign: int, seed: int
) -> None:
    tokens = random_tokens(seed=seed)
    tokens[..., sorted(channels)] += sign * size
    assert find_massive_channels(tokens) == tuple(sorted(channels))


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


def test_a_channel_that_is_massive_in_one_image_of_many_varies_between_images() -> None:
    tokens = random_tokens(4)
    tokens[0, :, 2] = 100.0
    statistics = describe_channels(tokens)
    assert statistics.image_variation[2] > 1
    assert statistics.massive() == ()


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
    with pytest.raises(InvalidArgumentError, match="tokens must"):
        find_massive_channels(tokens)


def test_tokens_that_are_not_finite_are_refused() -> None:
    tokens = random_tokens()
    tokens[0, 0, 0] = float("nan")
    with pytest.raises(InvalidArgumentError, match="finite"):
        find_massive_channels(tokens)


def test_all_zero_tokens_have_no_massive_channels() -> None:
    assert find_massive_channels(torch.zeros(1, 4, 8)) == ()
