"""Lists of pairs with poses, and the synthetic ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kornia_ditf import load_dataset
from kornia_ditf.datasets.relief import random_relief, render
from kornia_ditf.errors import DatasetError
from kornia_ditf.preprocess import read_image

K0 = [[500.0, 0, 31.5], [0, 480.0, 23.5], [0, 0, 1]]
K1 = [[400.0, 0, 30.0], [0, 410.0, 20.0], [0, 0, 1]]
POSE = np.eye(4)
POSE[:3, :3] = [[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]]
POSE[:3, 3] = [0.5, 0.1, -0.2]


def words(*parts: object) -> str:
    return " ".join(str(value) for part in parts for value in np.ravel(part).tolist())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in (("a.png", (64, 48)), ("b.png", (40, 30))):
        (tmp_path / "scene").mkdir(exist_ok=True)
        pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint32) % 251
        array = pixels.astype(np.uint8).reshape(size[1], size[0], 3)
        Image.fromarray(array).save(tmp_path / "scene" / name)
    return tmp_path


NAMES = ("scene/a.png", "scene/b.png")


@pytest.mark.parametrize(
    "line",
    [
        words(NAMES, [0, 0], K0, K1, POSE),
        words(NAMES, K0, K1, POSE),
        words(NAMES, K0, K1, POSE[:3, :3], POSE[:3, 3]),
    ],
    ids=["SuperGlue", "without turns", "glue-factory"],
)
def test_every_form_of_list_gives_the_cameras_and_the_pose(folder: Path, line: str) -> None:
    (folder / "pairs_with_gt.txt").write_text(f"{line}\n\n")
    pair = load_dataset("posed-pairs", folder)[0]
    assert pair.size_a == (48, 64) and pair.size_b == (30, 40)
    assert pair.camera_a.tolist() == K0 and pair.camera_b.tolist() == K1
    assert np.array_equal(pair.pose.numpy(), POSE)


@pytest.mark.parametrize("turns", [(1, 0), (0, 2), (3, 1)])
def test_turned_images_are_turned_upright_with_camera_and_pose(
    folder: Path, turns: tuple[int, int]
) -> None:
    (folder / "pairs_with_gt.txt").write_text(words(NAMES, turns, K0, K1, POSE))
    pair = load_dataset("posed-pairs", folder)[0]
    for name, turn, path in zip(NAMES, turns, (pair.image_a, pair.image_b), strict=True):
        stored = read_image(folder / name)[0].permute(1, 2, 0).numpy()
        assert np.array_equal(read_image(path)[0].permute(1, 2, 0), np.rot90(stored, turn))
    # A point in space is seen at the same place of each picture, turned or not.
    point = np.array([0.1, -0.05, 3.0])
    sides = ((K0, np.eye(4), turns[0], (48, 64)), (K1, POSE, turns[1], (30, 40)))
    cameras = (pair.camera_a.numpy(), pair.camera_b.numpy())
    places = []
    for (camera, motion, turn, (height, width)), turned in zip(sides, cameras, strict=True):
        seen = np.array(camera) @ (motion[:3, :3] @ point + motion[:3, 3])
        x, y = seen[:2] / seen[2]
        for _ in range(turn):
            x, y, width, height = y, width - 1 - x, height, width
        places.append(np.linalg.inv(turned) @ [x, y, 1])
    pose = pair.pose.numpy()
    essential = np.cross(np.eye(3), pose[:3, 3]) @ pose[:3, :3]
    assert abs(places[1] @ -essential @ places[0]) < 1e-12
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (words(NAMES, K0), "11 words"),
        (words(NAMES, [0, 4], K0, K1, POSE), "quarter turns must be"),
        (words(NAMES, [0, 0], K0, K1, POSE).replace("500.0", "inf"), "camera_a must be"),
        (words(NAMES, [0, 0], K0, K1, POSE).replace("500.0", "-5"), "camera_a must be"),
        (words(NAMES, [0, 0], K0, K1, POSE).replace("0.8", "nan"), "pose must be"),
        (words(NAMES, [0, 0], K0, K1, 2 * POSE), "pose must be"),
        (words(NAMES, [0, 0], K0, K1, np.eye(4)), "translation other than 0"),
        (words(NAMES, [0, 0], K0, K1, POSE).replace("480.0", "x"), "could not convert"),
        ("\n", "lists no pair"),
    ],
)
def test_a_malformed_line_is_named(folder: Path, line: str, told: str) -> None:
    (folder / "pairs_with_gt.txt").write_text(f"# a comment\n\n{line}")
    told = told if "lists" in told else f"line 3: .*{told}"
    with pytest.raises(DatasetError, match=told):
        load_dataset("posed-pairs", folder)


def test_a_missing_image_is_named_with_its_line(folder: Path) -> None:
    text = words(("scene/a.png", "scene/c.png"), K0, K1, POSE)
    (folder / "pairs_with_gt.txt").write_text(f"# a comment\n{text}\n")
    with pytest.raises(DatasetError, match=r"c\.png.*pairs_with_gt.txt names it, line 2"):
        load_dataset("posed-pairs", folder)[0]


def test_loftrs_list_of_scannet_is_read_and_pickles_are_not(folder: Path) -> None:
    place = folder / "scene0707_00" / "color"
    place.mkdir(parents=True)
    for name, file in (("15.jpg", "a.png"), ("585.jpg", "b.png")):
        Image.open(folder / "scene" / file).save(place / name)
    names, poses = np.array([[707, 0, 15, 585]]), POSE[None, :3].reshape(1, 12)
    np.savez(folder / "test.npz", name=names, rel_pose=poses)
    np.savez(folder / "intrinsics.npz", scene0707_00=np.array(K0))
    (pair,) = load_dataset("posed-pairs", folder)
    assert np.array_equal(pair.pose.numpy(), POSE) and pair.camera_b.tolist() == K0
    assert pair.image_b == place / "585.jpg"
    np.savez(folder / "test.npz", name=names[:, :3], rel_pose=poses)
    with pytest.raises(DatasetError, match=r"got \(1, 3\) and \(1, 12\)"):
        load_dataset("posed-pairs", folder)
    np.savez(folder / "test.npz", image_paths=np.array([None, "a"], dtype=object))
    with pytest.raises(DatasetError, match=r"Python objects \(image_paths\).*docs/datasets.md"):
        load_dataset("posed-pairs", folder)
    (folder / "test.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(DatasetError, match="cannot be read as npz"):
        load_dataset("posed-pairs", folder)


def test_images_outside_of_the_folder_are_refused(folder: Path) -> None:
    (folder / "pairs_with_gt.txt").write_text(words(("../a.png", NAMES[1]), K0, K1, POSE))
    with pytest.raises(DatasetError, match="not inside"):
        load_dataset("posed-pairs", folder)[0]
    with pytest.raises(DatasetError, match="not inside"):
        load_dataset("posed-pairs", folder, file="../pairs.txt")


def test_images_may_lie_in_their_own_folder_and_lists_be_named(folder: Path) -> None:
    (folder / "scene").rename(folder / "images")
    for name in ("one_pairs_with_gt.txt", "two_pairs_with_gt.txt"):
        (folder / name).write_text(words(("a.png", "b.png"), K0, K1, POSE))
    with pytest.raises(DatasetError, match="one list"):
        load_dataset("posed-pairs", folder)
    pairs = load_dataset("posed-pairs", folder, file="two_pairs_with_gt.txt")
    assert pairs[0].image_a == folder / "images" / "a.png"


def test_a_relief_shows_each_point_where_its_camera_sees_it() -> None:
    relief = random_relief(np.random.default_rng(3), (60, 80), 0.2)
    points = np.random.default_rng(0).uniform(10, 50, (40, 2))
    assert np.abs(relief.find(relief.project(points)) - points).max() < 1e-2
    y, x = np.mgrid[:60, :80]
    drawn = render(np.stack([x, y, y], -1).astype(np.float32), relief)
    seen = relief.project(points)
    inside = ((seen > 2) & (seen < [77, 57])).all(1)
    column, row = seen[inside].round().astype(int).T
    back = relief.find(np.stack([column, row], -1).astype(float))
    assert np.abs(drawn[row, column, :2] - back).max() < 0.05


def test_synthetic_pairs_with_poses_fit_their_points(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    pair = load_dataset("synthetic", tmp_path, split="pose", points=20)[0]
    again = load_dataset("synthetic", tmp_path, split="pose", points=20)[0]
    assert torch.equal(pair.pose, again.pose) and pair.image_b == again.image_b
    assert pair.homography is None and len(pair.points_a) == 20
    camera, pose = pair.camera_a.numpy(), pair.pose.numpy()
    essential = -np.cross(np.eye(3), pose[:3, 3]) @ pose[:3, :3]
    a, b = (
        np.linalg.solve(camera, np.c_[points.numpy(), np.ones(20)].T)
        for points in (pair.points_a, pair.points_b)
    )
    assert np.abs((b * (essential @ a)).sum(0)).max() < 1e-9
