"""Mutual nearest neighbours are exact, and `nearest_two` finds the second."""

from __future__ import annotations

from typing import Any

import independent
import kornia.feature as KF
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_maps import LargestTensor, Operations, random
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching import match, mutual_nearest, nearest, nearest_two
from kornia_ditf.types import DescriptorMap, Frame

seeds = st.integers(0, 1000)


def hard(count: int, width: int, seed: int) -> Tensor:
    """Few directions, many times over: exact duplicates, scaled ones, near ties and zeros."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(max(1, count // 5), width, generator=generator)
    rows = base[torch.randint(0, len(base), (count,), generator=generator)]
    kind = torch.randint(0, 4, (count, 1), generator=generator)
    # Far below what bfloat16 can tell apart, and above what float32 cannot.
    near = rows + 1e-4 * torch.randn(count, width, generator=generator)
    return torch.where(kind == 0, rows, torch.where(kind == 1, 4 * rows, near)) * (
        torch.rand(count, 1, generator=generator) > 0.1
    )


def tied(count: int, seed: int) -> Tensor:
    """Vectors with many duplicates and ties, some zero; every product of them is exact."""
    # Four entries of +-1 among eight: of length two, so every cosine is a multiple of 1/4.
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, 8, generator=generator).argsort(1) < 4
    signs = torch.randint(0, 2, (count, 8), generator=generator) * 2 - 1
    lengths = torch.tensor([0.0, 1.0, 1.0, 4.0])[
        torch.randint(0, 4, (count, 1), generator=generator)
    ]
    return places * signs * lengths


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(0, 14), m=st.integers(0, 14), seed=seeds, exact=st.booleans())
def test_pairs_equal_the_plain_definition_with_ties_duplicates_and_zeros(
    n: int, m: int, seed: int, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(nearest.STRIP, "cpu", 3 * m)
    if exact:
        a, b = tied(n, seed), tied(m, seed + 5000)
    else:
        a, b = random(n, 24, seed=seed), random(m, 24, seed=seed + 5000)
    indices, scores = mutual_nearest(a, b)
    independent.check_mutual(a, b, indices)
    assert indices.dtype == torch.int64 and indices.shape[1] == 2
    expected = torch.cosine_similarity(a[indices[:, 0]], b[indices[:, 1]])
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("n", "m"), [(1100, 2100), (512, 1024), (513, 1025), (1, 1500), (700, 1)])
def test_strips_that_do_not_divide_the_rows_change_nothing(
    n: int, m: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(nearest.STRIP, "cpu", 1 << 18)
    # Products of two such blocks add up exactly too, and tie less often.
    a = torch.cat([tied(n, 1), tied(n, 2), tied(n, 3), tied(n, 4)], 1).sign()
    b = torch.cat([tied(m, 5), tied(m, 6), tied(m, 7), tied(m, 8)], 1).sign()
    a[a.abs().sum(1) < 16], b[b.abs().sum(1) < 16] = 0, 0
    independent.check_mutual(a, b, mutual_nearest(a, b)[0])


@settings(max_examples=20)
@given(seed=seeds)
def test_exchanging_the_images_exchanges_the_pairs(seed: int) -> None:
    a, b = random(12, 16, seed=seed), random(9, 16, seed=seed + 5000)
    there, back = mutual_nearest(a, b)[0], mutual_nearest(b, a)[0]
    assert set(map(tuple, there.tolist())) == {(i, j) for j, i in back.tolist()}


@settings(max_examples=20)
@given(seed=seeds, exponent=st.integers(-36, 36))
def test_lengths_do_not_matter_however_small_or_large(seed: int, exponent: int) -> None:
    a, b = random(12, 16, seed=seed), random(9, 16, seed=seed + 5000)
    indices, scores = mutual_nearest(a, b)
    scaled, scaled_scores = mutual_nearest(a * 10.0**exponent, b * 10.0**-exponent)
    assert torch.equal(scaled, indices)
    torch.testing.assert_close(scaled_scores, scores, rtol=0, atol=1e-6)


def test_everything_matches_itself_with_score_one() -> None:
    indices, scores = mutual_nearest(random(50, 16), random(50, 16))
    assert torch.equal(indices, torch.arange(50)[:, None].expand(50, 2))
    torch.testing.assert_close(scores, torch.ones(50))
    assert scores.max() <= 1


def test_of_duplicates_the_first_is_matched() -> None:
    vector = random(1, 16)
    indices, _ = mutual_nearest(vector.expand(600, 16), vector.expand(1500, 16))
    assert indices.tolist() == [[0, 0]]


def test_zero_vectors_are_as_if_they_were_not_there() -> None:
    # The zero vector has cosine 0, more than the -1 of the only other.
    a, b = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0], [-1.0, 0.0]])
    indices, scores = mutual_nearest(a, b)
    assert indices.tolist() == [[1, 1]]
    assert scores.tolist() == [-1.0]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.zeros(0, 4), torch.ones(3, 4)),
        (torch.ones(3, 4), torch.zeros(0, 4)),
        (torch.zeros(0, 4), torch.zeros(0, 4)),
        (torch.zeros(5, 4), torch.ones(3, 4)),
        (torch.ones(5, 4), torch.zeros(3, 4)),
    ],
)
def test_nothing_matches_nothing(a: Tensor, b: Tensor) -> None:
    indices, scores = mutual_nearest(a, b)
    assert indices.shape == (0, 2) and indices.dtype == torch.int64
    assert scores.shape == (0,) and scores.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_computed_in_float32(dtype: torch.dtype) -> None:
    a, b = random(40, 64).to(dtype), random(50, 64, seed=1).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        indices, scores = mutual_nearest(a, b)
    expected, expected_scores = mutual_nearest(a.float(), b.float())
    assert torch.equal(indices, expected)
    assert torch.equal(scores, expected_scores)


def test_the_matrix_of_all_pairs_is_never_made() -> None:
    a, b = random(1500, 8), random(5000, 8, seed=1)
    for ratio in (None, 0.9):
        with LargestTensor() as largest:
            mutual_nearest(a, b, ratio=ratio)
        assert largest.elements <= nearest.STRIP["cpu"] < 1500 * 5000


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 90), m=st.integers(1, 90), seed=seeds, strip=st.sampled_from([1, 500, 1 << 20])
)
def test_duplicates_near_ties_and_zeros_are_matched_as_by_all_cosines(
    n: int, m: int, seed: int, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(nearest.STRIP, "cpu", strip)
    pool = hard(n + m, 24, seed)
    a, b = pool[:n], pool[n:]
    indices, scores = mutual_nearest(a, b)
    independent.check_mutual(a, b, indices)
    expected = torch.cosine_similarity(a[indices[:, 0]], b[indices[:, 1]])
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (513, 1025), (1100, 600)])
def test_sizes_that_no_strip_divides_give_the_reference(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(nearest.STRIP, "cpu", 1 << 17)
    a, b = random(shape[0], 64), random(shape[1], 64, seed=1)
    b[: min(shape)] += a[: min(shape)]
    indices, _ = mutual_nearest(a, b)
    assert [tuple(pair) for pair in indices.tolist()] == independent.mutual_nearest(a, b)


def test_thousands_of_duplicates_are_matched_one_to_one() -> None:
    a = random(3, 64)[torch.arange(900) % 3]
    indices, scores = mutual_nearest(a, a.flip(0))
    independent.check_mutual(a, a.flip(0), indices)
    assert {row % 3 for row in indices[:, 0].tolist()} == {0, 1, 2}
    torch.testing.assert_close(scores, torch.ones(len(scores)))


@pytest.fixture
def host_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects how many values each `Tensor.tolist` takes, which no dispatch mode sees."""
    sizes: list[int] = []
    tolist = Tensor.tolist
    monkeypatch.setattr(
        Tensor, "tolist", lambda self: (sizes.append(self.numel()), tolist(self))[1]
    )
    return sizes


