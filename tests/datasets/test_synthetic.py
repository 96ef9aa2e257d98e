from __future__ import annotations

from pathlib import Path

import layouts
import numpy as np
import pytest
import torch
from PIL import Image

from kornia_ditf import load_dataset
from kornia_ditf.errors import DatasetError, InvalidArgumentError
from kornia_ditf.metrics.functional import project


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder with a picture whose blobs can be found again."""
    place = tmp_path / "photographs"
    place.mkdir()
    for name in "ab":
        Image.open("examples/data/graffiti_a.jpg").resize((160, 128)).save(place / f"{name}.png")
    (place / "notes.txt").write_text("no image")
    return place


def test_each_image_comes_with_each_kind_of_change(photographs: Path) -> None:
    pairs = load_dataset("synthetic", photographs, versions=2)
    assert len(pairs) == 2 * 3 * 2
    assert pairs.categories == ("both", "illumination", "viewpoint")
    assert len({pair.name for pair in pairs}) == len(pairs)


def test_points_follow_the_homography_into_the_second_image(photographs: Path) -> None:
    for pair in load_dataset("synthetic", photographs):
        assert pair.homography is not None
        moved = project(pair.homography, pair.points_a)
        assert torch.allclose(moved, pair.points_b)
        height, width = pair.size_b
        assert bool((pair.points_b >= 0).all())
        assert bool((pair.points_b <= torch.tensor([width - 1, height - 1])).all())


def test_what_lies_under_a_point_is_what_lay_under_it_before(photographs: Path) -> None:
    pair = load_dataset("synthetic", photographs, split="viewpoint", strength=0.1, points=300)[0]
    a, b = (np.asarray(Image.open(p).convert("L"), float) for p in (pair.image_a, pair.image_b))
    ax, ay = pair.points_a.round().long().T.numpy()
    bx, by = pair.points_b.round().long().T.numpy()
    right = np.abs(a[ay, ax] - b[by, bx]).mean()
    wrong = np.abs(a[ay, ax] - a[by, bx]).mean()
    assert right < wrong / 2


def test_a_seed_gives_the_same_pairs_and_another_one_others(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = (load_dataset("synthetic", photographs, seed=seed)[2] for seed in (1, 2))
    content = first.image_b.read_bytes()
    assert not torch.equal(first.points_b, other.points_b)
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / "another"))
    again = load_dataset("synthetic", photographs, seed=1)[2]
    assert again.image_b != first.image_b and again.image_b.read_bytes() == content
    assert torch.equal(again.points_b, first.points_b)


def test_a_picture_of_the_cache_that_is_not_what_was_kept_is_made_again(
    photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def picture() -> Path:
        return load_dataset("synthetic", photographs, split="viewpoint")[0].image_b

    path = picture()
    content = path.read_bytes()
    Image.new("RGB", (160, 128)).save(tmp_path / "other.png")
    for changed in (content[:300], (tmp_path / "other.png").read_bytes(), b""):
        path.write_bytes(changed)
        caplog.clear()
        assert picture().read_bytes() == content
        assert "it is made again" in caplog.text and path.name in caplog.text
    modified = path.stat().st_mtime_ns
    assert picture().stat().st_mtime_ns == modified


def test_light_alone_moves_no_point(photographs: Path) -> None:
    pair = load_dataset("synthetic", photographs, split="illumination")[0]
    assert torch.allclose(pair.points_a, pair.points_b)
    a, b = (np.asarray(Image.open(p).convert("RGB"), float) for p in (pair.image_a, pair.image_b))
    assert np.abs(a - b).mean() > 2


def test_wrong_numbers_and_empty_folders_are_refused(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="strength"):
        load_dataset("synthetic", photographs, strength=0.6)
    with pytest.raises(DatasetError, match="no image"):
        load_dataset("synthetic", tmp_path)
    with pytest.raises(DatasetError, match="split"):
        load_dataset("synthetic", layouts.folder(tmp_path), split="train")
