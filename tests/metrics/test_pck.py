from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.metrics.pck import PCK

results = st.lists(
    st.tuples(st.sampled_from(["cat", "dog", "cow"]), st.lists(st.booleans(), max_size=6)),
    max_size=12,
)


def counted(some: list[tuple[str, list[bool]]]) -> PCK:
    pck = PCK([0.1])
    for category, hits in some:
        pck.update(torch.tensor([hits], dtype=torch.bool).reshape(1, -1), category)
    return pck


@given(results=results)
def test_all_ways_of_counting_equal_loops(results: list[tuple[str, list[bool]]]) -> None:
    scores = counted(results).compute()
    scored = [(category, hits) for category, hits in results if hits]
    assert scores.empty == len(results) - len(scored)
    assert scores.images == len(scored)
    assert scores.points == sum(len(hits) for _, hits in scored)
    if not scored:
        assert math.isnan(scores.per_point[0]) and math.isnan(scores.per_image[0])
        return
    everything = [hit for _, hits in scored for hit in hits]
    shares = [np.mean(hits) for _, hits in scored]
    assert scores.per_point == (pytest.approx(np.mean(everything)),)
    assert scores.per_image == (pytest.approx(np.mean(shares)),)
    points, images = [], []
    for category in sorted({category for category, _ in scored}):
        mine = [hits for each, hits in scored if each == category]
        points.append(np.mean([hit for hits in mine for hit in hits]))
        images.append(np.mean([np.mean(hits) for hits in mine]))
        assert scores.categories[category].per_point == (pytest.approx(points[-1]),)
        assert scores.categories[category].per_image == (pytest.approx(images[-1]),)
        assert scores.categories[category].images == len(mine)
    assert scores.per_point_of_categories == (pytest.approx(np.mean(points)),)
    assert scores.per_image_of_categories == (pytest.approx(np.mean(images)),)


@given(results=results, cut=st.integers(0, 12))
def test_merging_parts_gives_the_whole(results: list[tuple[str, list[bool]]], cut: int) -> None:
    merged = counted(results[:cut])
    merged.merge(counted(results[cut:]))
    found, whole = merged.compute(), counted(results).compute()
    assert (found.points, found.images, found.empty) == (whole.points, whole.images, whole.empty)
    assert found.per_image == pytest.approx(whole.per_image, nan_ok=True)
    assert found.per_point == pytest.approx(whole.per_point, nan_ok=True)
    assert list(found.categories) == list(whole.categories)


def test_per_point_and_per_image_differ_where_pairs_have_different_numbers_of_points() -> None:
    scores = counted([("cat", [True]), ("cat", [False] * 9)]).compute()
    assert scores.per_point == (0.1,) and scores.per_image == (0.5,)


def test_the_definition_says_base_and_comparison() -> None:
    text = PCK([0.1], base="image", comparison="<").definition
    assert "distance < a times the longer side of image B" in text
    assert "distance <= a times the longer side of the object's box" in PCK([0.1]).definition


def test_only_the_same_thresholds_and_definitions_merge() -> None:
    for other in (PCK([0.2]), PCK([0.1], base="image"), PCK([0.1], comparison="<")):
        with pytest.raises(InvalidArgumentError, match="can be merged"):
            PCK([0.1]).merge(other)
    with pytest.raises(InvalidArgumentError, match=r"\(1, K\)"):
        PCK([0.1]).update(torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(InvalidArgumentError, match="base"):
        PCK([0.1], base="sofa")
