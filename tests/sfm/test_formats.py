"""What other tools read of a graph is what is in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pycolmap
import pytest
import torch

from kornia_ditf.errors import InvalidArgumentError, MissingExtraError
from kornia_ditf.sfm.formats import write_features
from kornia_ditf.sfm.graph import CorrespondenceGraph
from kornia_ditf.types import DescriptorMap, Frame


def test_a_colmap_database_holds_keypoints_matches_and_geometries(
    graph: CorrespondenceGraph, tmp_path: Path
) -> None:
    assert graph.save(tmp_path / "x.db") == [tmp_path / "x.db"]
    with pycolmap.Database.open(tmp_path / "x.db") as database:
        images = database.read_all_images()
        assert [each.name for each in images] == ["a.png", "b.png", "in/c.png"]
        assert len({each.camera_id for each in images}) == 3
        for image, found in zip(graph.images, images, strict=True):
            keypoints = database.read_keypoints(found.image_id)
            np.testing.assert_allclose(keypoints[:, :2], image.keypoints + 0.5, atol=1e-5)
        for pair in graph.pairs:
            numbers = [images[each].image_id for each in (pair.first, pair.second)]
            np.testing.assert_array_equal(database.read_matches(*numbers), pair.indices)
            geometry = database.read_two_view_geometry(*numbers)
            kept = {tuple(each) for each in pair.indices[pair.inliers].tolist()}
            inliers = {tuple(each) for each in geometry.inlier_matches.tolist()}
            assert inliers <= kept and len(inliers) >= 50
            f = geometry.F
            a, b = (
                np.c_[
                    graph.images[n].keypoints[pair.indices[pair.inliers][:, side]] + 0.5, [1] * 55
                ]
                for side, n in enumerate((pair.first, pair.second))
            )
            lines = a @ f.T
            error = np.abs((b * lines).sum(1)) / np.linalg.norm(lines[:, :2], axis=1)
            assert np.median(error) < 0.05


def test_images_of_one_size_may_share_a_camera(graph: CorrespondenceGraph, tmp_path: Path) -> None:
    graph.save(tmp_path / "x.db", one_camera=True)
    with pycolmap.Database.open(tmp_path / "x.db") as database:
        (camera,) = database.read_all_cameras()
        assert (camera.width, camera.height) == (160, 120)
        assert camera.mean_focal_length() == pytest.approx(192)
        assert not camera.has_prior_focal_length


def test_colmap_reconstructs_the_points_from_the_database(
    graph: CorrespondenceGraph, tmp_path: Path
) -> None:
    graph.save(tmp_path / "x.db", one_camera=True)
    options = pycolmap.IncrementalPipelineOptions(num_threads=1, min_model_size=3)
    options.mapper.init_min_num_inliers = 30
    options.mapper.init_min_tri_angle = 2.0
    found = pycolmap.incremental_mapping(tmp_path / "x.db", tmp_path, tmp_path, options)
    assert found[0].num_reg_images() == 3 and found[0].num_points3D() >= 40
    assert found[0].compute_mean_reprojection_error() < 0.1


def test_hloc_finds_features_matches_and_pairs(graph: CorrespondenceGraph, tmp_path: Path) -> None:
    features, matches, pairs = graph.save(tmp_path / "x.h5")
    assert pairs.read_text() == "a.png b.png\na.png in/c.png\nb.png in/c.png\n"
    with h5py.File(features) as file:
        for image in graph.images:
            np.testing.assert_array_equal(file[image.name]["keypoints"], image.keypoints)
            assert list(file[image.name]["image_size"]) == [160, 120]
    with h5py.File(matches) as file:
        # hloc's names_to_pair
        found = file["a.png"]["in-c.png"]["matches0"][:]
        kept = graph.pairs[1].indices[graph.pairs[1].inliers]
        assert {(a, b) for a, b in enumerate(found.tolist()) if b >= 0} == {
            tuple(each) for each in kept.tolist()
        }
        assert (file["a.png"]["in-c.png"]["matching_scores0"][:][found < 0] == 0).all()


def test_arrays_and_json_hold_the_same(graph: CorrespondenceGraph, tmp_path: Path) -> None:
    graph.save(tmp_path / "x.npz")
    graph.save(tmp_path / "x.json")
    arrays = np.load(tmp_path / "x.npz")
    document = json.loads((tmp_path / "x.json").read_text())
    np.testing.assert_allclose(
        arrays["in/c.png/keypoints"], document["images"][2]["keypoints"], atol=1e-3
    )
    pair = document["pairs"][2]
    assert pair["images"] == [1, 2]
    assert arrays["b.png:in/c.png/matches"].tolist() == pair["matches"]
    assert arrays["b.png:in/c.png/inliers"].tolist() == pair["inliers"]


@pytest.mark.parametrize("suffix", [".db", ".h5", ".npz", ".json"])
def test_equal_graphs_give_equal_bytes(
    graph: CorrespondenceGraph, suffix: str, tmp_path: Path
) -> None:
    contents = {
        tuple(path.read_bytes() for path in graph.save(tmp_path / f"{name}{suffix}"))
        for name in "xy"
    }
    assert len(contents) == 1
    graph.save(tmp_path / f"x{suffix}")  # over an older one
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_tokens_are_written_as_features(tmp_path: Path) -> None:
    maps = {
        name: DescriptorMap(torch.randn(1, 8, 3, 4), Frame((30, 40), (24, 32))) for name in "ab"
    }
    write_features(tmp_path / "x.h5", iter(maps.items()))
    write_features(tmp_path / "x.npz", iter(maps.items()))
    arrays = np.load(tmp_path / "x.npz")
    with h5py.File(tmp_path / "x.h5") as file:
        for name, described in maps.items():
            keypoints, descriptors = file[name]["keypoints"][:], file[name]["descriptors"][:]
            assert descriptors.shape == (8, 12) and descriptors.dtype == np.float16
            read = described.at(torch.from_numpy(keypoints)[None])[0]
            np.testing.assert_allclose(descriptors.T, read, atol=2e-3)
            np.testing.assert_array_equal(arrays[f"{name}/descriptors"], descriptors)
    write_features(tmp_path / "x.db", iter(maps.items()))
    with pycolmap.Database.open(tmp_path / "x.db") as database:
        assert database.num_keypoints() == 24 and database.num_matches() == 0


def test_other_suffixes_and_missing_packages_are_named(
    graph: CorrespondenceGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"end in \.db, \.h5, \.npz or \.json"):
        graph.save(tmp_path / "x.txt")
    for name, suffix in (("pycolmap", ".db"), ("h5py", ".h5")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtraError, match=r"pip install 'kornia-ditf\[sfm\]'"):
            graph.save(tmp_path / f"x{suffix}")
    assert not list(tmp_path.iterdir())