MASK = torch.arange(672 * 536).view(672, 536) % 5 > 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_score": 0.2},
        {"ratio": 0.9},
        {"ratio": 0.9, "radius": 10.0},
        {"mask_a": MASK, "mask_b": MASK},
    ],
    ids=lambda options: "-".join(options),
)
def test_a_pair_of_5628_tokens_takes_few_operations_and_two_host_reads(
    options: dict[str, Any], host_reads: list[int]
) -> None:
    data = random(2, 16, 84, 67)
    a, b = (DescriptorMap(one[None], Frame((672, 536), (672, 536))) for one in data)
    with Operations() as operations:
        match(a, b, **options)
    assert operations.count <= 400
    assert operations.reads + len(host_reads) <= 2
    if "mask_a" in options:
        return  # of tokens there
    host_reads.clear()
    with Operations() as operations:
        mutual_nearest(a.tokens[0], b.tokens[0], **options)
    assert operations.count <= 400
    assert operations.reads + len(host_reads) <= 2


def test_a_small_pair_takes_few_operations(host_reads: list[int]) -> None:
    a, b = random(100, 64), random(100, 64, seed=1)
    for scale, most in ((2.0, 34), (1.0, 32)):  # unit vectors are not divided by their lengths
        with Operations() as operations:
            mutual_nearest(scale * F.normalize(a), scale * F.normalize(b))
        assert operations.count - 2 * 5 <= most  # besides scaling and normalising
    maps = [
        DescriptorMap(one.T.reshape(1, 64, 10, 10), Frame((80, 80), (80, 80))) for one in (a, b)
    ]
    match(*maps)
    host_reads.clear()
    with Operations() as operations:
        match(*maps)
    assert operations.count <= 41
    assert operations.reads + len(host_reads) <= 2


