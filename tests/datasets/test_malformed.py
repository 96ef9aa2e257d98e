"""Annotations that are malformed, damaged or lead elsewhere, and images of another size."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
import torch
from mutations import mutate
from PIL import Image

from kornia_ditf import FrameSequence, load_dataset
from kornia_ditf.errors import DatasetError

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("value", [INF, -INF, NAN, -5, 10**400, "x", None, [], {}])
@pytest.mark.parametrize("field", ["bbox", "width", "height", "keypoint", "visibility"])
def test_odd_values_in_ap10k_are_named(tmp_path: Path, field: str, value: object) -> None:
    place = layouts.ap10k(tmp_path)
    path = min(place.glob("ImageAnnotation/Felidae/cat/*.json"))
    values = json.loads(path.read_text())
    if field == "bbox":
        values["bbox"][2] = value
    elif field == "keypoint":
        values["keypoints"][-3] = INF if value == -5 else value  # points may lie outside
    elif field == "visibility":
        values["keypoints"][-1] = value
    else:
        values[field] = value
    path.write_text(json.dumps(values))
    with pytest.raises(DatasetError) as caught:
        list(load_dataset("ap-10k", tmp_path))
    assert caught.value.file == path


@pytest.mark.parametrize("change", [{"width": 0}, {"height": True}, {"bbox": [3, 4, 0, 9]}])
def test_sizes_and_boxes_of_zero_in_ap10k_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    place = layouts.ap10k(tmp_path)
    path = min(place.glob("ImageAnnotation/Felidae/cat/*.json"))
    layouts.edit_json(path, **change)
    with pytest.raises(DatasetError, match=min(change)):
        list(load_dataset("ap-10k", tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"src_bndbox": [0, 0, INF, 9]},
        {"trg_bndbox": [0, NAN, 5, 9]},
        {"trg_bndbox": [5, 0, 0, 9]},
        {"src_imsize": [-4, 4, 3]},
        {"src_imsize": [4.5, 4, 3]},
        {"src_imsize": [True, 4, 3]},
        {"trg_kps": [[INF, 1]] * 8},
        {"kps_ids": 8},
    ],
)
def test_odd_values_in_spair_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    place = layouts.spair(tmp_path)
    path = min((place / "PairAnnotation/test").iterdir())
    layouts.edit_json(path, **change)
    with pytest.raises(DatasetError) as caught:
        _ = load_dataset("spair-71k", tmp_path)[0]
    assert caught.value.file == path


@pytest.mark.parametrize(
    "text",
    [
        "nan 0 0\n0 1 0\n0 0 1\n",
        "inf 0 0\n0 1 0\n0 0 1\n",
        "0 0 0\n0 0 0\n0 0 0\n",
        "1 2 3\n2 4 6\n0 0 1\n",
        "1 0 0 0\n0 1 0 0\n0 0 1 0\n",
        "1 0 0\n0 1 0\n0 0\n",
        "1 0 0\n0 1 0\n0 0 x\n",
    ],
)
def test_homographies_without_an_inverse_are_named(tmp_path: Path, text: str) -> None:
    place = layouts.hpatches(tmp_path)
    (place / "v_abstract/H_1_3").write_text(text)
    with pytest.raises(DatasetError, match="H_1_3"):
        list(load_dataset("hpatches", tmp_path))


def test_homographies_of_strong_scale_and_perspective_are_sound(tmp_path: Path) -> None:
    place = layouts.hpatches(tmp_path)
    for text in ("0.2 0 4800\n0 0.2 -900\n0 0 1\n", "9 0 -4e3\n0 9 0\n1e-3 -8e-4 1\n"):
        (place / "v_abstract/H_1_3").write_text(text)
        assert len(list(load_dataset("hpatches", tmp_path))) == 10


@pytest.mark.parametrize(
    "change",
    [
        {"box_b": [0, 0, INF, 9]},
        {"box_a": [5, 5, 5, 5]},
        {"box_b": [9, 0, 5, 5]},
        {"points_b": [[NAN, 1]]},
        {"points_a": [[1, 10**400]]},
        {"homography": [[0.0] * 3] * 3},
        {"homography": [[NAN] * 3] * 3},
        {"visible": [NAN]},
        {"visible": [-1]},
        {"visible": [2]},
        {"visible": [None]},
    ],
)
def test_odd_values_in_own_pairs_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    place = layouts.folder(tmp_path)
    entry = {"image_a": "0a.png", "image_b": "0b.png", "points_a": [[1, 2]], "points_b": [[1, 2]]}
    (place / "pairs.json").write_text(json.dumps([{**entry, **change}]))
    with pytest.raises(DatasetError, match=min(change)):
        _ = load_dataset("folder", place)[0]


@pytest.mark.parametrize("word", ["inf", "nan", "1e400", ""])
def test_odd_values_in_lists_are_named_with_their_line(tmp_path: Path, word: str) -> None:
    place = layouts.pf_pascal(tmp_path)
    layouts.pf_willow(tmp_path)
    layouts.folder(tmp_path)
    for name, path, root in (
        ("pf-pascal", place / "test_pairs_pf_pascal.csv", tmp_path),
        ("pf-willow", tmp_path / "test_pairs.csv", tmp_path),
        ("folder", tmp_path / "own/pairs.csv", tmp_path / "own"),
    ):
        lines = path.read_text().splitlines()
        cells = lines[1].split(",")
        cells[3] = cells[3].replace(cells[3].partition(";")[0], word, 1)
        path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]))
        with pytest.raises(DatasetError) as caught:
            _ = load_dataset(name, root)[0]
        assert caught.value.file == path


def test_infinite_keypoints_of_a_mat_file_are_not_taken_for_missing_ones(tmp_path: Path) -> None:
    from scipy.io import loadmat, savemat

    place = layouts.pf_pascal(tmp_path)
    path = min(place.glob("Annotations/aeroplane/*.mat"))
    kps = loadmat(path)["kps"]
    for row in ([np.inf, 5.0], [np.nan, 5.0]):
        kps[0] = row
        savemat(path, {"kps": kps})
        with pytest.raises(DatasetError, match="kps must be"):
            _ = load_dataset("pf-pascal", tmp_path, split="trn")[0]
    savemat(path, {"kps": np.array([["a", "b"]])})
    with pytest.raises(DatasetError, match="kps"):
        _ = load_dataset("pf-pascal", tmp_path, split="trn")[0]


def test_a_pair_of_a_plugin_is_checked_as_well(tmp_path: Path) -> None:
    pair = load_dataset("spair-71k", layouts.spair(tmp_path))[0]
    for change in (
        {"size_b": (0, 5)},
        {"box_b": (0.0, 0.0, INF, 5.0)},
        {"points_b": torch.full_like(pair.points_b, NAN)},
        {"visibility_a": -pair.visibility_a},
        {"homography": torch.zeros(3, 3)},
    ):
        with pytest.raises(DatasetError, match=min(change)):
            replace(pair, **change)  # type: ignore[arg-type]


OUTSIDE = ["../../../../outside.jpg", "/etc/hostname", "..\\..\\..\\outside.jpg", "C:/outside.jpg"]


@pytest.mark.parametrize("name", [*OUTSIDE, "", "a\0b", "x/../../../../../outside.jpg"])
def test_names_that_lead_outside_of_their_folder_are_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "data/sets"
    Image.new("RGB", (64, 48)).save(tmp_path / "outside.jpg")
    spair, ap10k = layouts.spair(root), layouts.ap10k(root)
    pascal, davis = layouts.pf_pascal(root), layouts.davis(root)
    layouts.pf_willow(root)
    own = layouts.folder(root)
    layouts.edit_json(min((spair / "PairAnnotation/test").iterdir()), src_imname=name)
    for path in (ap10k / "PairAnnotation/test").iterdir():
        layouts.edit_json(path, src_json_path=f"x/ImageAnnotation/{name}")
    for path in (pascal / "test_pairs_pf_pascal.csv", root / "test_pairs.csv"):
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], ",".join([f"x/{name}", *lines[1].split(",")[1:]])]))
    (own / "pairs.json").write_text(json.dumps([{"image_a": name, "image_b": "0b.png"}]))
    (davis / "ImageSets/2017/val.txt").write_text(name.replace("\0", "/../../") or "../x")
    for dataset in ("spair-71k", "ap-10k", "pf-pascal", "pf-willow", "davis-2017"):
        with pytest.raises(DatasetError):
            _ = load_dataset(dataset, root)[0]
    with pytest.raises(DatasetError):
        _ = load_dataset("folder", own)[0]


def test_links_in_a_data_set_are_followed(tmp_path: Path) -> None:
    place = layouts.spair(tmp_path)
    images = tmp_path / "elsewhere"
    (place / "JPEGImages").rename(images)
    (place / "JPEGImages").symlink_to(images)
    assert len(list(load_dataset("spair-71k", tmp_path))) == 6


def test_an_image_of_another_size_than_its_annotation_names_both(tmp_path: Path) -> None:
    spair, ap10k = layouts.spair(tmp_path), layouts.ap10k(tmp_path)
    for image in (*spair.glob("JPEGImages/*/*"), *ap10k.glob("JPEGImages/*/*/*")):
        Image.new("RGB", (33, 44)).save(image)
    for name in ("spair-71k", "ap-10k"):
        with pytest.raises(DatasetError, match=r"has 33 x 44 pixels, annotations say \d+ x \d+"):
            list(load_dataset(name, tmp_path))


def turn(path: Path) -> None:
    """Give an image an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.load()
    image.save(path, exif=exif)


