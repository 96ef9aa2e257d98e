"""Scoring of pairs, against the published evaluations written out plainly."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import layouts
import published
import pytest
import torch
from PIL import Image
from torch import Tensor

from kornia_ditf import (
    evaluate_pair,
    find_protocol,
    list_protocols,
    load_dataset,
    prepare_image,
    prepare_target,
)
from kornia_ditf.datasets.pairs import Pair, PairDataset
from kornia_ditf.errors import DatasetError, InvalidArgumentError
from kornia_ditf.matching import keypoints
from kornia_ditf.metrics.pck import PCK, PCKScores
from kornia_ditf.protocols.evaluate import find_points, score_points
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.protocols.select import select_pairs
from kornia_ditf.types import DescriptorMap, Frame


def features(grid: tuple[int, int], noise: float = 0.6) -> Callable[[Path], Tensor]:
    """Features that all images share, and some noise of each."""
    shared = torch.randn(1, 24, *grid, generator=torch.Generator().manual_seed(0))

    @cache
    def give(path: Path) -> Tensor:
        seed = int(hashlib.sha256(path.name.encode()).hexdigest()[:8], 16)
        own = torch.randn(shared.shape, generator=torch.Generator().manual_seed(seed))
        return shared + noise * own

    return give


def described(data: Tensor, side: int) -> DescriptorMap:
    return DescriptorMap(data, Frame((side, side), (side, side)))


def score(
    pairs: PairDataset, protocol: Protocol, give: Callable[[Path], Tensor], side: int
) -> PCKScores:
    pck = PCK(protocol.alphas, protocol.base, protocol.comparison)
    for index in select_pairs(pairs, protocol):
        pair = pairs[index]
        maps = [described(give(path), side) for path in (pair.image_a, pair.image_b)]
        pck.update(evaluate_pair(*maps, pair, protocol).hits, pair.category)
    return pck.compute()


@pytest.mark.parametrize("name", ["dift-spair", "ditf-spair"])
@pytest.mark.parametrize("seed", range(2))
def test_spair_is_scored_as_dift_and_ditf_score_it(tmp_path: Path, name: str, seed: int) -> None:
    place = layouts.spair(tmp_path, pairs=3, seed=seed)
    give, protocol = features((9, 7), noise=1.5), find_protocol(name)
    scores = score(load_dataset("spair-71k", tmp_path), protocol, give, 768)
    for index, alpha in enumerate(protocol.alphas):
        for key, value in published.dift_spair(place, give, alpha).items():
            assert getattr(scores, key)[index] == pytest.approx(value, abs=1e-12)
    assert 0 < scores.per_point[0] < 1


@pytest.mark.parametrize(
    ("name", "window", "offset"),
    [("geoaware-spair", 7, 0), ("geoaware-spair-zero-shot", 5, 0), ("sd-dino-spair", None, -0.5)],
)
@pytest.mark.parametrize("seed", range(2))
def test_spair_is_scored_as_geoaware_and_sd_dino_score_it(
    tmp_path: Path, name: str, window: int | None, offset: float, seed: int
) -> None:
    place = layouts.spair(tmp_path, pairs=3, seed=seed)
    give, protocol = features((60, 60), noise=1.5), replace(find_protocol(name), per_category=0)

    scores = score(load_dataset("spair-71k", tmp_path), protocol, give, 840)
    for category, found in scores.categories.items():
        expected = published.token_pck(
            sorted((place / "PairAnnotation/test").glob(f"*:{category}.json")),
            lambda path: published.spair_keypoints(place, path, 840),
            give,
            lambda cosines, n: decode(cosines, n, window),
            840,
            offset,
        )
        assert found.per_point == pytest.approx(expected["per_point"], abs=1e-6)
        assert found.per_image == pytest.approx(expected["per_image"], abs=1e-6)
    assert 0 < scores.per_point[0] < 1


@pytest.mark.parametrize("kind", ["intra-species", "cross-species", "cross-family"])
@pytest.mark.parametrize("seed", range(2))
def test_animals_are_scored_as_geoaware_scores_them(tmp_path: Path, kind: str, seed: int) -> None:
    place = layouts.ap10k(tmp_path, seed=seed)
    protocol, give = find_protocol(f"geoaware-ap10k-{kind}"), features((60, 60), noise=1.5)
    split = protocol.hints["split"]
    scores = score(load_dataset("ap-10k", tmp_path, split=split), protocol, give, 840)
    for category, found in scores.categories.items():
        expected = published.token_pck(
            sorted((place / "PairAnnotation" / split).glob(f"*:{category}.json")),
            lambda path: published.ap10k_keypoints(place, path, 840),
            give,
            lambda rows, n: published.window_soft_argmax(rows, n, 7),
            840,
            0,
        )
        assert found.per_point == pytest.approx(expected["per_point"], abs=1e-6)
        assert found.per_image == pytest.approx(expected["per_image"], abs=1e-6)


def test_without_the_switch_hidden_points_stay_where_they_are(tmp_path: Path) -> None:
    layouts.ap10k(tmp_path)
    pair = load_dataset("ap-10k", tmp_path)[0]
    hidden = (pair.visibility_b == 0.5)[pair.visible]
    assert bool(hidden.any())
    theirs = find_protocol("geoaware-ap10k-intra-species")
    ours = replace(theirs, name="ours", compat=frozenset())
    give = features((60, 60), noise=0)
    maps = [described(give(path), 840) for path in (pair.image_a, pair.image_b)]
    found = [evaluate_pair(*maps, pair, protocol).distances for protocol in (theirs, ours)]
    seen_whole = ((pair.visibility_a == 1) & (pair.visibility_b == 1))[pair.visible]
    assert torch.equal(found[0][seen_whole], found[1][seen_whole])
    assert not torch.allclose(found[0][hidden], found[1][hidden])


def test_pf_pascal_thresholds_are_parts_of_the_image_and_of_the_square(tmp_path: Path) -> None:
    layouts.pf_pascal(tmp_path)
    pair = load_dataset("pf-pascal", tmp_path)[0]
    data = features((60, 60))(pair.image_a)
    bases = [
        evaluate_pair(described(data, 840), described(data, 840), pair, find_protocol(name)).base
        for name in ("pf-pascal", "sd-dino-pf-pascal", "geoaware-pf-pascal")
    ]
    assert bases == [max(pair.size_b), 840, 840]


@pytest.mark.parametrize(
    ("name", "window", "offset"), [("geoaware-pf-pascal", 7, 0), ("sd-dino-pf-pascal", None, -0.5)]
)
def test_pf_pascal_is_scored_as_geoaware_and_sd_dino_score_it(
    tmp_path: Path, name: str, window: int | None, offset: float
) -> None:
    place = layouts.pf_pascal(tmp_path)
    give, protocol = features((60, 60), noise=1.5), find_protocol(name)
    scores = score(load_dataset("pf-pascal", tmp_path), protocol, give, 840)
    with (place / "test_pairs_pf_pascal.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = published.token_pck(
        rows,
        lambda row: published.pascal_keypoints(place, row, 840),
        give,
        lambda cosines, n: decode(cosines, n, window),
        840,
        offset,
    )
    assert scores.per_point == pytest.approx(expected["per_point"], abs=1e-6)
    assert scores.per_image == pytest.approx(expected["per_image"], abs=1e-6)


def decode(cosines: Tensor, n: int, window: int | None) -> Tensor:
    """Places in tokens, by GeoAware-SC's window or by the best token."""
    if window is not None:
        return published.window_soft_argmax(cosines, n, window)
    best = cosines.argmax(1)
    return torch.stack([best % n, best // n], 1)


def test_pf_willow_thresholds_are_the_extent_of_keypoints_and_padding_inflates_it(
    tmp_path: Path,
) -> None:
    layouts.pf_willow(tmp_path)
    pair = load_dataset("pf-willow", tmp_path)[0]
    data = features((8, 8))(pair.image_a)
    plain, padded = (
        evaluate_pair(described(data, 64), described(data, 64), pair, find_protocol(name))
        for name in ("pf-willow", "pf-willow-padded")
    )
    x, y = pair.points_b.T.tolist()
    assert plain.base == max(max(x) - min(x), max(y) - min(y))
    u, v = (pair.points_a * 256 / torch.tensor(pair.size_a[::-1])).T.tolist()
    assert padded.base == pytest.approx(max(max(u), max(v)) + 1)
    stretched = (plain.predicted - pair.points_b) * 256 / torch.tensor(pair.size_b[::-1])
    assert torch.allclose(padded.distances, stretched.norm(dim=1))


def test_a_place_found_in_the_square_is_given_in_the_image(tmp_path: Path) -> None:
    layouts.spair(tmp_path)
    for name in ("geoaware-spair", "sd-dino-spair"):
        for pair in load_dataset("spair-71k", tmp_path):
            data = features((60, 60))(pair.image_a)
            same = _same_image(pair)
            result = evaluate_pair(
                described(data, 840), described(data, 840), same, find_protocol(name)
            )
            token = max(same.size_a) / 60
            assert bool(((result.predicted - same.points_a).abs() <= token).all())


def _same_image(pair: Pair) -> Pair:
    return replace(
        pair,
        image_b=pair.image_a,
        size_b=pair.size_a,
        points_b=pair.points_a,
        box_b=pair.box_a,
    )


def test_a_pair_without_shared_points_has_no_hits_and_counts_nowhere(tmp_path: Path) -> None:
    layouts.spair(tmp_path)
    pair = load_dataset("spair-71k", tmp_path)[0]
    empty = replace(pair, visibility_b=torch.zeros_like(pair.visibility_b))
    for name in ("ditf-spair", "geoaware-spair", "sd-dino-spair", "pf-willow"):
        data = features((60, 60))(pair.image_a)
        protocol = find_protocol(name)
        result = evaluate_pair(described(data, 840), described(data, 840), empty, protocol)
        assert result.hits.shape == (3, 0) and result.predicted.shape == (0, 2)
        pck = PCK(protocol.alphas)
        pck.update(result.hits)
        assert pck.compute().empty == 1


def test_what_a_protocol_needs_and_a_pair_lacks_is_named(tmp_path: Path) -> None:
    layouts.spair(tmp_path)
    pair = load_dataset("spair-71k", tmp_path)[0]
    data = described(torch.randn(1, 4, 6, 8), 64)
    with pytest.raises(InvalidArgumentError, match="no box in image B"):
        evaluate_pair(data, data, replace(pair, box_b=None), find_protocol("ditf-spair"))
    with pytest.raises(InvalidArgumentError, match="has no homography"):
        evaluate_pair(data, data, pair, find_protocol("dift-hpatches"))
    with pytest.raises(InvalidArgumentError, match="use evaluate_sequence"):
        evaluate_pair(data, data, pair, find_protocol("davis-dino"))
    with pytest.raises(InvalidArgumentError, match="one square grid"):
        evaluate_pair(data, data, pair, find_protocol("geoaware-spair"))


def test_an_image_that_a_protocol_reads_at_another_size_than_annotated_is_named(
    tmp_path: Path,
) -> None:
    place = layouts.spair(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in place.glob("JPEGImages/*/*.jpg"):
        with Image.open(path) as image:
            image.load()
        image.save(path, exif=exif)
    pair = load_dataset("spair-71k", tmp_path)[0]
    data = described(torch.randn(1, 4, 6, 8), 64)
    assert evaluate_pair(data, data, pair, find_protocol("ditf-spair")).hits.shape[0] == 3
    height, width = pair.size_a
    both = rf"{height} x {width} pixels upright.*annotation says {width} x {height} pixels"
    with pytest.raises(DatasetError, match=both) as caught:
        evaluate_pair(data, data, pair, find_protocol("plain"))
    assert caught.value.file == pair.image_a
    # The other way round, annotated upright.
    turned = replace(pair, size_a=pair.size_a[::-1], size_b=pair.size_b[::-1])
    with pytest.raises(DatasetError, match="as stored"):
        evaluate_pair(data, data, turned, find_protocol("dift-spair"))


def test_protocols_of_published_sets_read_images_as_the_sets_own_readers_do(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (500, 300)).save(tmp_path / "turned.jpg", exif=exif)
    for name, protocol in list_protocols().items():
        # NAVI's own reader turns images upright, and its annotations are of those.
        upright = ("plain", "navi")
        stored = (protocol.task == "keypoints" and name not in upright) or name == "dift-hpatches"
        assert protocol.fit.upright is not stored, name
        image = prepare_image(tmp_path / "turned.jpg", protocol)
        if protocol.fit.kind not in ("squash", "pad"):
            assert (image.shape[3] > image.shape[2]) is stored


def test_keypoints_at_one_place_give_no_threshold(tmp_path: Path) -> None:
    layouts.pf_willow(tmp_path)
    pair = load_dataset("pf-willow", tmp_path)[0]
    same = replace(pair, points_b=pair.points_b[:1].expand(10, 2))
    data = described(torch.randn(1, 4, 6, 8), 64)
    with pytest.raises(DatasetError, match="at one place"):
        evaluate_pair(data, data, same, find_protocol("pf-willow"))


@pytest.mark.parametrize("name", ["ditf-spair", "sd-dino-spair", "geoaware-spair"])
def test_points_are_found_on_the_device_without_reading_a_value(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.spair(tmp_path)
    pair = load_dataset("spair-71k", tmp_path)[0]
    protocol = find_protocol(name)
    data, pixels = torch.randn(1, 24, 12, 12), not protocol.canvas
    one, other = (
        prepare_target(DescriptorMap(data, Frame(size, (96, 96))), pixels=pixels)
        for size in (pair.size_a, pair.size_b)
    )
    found = find_points(one, other, pair, protocol)
    given = described(data, 96)
    expected = evaluate_pair(given, given, pair, protocol)
    assert torch.equal(score_points(found, pair, protocol).predicted, expected.predicted)
    # A tensor on the meta device has no value: reading one raises. It has no autocast either.
    monkeypatch.setattr(keypoints, "full_precision", lambda device: torch.no_grad())
    there = [
        replace(each, tokens=each.tokens.to("meta"), inverses=each.inverses.to("meta"))
        for each in (one, other)
    ]
    places = find_points(*there, pair, protocol)
    assert (places.device.type, places.shape) == ("meta", found.shape)


@pytest.mark.parametrize("name", ["ditf-spair", "geoaware-spair-zero-shot"])
def test_aligned_pairs_are_scored_in_the_pose_nearest_to_b_by_the_sources_rule(
    tmp_path: Path, name: str
) -> None:
    layouts.spair(tmp_path, pairs=2, seed=0)
    pair, plain = load_dataset("spair-71k", tmp_path)[0], find_protocol(name)
    aligned, give = replace(plain, align="flips"), features((9, 9))
    mirrored, map_b = (described(give(p), 768) for p in (pair.image_a, pair.image_b))
    upright = described(mirrored.data.flip(3) + 2 * give(Path("noise")), 768)
    pair = replace(pair, partners=torch.tensor([1, 0, -1, *range(3, len(pair.points_a))]))
    result = evaluate_pair([upright, mirrored], map_b, pair, aligned)
    assert result.scores["pose_distance@mirrored"] < result.scores["pose_distance@upright"]
    # GeoAware-SC: each point is sought from its partner's place in the mirror image, or from its
    # own in A itself where the partner is not annotated.
    points = pair.points_a[[1, 0, 2, *range(3, len(pair.points_a))]].clone()
    points[:, 0] = pair.size_a[1] - 1 - points[:, 0]
    flipped = evaluate_pair(mirrored, map_b, replace(pair, points_a=points), plain)
    as_it_is = evaluate_pair(upright, map_b, pair, plain)
    torch.testing.assert_close(result.predicted[[0, 1, 3]], flipped.predicted[[0, 1, 3]])
    torch.testing.assert_close(result.predicted[2], as_it_is.predicted[2])
    assert torch.equal(result.sources, pair.points_a) and result.base == flipped.base
    stays = evaluate_pair([mirrored, upright], map_b, pair, aligned)
    torch.testing.assert_close(
        stays.predicted, evaluate_pair(mirrored, map_b, pair, plain).predicted
    )
    with pytest.raises(InvalidArgumentError, match=r"in all of them, \[upright; mirrored\]"):
        evaluate_pair(mirrored, map_b, pair, aligned)


def test_a_turned_plane_is_scored_in_its_own_pixels(tmp_path: Path) -> None:
    matrix = torch.tensor([[0.0, 1, 0], [-1, 0, 79], [0, 0, 1]], dtype=torch.float64)  # 90 degrees
    pair = Pair(
        name="plane",
        category="all",
        image_a=tmp_path / "a.png",
        image_b=tmp_path / "b.png",
        size_a=(64, 80),
        size_b=(80, 64),
        points_a=torch.rand(6, 2, dtype=torch.float64) * 60,
        points_b=torch.zeros(0, 2, dtype=torch.float64),
        visibility_a=torch.ones(6, dtype=torch.float64),
        visibility_b=torch.ones(0, dtype=torch.float64),
        homography=matrix,
    )
    data = torch.randn(1, 16, 8, 10, generator=torch.Generator().manual_seed(0))
    views = [
        DescriptorMap(d, Frame(s, s))
        for d, s in ((data, (64, 80)), (data.rot90(1, (2, 3)), (80, 64)))
    ]
    others = [DescriptorMap(v.data.roll(1, 1), v.frame) for v in views]  # of nothing in B
    maps = [others[0], views[1], *others]
    protocol = replace(find_protocol("dift-hpatches"), align="turns", compat=frozenset())
    result = evaluate_pair(maps, views[1], pair, protocol)
    assert min(result.scores, key=lambda n: result.scores[n]) in (
        "pose_distance@turned 90",
        "corner_error",
    )
    expected = torch.cat([result.sources, torch.ones(len(result.sources), 1)], 1) @ matrix.T
    torch.testing.assert_close(
        result.predicted, expected[:, :2].to(result.predicted), atol=1e-3, rtol=0
    )
