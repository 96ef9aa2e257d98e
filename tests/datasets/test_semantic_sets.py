"""TSS, CUB, JHMDB and SPair-U in their layouts, and corruptions of any set."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from kornia_ditf import load_dataset
from kornia_ditf.datasets.corruption import CorruptedPairs, Corruption
from kornia_ditf.errors import DatasetError, InvalidArgumentError
from kornia_ditf.preprocess import read_image


def image(path: Path, size: tuple[int, int] = (24, 18)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def tss(tmp_path: Path) -> Path:
    place = tmp_path / "TSS_CVPR2016" / "JODS" / "one"
    image(place / "image1.png")
    image(place / "image2.png", (30, 20))
    flow = np.full((18, 24, 2), 1e10, np.float32)
    flow[2, 3], flow[5, 6], flow[7, 8] = (1.5, 2), (-2, 0.25), (100, 0)  # the last leads outside
    header = struct.pack("<fii", 202021.25, 24, 18)
    (place / "flow1.flo").write_bytes(header + flow.tobytes())
    return tmp_path


def test_flow_gives_the_points_of_tss(tss: Path) -> None:
    pair = load_dataset("tss", tss)[0]
    assert pair.category == "JODS" and pair.size_b == (20, 30)
    assert pair.points_a.tolist() == [[3, 2], [6, 5]]
    assert pair.points_b.tolist() == [[4.5, 4], [4, 5.25]]
    assert len(load_dataset("tss", tss, points=1)[0].points_a) == 1


@pytest.mark.parametrize(
    "content", [b"", b"PIEH", struct.pack("<fii", 202021.25, 24, 1 << 30), b"PIEH" + bytes(20)]
)
def test_a_flow_file_that_lies_is_named(tss: Path, content: bytes) -> None:
    (tss / "TSS_CVPR2016/JODS/one/flow1.flo").write_bytes(content)
    with pytest.raises(DatasetError, match=r"flow1\.flo"):
        load_dataset("tss", tss)[0]


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    place = tmp_path / "CUB_200_2011"
    names = [f"00{c}.Bird_{c}/b{i}.jpg" for c in (1, 2) for i in range(3)]
    for name in names:
        image(place / "images" / name)
    numbered = list(enumerate(names, 1))
    rows = {
        "images.txt": [f"{i} {name}" for i, name in numbered],
        "train_test_split.txt": [f"{i} {int(i == 1)}" for i, _ in numbered],
        "bounding_boxes.txt": [f"{i} 2.0 3.0 10.0 8.0" for i, _ in numbered],
        "parts/part_locs.txt": [
            f"{i} {part} {part}.0 {i}.0 {int(part <= 4)}"
            for i, _ in numbered
            for part in range(1, 16)
        ],
    }
    for name, lines in rows.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("\n".join(lines) + "\n")
    return tmp_path


def test_birds_of_one_class_are_paired_by_a_seed(cub: Path) -> None:
    pairs = load_dataset("cub", cub, pairs=2)
    assert [pairs.category(index) for index in range(len(pairs))] == ["001.Bird_1"] + [
        "002.Bird_2"
    ] * 2  # one of the first class is for training
    pair = pairs[0]
    assert pair.box_a == (2, 3, 12, 11) and pair.label_a == "Bird 1"
    assert int(pair.visible.sum()) == 4
    assert pair.points_a[1].tolist() == [2, 2]
    assert [each.name for each in pairs] == [
        each.name for each in load_dataset("cub", cub, pairs=2)
    ]


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("parts/part_locs.txt", "2 1 1.0 2.0 1", "2 1 nan 2.0 1", "finite"),
        ("parts/part_locs.txt", "2 1 1.0", "2 99 1.0", "parts are 1 to 15"),
        ("bounding_boxes.txt", "2 2.0", "2 x", "could not convert"),
        ("images.txt", "002.Bird_2/b0", "002.Bird_2/../../../b0", "not inside"),
    ],
)
def test_annotations_of_birds_that_are_wrong_are_named(
    cub: Path, file: str, old: str, new: str, told: str
) -> None:
    path = cub / "CUB_200_2011" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DatasetError, match=told):
        list(load_dataset("cub", cub))


@pytest.fixture
def jhmdb(tmp_path: Path) -> Path:
    for number in range(1, 5):
        image(tmp_path / f"Rename_Images/wave/v1/{number:05d}.png")
    joints = np.zeros((2, 15, 4))
    joints[0], joints[1] = 1 + np.arange(15)[:, None] + np.arange(4), 3
    joints[:, 14] = 500  # outside
    folder = tmp_path / "joint_positions/wave/v1"
    folder.mkdir(parents=True)
    savemat(folder / "joint_positions.mat", {"pos_img": joints})
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/wave_test_split1.txt").write_text("v1.avi 2\nv2.avi 1\n")
    return tmp_path


def test_frames_of_a_video_are_paired_with_their_joints(jhmdb: Path) -> None:
    pairs = load_dataset("jhmdb", jhmdb, apart=2)
    assert len(pairs) == 1 and pairs[0].name == "wave/v1/00001-00003"
    pair = pairs[0]
    assert pair.points_a[3].tolist() == [3, 2] and pair.points_b[3].tolist() == [5, 2]
    assert int(pair.visible.sum()) == 14
    assert load_dataset("jhmdb", jhmdb)[0].name == "wave/v1/00001-00004"
    (jhmdb / "splits/wave_test_split1.txt").write_text("../v1.avi 2\n")
    with pytest.raises(DatasetError, match="VIDEO NUMBER"):
        load_dataset("jhmdb", jhmdb)


def test_spair_u_takes_the_images_of_spair_beside_it(tmp_path: Path) -> None:
    layouts.spair(tmp_path)
    whole = next(path for path in tmp_path.rglob("PairAnnotation")).parent
    beside = whole.parent / "SPair-U"
    shutil.copytree(whole / "PairAnnotation", beside / "PairAnnotation")
    if whole.name != "SPair-71k":
        whole.rename(whole.parent / "SPair-71k")
    pairs = load_dataset("spair-u", whole.parent)
    assert pairs.name == "spair-u" and pairs[0].image_a.is_file()


@pytest.mark.parametrize(
    ("kind", "level"),
    [("blur", 1), ("noise", 0.1), ("jpeg", 10), ("light", 0.5), ("scale", 0.5), ("rotation", 30)],
)
def test_a_corrupted_image_shows_its_points_where_they_went(kind: str, level: float) -> None:
    pairs = load_dataset("folder", "examples/data")
    changed = CorruptedPairs(pairs, Corruption(kind=kind, level=level))
    pair, before = changed[0], pairs[0]
    assert pair.image_b != before.image_b and changed[0].image_b == pair.image_b
    pixels, old = (read_image(each)[0] for each in (pair.image_b, before.image_b))
    assert tuple(pixels.shape[1:]) == pair.size_b
    if kind == "scale":
        # Both pictures cover the same area: edges map onto edges.
        assert torch.allclose(pair.points_b, (before.points_b + 0.5) * 0.5 - 0.5)
    if kind == "rotation":
        for index in (5, 20):
            x, y = pair.points_b[index].round().int().tolist()
            u, v = before.points_b[index].round().int().tolist()
            around = [
                each[:, b - 4 : b + 5, a - 4 : a + 5]
                for each, a, b in ((pixels, x, y), (old, u, v))
            ]
            assert torch.allclose(around[0].mean((1, 2)), around[1].mean((1, 2)), atol=0.08)
    assert torch.equal(pair.points_a, before.points_a)


def test_a_corruption_that_is_none_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match=r"corrupt\.kind must be one of blur"):
        Corruption(kind="fog", level=1)
    with pytest.raises(InvalidArgumentError, match=r"corrupt\.level of jpeg must lie in \[1"):
        Corruption(kind="jpeg", level=0)


def test_levels_make_a_data_set_each() -> None:
    from kornia_ditf.study.define.listing import dataset_labels, open_dataset
    from kornia_ditf.study.define.parsing import parse_study
    from kornia_ditf.study.define.spec import Study

    text = """
    {name: curves, matchers: [sift], protocols: plain, datasets: [{name: folder,
     root: examples/data, corrupt: {kind: scale, level: [0.5, 1, 2]}}]}
    """
    study = parse_study(text)
    expected = ["folder, scale 0.5", "folder, scale 1", "folder, scale 2"]
    assert dataset_labels(study) == expected
    again = Study.model_validate(study.model_dump(mode="json"))
    assert dataset_labels(again) == expected
    opened: Any = open_dataset(study.datasets[0])
    assert opened[0].size_b == (256, 320)
    with pytest.raises(InvalidArgumentError, match=r"'datasets\[0\]\.corrupt\.level' is missing"):
        parse_study(text.replace("level:", "levels:"))


def write_navi(root: Path, *, angle: float = 40.0) -> Path:
    """Two views of a sphere's front, the second camera turned about the sphere's centre."""
    scene = root / "navi_v1.5" / "ball_one" / "wild_set"
    half = np.radians(angle) / 2
    size, focal, away, radius = (48, 64), 70.0, 400.0, 100.0
    views = []
    for name, q in (("000", (1.0, 0, 0, 0)), ("001", (np.cos(half), 0, np.sin(half), 0))):
        image(scene / "images" / f"{name}.jpg", size[::-1])
        y, x = np.mgrid[: size[0], : size[1]]
        rays = np.stack([(x - 31.5) / focal, (y - 23.5) / focal, np.ones(size)], 2)
        # The nearer point of each ray on the sphere around (0, 0, away).
        b, a = rays[..., 2] * away, (rays**2).sum(2)
        root_of = b**2 - a * (away**2 - radius**2)
        depth = np.where(root_of > 0, (b - np.sqrt(np.maximum(root_of, 0))) / a, np.inf)
        (scene / "depth").mkdir(exist_ok=True)
        values = (655350 / depth).round().astype(np.uint16)
        Image.fromarray(values).save(scene / "depth" / f"{name}.png")
        camera = {"q": [float(v) for v in q], "t": [0, 0, away], "focal_length": focal}
        views.append({"filename": f"{name}.jpg", "image_size": list(size), "camera": camera})
    (scene / "annotations.json").write_text(json.dumps(views))
    lists = root / "navi_v1.5/custom_splits/pairwise_pixel_correspondences"
    lists.mkdir(parents=True)
    names = [f"ball_one/wild_set/images/{name}.jpg" for name in ("000", "001")]
    (lists / "pairs-wild_set.txt").write_text(f"{names[0]} {names[1]} {angle}\n\n")
    return root


def test_points_of_navi_are_one_place_of_the_object_in_both_views(tmp_path: Path) -> None:
    pair = load_dataset("navi", write_navi(tmp_path), points=50)[0]
    assert (pair.category, pair.label_a, len(pair.points_a)) == (
        "030 to 060 degrees",
        "ball one",
        50,
    )
    angle = np.radians(40)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    for place_a, place_b in zip(pair.points_a.numpy(), pair.points_b.numpy(), strict=True):
        ray = np.array([(place_a[0] - 31.5) / 70, (place_a[1] - 23.5) / 70, 1])
        b, a = ray[2] * 400, ray @ ray
        on_object = ray * (b - np.sqrt(b**2 - a * (400**2 - 100**2))) / a - [0, 0, 400]
        seen = turn @ on_object + [0, 0, 400]
        assert np.abs(seen[:2] / seen[2] * 70 + [31.5, 23.5] - place_b).max() < 0.1
        assert seen[2] < 400  # what is behind the sphere is not seen


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("ball_one/wild_set/annotations.json", "[]", "has no image '000.jpg'"),
        ("ball_one/wild_set/annotations.json", "{}", "must be a list of objects"),
        ("ball_one/wild_set/annotations.json", '[{"filename": "000.jpg"}]', "'image_size'"),
        ("ball_one/wild_set/depth/000.png", "x", "the depth map cannot be read"),
        ("custom_splits/pairwise_pixel_correspondences/pairs-wild_set.txt", "\na b", "line 2: "),
        ("custom_splits/pairwise_pixel_correspondences/pairs-wild_set.txt", "a b nan", "line 1: "),
        (
            "custom_splits/pairwise_pixel_correspondences/pairs-wild_set.txt",
            "../a b 3",
            "not inside",
        ),
    ],
)
def test_a_malformed_file_of_navi_is_named(
    tmp_path: Path, name: str, content: str, told: str
) -> None:
    (write_navi(tmp_path) / "navi_v1.5" / name).write_text(content)
    with pytest.raises(DatasetError, match=told):
        load_dataset("navi", tmp_path)[0]
