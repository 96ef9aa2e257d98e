"""What `mutual_nearest` promises beyond the plain case, which tests/test_matching.py holds."""

from __future__ import annotations

import independent
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching import certified as coarse
from kornia_ditf.matching import nearest
from kornia_ditf.matching.certified import Precision, bound, multiply, shorten
from kornia_ditf.matching.match import match
from kornia_ditf.matching.nearest import mutual_nearest
from kornia_ditf.types import DescriptorMap, Frame

PRECISIONS: list[Precision] = ["float32", "bfloat16"]
seeds = st.integers(0, 1000)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference(a: Tensor, b: Tensor) -> list[tuple[int, int]]:
    """The first greatest cosine both ways, from the whole matrix in float64 seen as float32."""
    unit_a, unit_b = F.normalize(a.double(), dim=1), F.normalize(b.double(), dim=1)
    cosines = (unit_a @ unit_b.T).float()
    cosines[(a == 0).all(1)] = -torch.inf
    cosines[:, (b == 0).all(1)] = -torch.inf
    best_b, best_a = cosines.argmax(1).tolist(), cosines.argmax(0).tolist()
    return [(i, j) for i, j in enumerate(best_b) if best_a[j] == i and cosines[i, j] > -torch.inf]


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


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(1, 90), m=st.integers(1, 90), seed=seeds, small=st.booleans())
def test_duplicates_near_ties_and_zeros_give_the_reference_whatever_the_precision(
    precision: Precision, n: int, m: int, seed: int, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "_TILES", {"cpu": (32, 48) if small else (512, 1024)})
    monkeypatch.setattr(nearest, "_CANDIDATES", 20 if small else 1 << 18)
    monkeypatch.setattr(nearest, "_BLOCK", 64 * 30 if small else 8 << 20)
    pool = hard(n + m, 24, seed)
    a, b = pool[:n], pool[n:]
    indices, scores = mutual_nearest(a, b, precision=precision)
    assert [tuple(pair) for pair in indices.tolist()] == reference(a, b)
    expected = torch.cosine_similarity(a[indices[:, 0]], b[indices[:, 1]])
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (513, 1025), (1100, 600)])
def test_sizes_that_no_tile_divides_give_the_reference(
    precision: Precision, shape: tuple[int, int]
) -> None:
    a, b = random(shape[0], 64), random(shape[1], 64, seed=1)
    b[: min(shape)] += a[: min(shape)]
    indices, _ = mutual_nearest(a, b, precision=precision)
    assert [tuple(pair) for pair in indices.tolist()] == independent.mutual_nearest(a, b)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_thousands_of_duplicates_are_decided_in_float64(precision: Precision) -> None:
    # Every product ties with every other: the candidates would be all pairs.
    a = random(3, 64)[torch.arange(900) % 3]
    indices, _ = mutual_nearest(a, a.flip(0), precision=precision)
    assert indices.tolist() == [[0, 2], [1, 1], [2, 0]]


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=40)
@given(seed=seeds, width=st.integers(1, 300), spike=st.sampled_from([0.0, 30.0]))
def test_coarse_cosines_stay_within_their_bound(
    precision: Precision, seed: int, width: int, spike: float
) -> None:
    a, b = random(9, width, seed=seed), random(7, width, seed=seed + 5000)
    a[:, 0] += spike
    b[:, 0] -= spike
    lengths_a, lengths_b = a.double().norm(dim=1), b.double().norm(dim=1)
    short_a, short_b = shorten(a, lengths_a, precision), shorten(b, lengths_b, precision)
    true = (a.double() / lengths_a[:, None]) @ (b.double() / lengths_b[:, None]).T
    error = (multiply(short_a, short_b).double() - true).abs()
    assert bool((error <= bound(short_a, short_b)[:, None]).all())
    assert bool((error <= bound(short_b, short_a)).all())


def test_the_bound_is_not_generous() -> None:
    a = random(50, 512)
    short = shorten(a, a.double().norm(dim=1), "bfloat16")
    assert bound(short, short).max() < 0.006


def lowe(a: Tensor, b: Tensor, ratio: float) -> set[tuple[int, int]]:
    import kornia.feature as kf

    return set(map(tuple, kf.match_smnn(F.normalize(a), F.normalize(b), ratio)[1].tolist()))


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=15)
@given(
    n=st.integers(2, 60), m=st.integers(2, 60), seed=seeds, ratio=st.sampled_from([0.7, 0.85, 0.99])
)
def test_the_ratio_test_keeps_what_kornias_keeps(
    precision: Precision, n: int, m: int, seed: int, ratio: float
) -> None:
    a, b = random(n, 32, seed=seed), random(m, 32, seed=seed + 5000)
    b[: min(n, m)] += 1.5 * a[: min(n, m)]
    indices, _ = mutual_nearest(a, b, ratio=ratio, precision=precision)
    assert set(map(tuple, indices.tolist())) == lowe(a, b, ratio)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_ratio_test_over_many_tiles_keeps_what_kornias_keeps(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "_TILES", {"cpu": (64, 96)})
    monkeypatch.setattr(nearest, "_CANDIDATES", 100)
    a = random(500, 48)
    b = a.flip(0) + 1.2 * random(500, 48, seed=1)
    indices, _ = mutual_nearest(a, b, ratio=0.9, precision=precision)
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
    assert len(mutual_nearest(a, a, min_score=1.0)[0]) > 30


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
        ({"precision": "float16"}, "precision must be one of auto, .* got 'float16'"),
        ({"mask_a": torch.ones(4)}, r"mask_a must be bool of shape \(4,\), got torch.float32"),
        ({"mask_b": torch.ones(3, dtype=torch.bool)}, r"mask_b must be bool of shape \(4,\)"),
        ({"mask_b": [True] * 4}, "mask_b must be a tensor, got list"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        mutual_nearest(torch.eye(4), torch.eye(4), **arguments)  # type: ignore[arg-type]


def test_the_fastest_precision_is_measured_once() -> None:
    device = torch.device("cpu")
    coarse._fastest.cache_clear()
    assert coarse.choose_precision("auto", 1000, device) == "float32"
    assert coarse._fastest.cache_info().misses == 0
    chosen = {coarse.choose_precision("auto", 1 << 31, device) for _ in range(3)}
    assert len(chosen) == 1 and chosen < {"float32", "bfloat16"}
    assert coarse._fastest.cache_info().misses == 1


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_an_accelerator_finds_the_same(precision: Precision) -> None:
    a, b = hard(3000, 256, 0), hard(5000, 256, 1)
    here = mutual_nearest(a, b)[0]
    assert torch.equal(mutual_nearest(a.cuda(), b.cuda(), precision=precision)[0].cpu(), here)
