"""A copy of a data set is recognised, counted, and its defects are named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import layouts
import numpy as np
import pytest
from PIL import Image

from kornia_ditf.datasets.checking import CheckReport, check_dataset, recognise
from kornia_ditf.registry.datasets import find_dataset, list_datasets

MAKERS: dict[str, Callable[..., Path]] = {
    "spair-71k": layouts.spair,
    "ap-10k": layouts.ap10k,
    "pf-pascal": layouts.pf_pascal,
    "pf-willow": layouts.pf_willow,
    "hpatches": layouts.hpatches,
    "davis-2017": layouts.davis,
    "folder": layouts.folder,
}


def check(root: Path) -> CheckReport:
    spec = recognise(root, list_datasets().values())
    assert spec is not None
    return check_dataset(spec, root)


@pytest.mark.parametrize("name", MAKERS)
def test_a_whole_copy_is_recognised_and_has_no_defects(tmp_path: Path, name: str) -> None:
    place = MAKERS[name](tmp_path)
    for root in {place, tmp_path if name != "folder" else place}:
        if name == "pf-willow" and root == place:
            continue  # its list lies beside the folder
        report = check(root)
        assert report.dataset == name
        assert report.defects == []
        assert all(count.pairs for count in report.splits)


def test_pairs_points_categories_and_images_are_counted(tmp_path: Path) -> None:
    layouts.spair(tmp_path)
    report = check(tmp_path)
    (count,) = report.splits
    pairs = find_dataset("spair-71k").load(tmp_path)
    assert (count.split, count.pairs, report.images) == ("test", 6, 6)
    assert count.points == sum(len(pair.points_a) for pair in pairs)
    assert count.categories == {"cat": 3, "train": 3}
    kinds = {each.split: each.pairs for each in check(layouts.ap10k(tmp_path)).splits}
    assert kinds == {
        "trn": 3,
        "val": 3,
        "test": 3,
        **{
            f"{split}_{kind}": 1
            for split in ("val", "test")
            for kind in ("cross_species", "cross_family")
        },
    }


def test_every_defect_is_named_and_the_rest_still_counted(tmp_path: Path) -> None:
    place = layouts.spair(tmp_path)
    pairs = sorted((place / "PairAnnotation/test").iterdir())
    images = sorted((place / "JPEGImages/train").iterdir())
    pairs[0].write_text("{")
    layouts.edit_json(pairs[1], trg_kps=[[1, 1]])
    images[0].write_bytes(images[0].read_bytes()[:200])
    Image.fromarray(np.zeros((9, 11, 3), np.uint8)).save(images[1])
    report = check(tmp_path)
    named = {Path(defect.file): defect.reason for defect in report.defects}
    assert set(named) == {pairs[0], pairs[1], images[0], images[1]}
    assert "not JSON" in named[pairs[0]] and "must be as many" in named[pairs[1]]
    assert "cut short" in named[images[0]] or "damaged" in named[images[0]]
    assert "it has 11 x 9 pixels, annotations say" in named[images[1]]
    assert report.splits[0].pairs == 1


def test_a_missing_image_is_named_once_however_many_pairs_have_it(tmp_path: Path) -> None:
    place = layouts.spair(tmp_path, pairs=6)
    path = min((place / "JPEGImages/cat").iterdir())
    path.unlink()
    (defect,) = check(tmp_path).defects
    assert defect.file == str(path)


def test_lists_and_annotations_that_no_pair_needs_are_read_too(tmp_path: Path) -> None:
    place = layouts.spair(tmp_path)
    small = place / "Layout/small/test.txt"
    small.write_text("000999-a-b:cat\n")
    annotation = min((place / "ImageAnnotation/cat").iterdir())
    layouts.edit_json(annotation, kps=None)
    named = {Path(defect.file).name: defect.reason for defect in check(tmp_path).defects}
    assert "names 000999-a-b:cat, which is not in PairAnnotation/test" in named["test.txt"]
    assert "has no 'kps'" in named[annotation.name]


def test_animals_with_too_few_shared_points_are_named(tmp_path: Path) -> None:
    place = layouts.ap10k(tmp_path)
    path = min(place.glob("ImageAnnotation/Canidae/dog/*.json"))
    layouts.edit_json(path, keypoints=[5, 5, 2] + [0] * 48)
    reasons = [defect.reason for defect in check(tmp_path).defects]
    assert reasons and all("visible in both images" in reason for reason in reasons)


def test_masks_that_are_missing_or_of_another_size_are_named(tmp_path: Path) -> None:
    place = layouts.davis(tmp_path)
    masks = place / "Annotations/480p/bear"
    (masks / "00003.png").unlink()
    Image.fromarray(np.zeros((9, 11), np.uint8)).save(masks / "00002.png")
    (place / "JPEGImages/480p/two-dogs/00004.jpg").unlink()
    named = {Path(defect.file).name: defect.reason for defect in check(tmp_path).defects}
    assert "its mask is there" in named["00004.jpg"]
    assert "has no mask" in named["00003.jpg"]
    assert "it has 11 x 9 pixels" in named["00002.png"]


def test_a_copy_that_lacks_a_folder_is_recognised_by_its_name(tmp_path: Path) -> None:
    shutil.rmtree(layouts.spair(tmp_path) / "JPEGImages")
    (defect,) = check(tmp_path / "SPair-71k").defects
    assert (
        defect.file.endswith("SPair-71k/JPEGImages") and "there is no such folder" in defect.reason
    )


def test_what_is_no_data_set_is_none(tmp_path: Path) -> None:
    assert recognise(tmp_path, list_datasets().values()) is None


def test_an_orientation_that_protocols_ignore_is_no_defect(tmp_path: Path) -> None:
    place = layouts.spair(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in place.glob("JPEGImages/*/*.jpg"):
        with Image.open(path) as image:
            image.load()
        image.save(path, exif=exif)
    assert check(tmp_path).defects == []
