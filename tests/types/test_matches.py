from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kornia_ditf.errors import DamagedFileError, InvalidArgumentError
from kornia_ditf.types import DescriptorMap, Frame, Matches
from kornia_ditf.viz.matches import draw_matches


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_map(
    size: tuple[int, int] = (37, 53), grid: tuple[int, int] = (5, 7), batch: int = 1, seed: int = 0
) -> DescriptorMap:
    return DescriptorMap(random(batch, 16, *grid, seed=seed), Frame(size, (32, 32)))


def test_the_best_matches_come_best_first_and_whole() -> None:
    points, scores = random(10, 2), random(10)
    best = Matches(points, -points, scores).best(4)
    assert torch.equal(best.scores, scores.sort(descending=True).values[:4])
    for point_a, point_b, score in zip(best.points_a, best.points_b, best.scores, strict=True):
        row = int((scores == score).nonzero())
        assert torch.equal(point_a, points[row]) and torch.equal(point_b, -points[row])


def test_of_equal_scores_the_first_stays_first() -> None:
    points = torch.arange(6.0).view(3, 2)
    assert torch.equal(Matches(points, points, torch.ones(3)).best(2).points_a, points[:2])


def test_the_best_of_a_batch_are_the_best_of_each_pair() -> None:
    points, scores = random(3, 10, 2), random(3, 10)
    matches = Matches(points, -points, scores)
    assert len(matches) == 10
    best = matches.best(4)
    for pair in range(3):
        alone = Matches(points[pair], -points[pair], scores[pair]).best(4)
        assert torch.equal(best.points_a[pair], alone.points_a)
        assert torch.equal(best.points_b[pair], alone.points_b)
        assert torch.equal(best.scores[pair], alone.scores)


def test_more_than_there_are_is_all_there_are() -> None:
    assert len(Matches(random(3, 2), random(3, 2), random(3)).best(10)) == 3
    assert len(Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0)).best(10)) == 0


def some_matches(count: int = 10) -> Matches:
    return Matches(10 * random(count, 2), 10 * random(count, 2, seed=1), random(count, seed=2))


def test_matches_are_indexed_by_numbers_slices_and_masks() -> None:
    matches = some_matches()
    assert torch.equal(matches[3].points_b, matches.points_b[3:4]) and len(matches[-1]) == 1
    assert torch.equal(matches[2:5].scores, matches.scores[2:5])
    mask = matches.scores > 0
    assert torch.equal(matches[mask].points_a, matches.points_a[mask])
    assert torch.equal(Matches.cat(list(matches)).points_b, matches.points_b)
    with pytest.raises(IndexError):
        matches[10]


def test_pairs_are_stacked_indexed_along_the_matches_and_taken_apart() -> None:
    pairs = [some_matches(), some_matches().best(10)]
    batch = Matches.stack(pairs)
    assert batch.scores.shape == (2, 10) and batch[:4].points_a.shape == (2, 4, 2)
    for one, again in zip(pairs, batch.unbind(), strict=True):
        assert torch.equal(one.points_b, again.points_b)
    with pytest.raises(InvalidArgumentError, match="equally many matches, got 3 to 10"):
        Matches.stack([pairs[0], some_matches(3)])
    with pytest.raises(InvalidArgumentError, match="at least one Matches"):
        Matches.cat([])


def test_matches_move_and_become_arrays() -> None:
    matches = some_matches()
    points_a, points_b, scores = matches.numpy()
    assert points_a.shape == points_b.shape == (10, 2) and scores.dtype.name == "float32"
    assert matches.to("meta").scores.device.type == "meta"
    assert matches.cpu().to(dtype=torch.float64).points_a.dtype == torch.float64


def test_matches_are_represented_by_their_number_and_scores() -> None:
    matches = Matches(random(2, 2), random(2, 2), torch.tensor([0.25, 0.75]))
    assert repr(matches) == "Matches(2 matches, scores 0.250 to 0.750, cpu)"
    assert repr(Matches.stack([matches] * 3)).startswith("Matches(3 pairs of 2 matches")
    none = matches[:0]
    assert repr(none) == "Matches(0 matches, cpu)" and none._repr_html_() is None


def test_a_notebook_shows_matches_as_lines() -> None:
    shown = some_matches(300)._repr_html_()
    assert shown is not None
    assert shown.count("<line") == 100 and "Matches(300 matches" in shown and "nan" not in shown


def test_matches_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "ab.safetensors"
    for matches in (some_matches(), some_matches(0)):
        matches.save(path, {"pair": ["a", "b"]})
        loaded = Matches.load(path)
        for name in ("points_a", "points_b", "scores"):
            assert torch.equal(getattr(loaded, name), getattr(matches, name))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match=str(path)):
        Matches.load(path)
    random_map().save(path)
    with pytest.raises(DamagedFileError, match="holds no points_a"):
        Matches.load(path)


def test_matches_are_drawn_as_draw_matches_does() -> None:
    image = torch.rand(1, 3, 24, 32)
    matches = Matches(torch.rand(4, 2) * 20, torch.rand(4, 2) * 20, torch.rand(4))
    picture = matches.draw(image, image, limit=2)
    assert (picture == draw_matches(image, image, matches, limit=2)).all()
    assert (picture._repr_png_() or b"").startswith(b"\x89PNG")