@settings(max_examples=20)
@given(seed=seeds)
def test_unit_vectors_give_the_pairs_and_scores_of_their_multiples(seed: int) -> None:
    a, b = F.normalize(random(40, 24, seed=seed)), F.normalize(random(50, 24, seed=seed + 5000))
    indices, scores = mutual_nearest(a, b)
    independent.check_mutual(a, b, indices)
    multiple, expected = mutual_nearest(3 * a, 7 * b)
    assert torch.equal(indices, multiple)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


def lowe(a: Tensor, b: Tensor, ratio: float) -> set[tuple[int, int]]:
    return set(map(tuple, KF.match_smnn(F.normalize(a), F.normalize(b), ratio)[1].tolist()))


@settings(max_examples=15)
@given(
    n=st.integers(2, 60), m=st.integers(2, 60), seed=seeds, ratio=st.sampled_from([0.7, 0.85, 0.99])
)
def test_the_ratio_test_keeps_what_kornias_keeps(n: int, m: int, seed: int, ratio: float) -> None:
    a, b = random(n, 32, seed=seed), random(m, 32, seed=seed + 5000)
    b[: min(n, m)] += 1.5 * a[: min(n, m)]
    indices, _ = mutual_nearest(a, b, ratio=ratio)
    assert set(map(tuple, indices.tolist())) == lowe(a, b, ratio)


def test_the_ratio_test_over_many_strips_keeps_what_kornias_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(nearest.STRIP, "cpu", 64 * 96)
    a = random(500, 48)
    b = a.flip(0) + 1.2 * random(500, 48, seed=1)
    indices, _ = mutual_nearest(a, b, ratio=0.9)
    assert 10 < len(indices) < 490
    assert set(map(tuple, indices.tolist())) == lowe(a, b, 0.9)


def test_without_a_second_or_with_one_as_near_the_ratio_leaves_nothing() -> None:
    a = random(3, 8)
    assert len(mutual_nearest(a, a[:1], ratio=1.0)[0]) == 0
    assert len(mutual_nearest(a, a[[0, 0, 1]], ratio=1.0)[0]) == 1


def test_pairs_below_the_smallest_score_are_left_out() -> None:
    a, b = random(40, 8), random(40, 8, seed=1)
    indices, scores = mutual_nearest(a, b)
    kept, kept_scores = mutual_nearest(a, b, min_score=0.6)
    assert torch.equal(kept, indices[scores >= 0.6])
    assert torch.equal(kept_scores, scores[scores >= 0.6])
    assert len(mutual_nearest(a, a, min_score=0.99999)[0]) == 40


@pytest.mark.parametrize("ratio", [None, 0.95])
def test_what_a_mask_leaves_out_is_as_if_it_were_not_there(ratio: float | None) -> None:
    a, b = random(60, 16), random(50, 16, seed=1)
    generator = torch.Generator().manual_seed(0)
    mask_a, mask_b = (torch.rand(count, generator=generator) > 0.4 for count in (60, 50))
    indices, scores = mutual_nearest(a, b, mask_a=mask_a, mask_b=mask_b, ratio=ratio)
    alone, alone_scores = mutual_nearest(a[mask_a], b[mask_b], ratio=ratio)
    rows = torch.stack([mask_a.nonzero()[alone[:, 0], 0], mask_b.nonzero()[alone[:, 1], 0]], 1)
    assert torch.equal(indices, rows)
    assert torch.equal(scores, alone_scores)
    nothing = torch.zeros(60, dtype=torch.bool)
    assert len(mutual_nearest(a, b, mask_a=nothing, ratio=ratio)[0]) == 0


def test_no_descriptor_is_in_two_pairs() -> None:
    a, b = hard(300, 16, 0), hard(300, 16, 1)
    for column in mutual_nearest(a, b)[0].T:
        assert len(column.unique()) == len(column)