def test_points_of_published_sets_are_of_the_stored_image_and_own_ones_of_the_upright(
    tmp_path: Path,
) -> None:
    places = layouts.spair(tmp_path), layouts.pf_pascal(tmp_path), layouts.folder(tmp_path)
    layouts.pf_willow(tmp_path)
    before = {
        name: [pair.size_a for pair in load_dataset(name, tmp_path)]
        for name in ("spair-71k", "pf-pascal", "pf-willow")
    }
    own = [pair.size_a for pair in load_dataset("folder", places[2])]
    for path in (*tmp_path.rglob("*.jpg"), *tmp_path.rglob("*.png")):
        turn(path)
    for name, sizes in before.items():
        assert [pair.size_a for pair in load_dataset(name, tmp_path)] == sizes
    assert [p.size_a[::-1] for p in load_dataset("folder", places[2])] == own


@pytest.mark.parametrize(
    ("name", "make", "pattern", "options"),
    [
        ("spair-71k", layouts.spair, "SPair-71k/PairAnnotation/test/*.json", {}),
        ("spair-71k", layouts.spair, "SPair-71k/Layout/small/test.txt", {"layout": "small"}),
        ("ap-10k", layouts.ap10k, "ap-10k/ImageAnnotation/*/*/*.json", {}),
        ("pf-pascal", layouts.pf_pascal, "*/test_pairs_pf_pascal.csv", {}),
        ("pf-pascal", layouts.pf_pascal, "*/Annotations/*/*.mat", {"split": "trn"}),
        ("pf-willow", layouts.pf_willow, "test_pairs.csv", {}),
        ("hpatches", layouts.hpatches, "*/*/H_1_2", {}),
        ("davis-2017", layouts.davis, "DAVIS/Annotations/480p/*/00001.png", {}),
        ("davis-2017", layouts.davis, "DAVIS/ImageSets/2017/val.txt", {}),
        ("folder", lambda root: layouts.folder(root.parent), "pairs.csv", {}),
    ],
)
def test_damaged_annotations_are_read_or_refused_by_one_kind_of_error(
    tmp_path: Path, name: str, make: Any, pattern: str, options: dict[str, str]
) -> None:
    make(tmp_path / "own")
    files = sorted((tmp_path / "own").glob(pattern))
    assert files
    for seed in range(40):
        path = files[seed % len(files)]
        content = path.read_bytes()
        path.write_bytes(mutate(content, np.random.default_rng([seed, len(pattern)])))
        try:
            dataset = load_dataset(name, tmp_path / "own", **options)
            for index in range(len(dataset)):
                with suppress(DatasetError):
                    item = dataset[index]
                    if isinstance(item, FrameSequence):
                        item.read_mask(1)
            list(dataset.defects())
        except DatasetError:
            pass
        path.write_bytes(content)