def test_a_map_is_masked_by_the_pixels_at_its_tokens_centres() -> None:
    described = DescriptorMap(random(1, 16, 4, 6), Frame((32, 48), (32, 48)))
    mask = torch.zeros(32, 48, dtype=torch.bool)
    mask[:16, 24:] = True
    matches = match(described, described, mask_a=mask)
    assert len(matches) == 6
    assert bool((matches.points_b[:, 0] > 24).all() and (matches.points_b[:, 1] < 16).all())
    with pytest.raises(InvalidArgumentError, match=r"mask_b must be bool of its image's size"):
        match(described, described, mask_b=mask[:-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 0.0}, r"ratio must lie in \(0, 1\], got 0"),
        ({"ratio": 1.5}, r"ratio must lie in \(0, 1\], got 1.5"),
        ({"min_score": 2.0}, "min_score must lie"),
        ({"radius": -1.0}, "radius must be 0 or more, got -1"),
        ({"points_a": torch.ones(3, 2)}, r"points_a must have the shape \(4, 2\)"),
        ({"mask_a": torch.ones(4)}, "mask_a must be bool, got torch.float32"),
        ({"mask_b": torch.ones(3, dtype=torch.bool)}, r"mask_b must have the shape \(4,\)"),
        ({"mask_b": [True] * 4}, "mask_b must be a tensor, got list"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        mutual_nearest(torch.eye(4), torch.eye(4), **arguments)  # type: ignore[arg-type]


def fginn(a: Tensor, b: Tensor, points_b: Tensor, ratio: float) -> set[tuple[int, int]]:
    """Kornia's one-sided test within 10 px, whose frames carry the points alone."""
    lafs = torch.cat([torch.eye(2).expand(len(b), 2, 2), points_b[..., None]], 2)[None]
    return set(map(tuple, KF.match_fginn(a, b, lafs[:, : len(a)], lafs, ratio, 10.0)[1].tolist()))


@pytest.mark.parametrize("ratio", [0.8, 0.95])
def test_the_second_outside_a_radius_is_that_of_fginn(ratio: float) -> None:
    a, b = F.normalize(random(60, 32)), F.normalize(random(60, 32, seed=1) + 1.2 * random(60, 32))
    b = torch.cat([b, F.normalize(b + 0.1 * random(60, 32, seed=2))])
    places = 200 * torch.rand(60, 2, generator=torch.Generator().manual_seed(3))
    points_b = torch.cat([places, places + 2])
    indices, cosines = nearest_two(a, b, points_b, radius=10.0)
    assert torch.equal(indices, (a @ b.T).argmax(1))
    distances = (2 - 2 * cosines).sqrt()
    kept = (distances[:, 0] <= ratio * distances[:, 1]).nonzero()[:, 0]
    pairs = {(row, int(indices[row])) for row in kept.tolist()}
    assert pairs == fginn(a, b, points_b, ratio)
    assert len(pairs) > 10


def test_two_keypoints_on_one_corner_do_not_rule_each_other_out() -> None:
    b = random(5, 16)
    a = b + 0.02 * random(5, 16, seed=1)
    b = torch.cat([b, b[:2] + 0.01])
    points_a = 50.0 * torch.arange(5).float()[:, None].expand(5, 2)
    points_b = torch.cat([points_a, points_a[:2] + 1])
    near = {tuple(pair) for pair in mutual_nearest(a, b, ratio=0.5)[0].tolist()}
    far, _ = mutual_nearest(a, b, ratio=0.5, points_a=points_a, points_b=points_b, radius=10.0)
    assert near == {(2, 2), (3, 3), (4, 4)}
    assert far.tolist() == [[row, row] for row in range(5)]


def test_where_everything_is_near_the_first_there_is_no_second() -> None:
    indices, cosines = nearest_two(random(3, 8), random(4, 8, seed=1), torch.zeros(4, 2))
    assert indices.shape == (3,)
    assert bool((cosines[:, 1] == -torch.inf).all())
    assert nearest_two(random(3, 8), random(0, 8))[1].tolist() == [[-torch.inf, -torch.inf]] * 3
    assert nearest_two(random(0, 8), random(3, 8))[1].shape == (0, 2)


@pytest.mark.gpu
def test_an_accelerator_finds_the_same() -> None:
    a, b = random(3000, 256), random(5000, 256, seed=1)
    here = mutual_nearest(a, b)[0]
    assert torch.equal(mutual_nearest(a.cuda(), b.cuda())[0].cpu(), here)
