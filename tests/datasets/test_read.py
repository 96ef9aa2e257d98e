"""Every data set is read from its published layout, and says what is wrong with a copy."""

from __future__ import annotations

import json
import shutil
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
from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.errors import DatasetError, InvalidArgumentError


def check(pair: Pair) -> None:
    """What must hold for any pair."""
    assert pair.image_a.is_file() and pair.image_b.is_file()
    assert pair.points_a.dtype == pair.points_b.dtype == torch.float64
    assert len(pair.points_a) == len(pair.visibility_a)
    assert len(pair.points_b) == len(pair.visibility_b)
    for points, size in ((pair.points_a, pair.size_a), (pair.points_b, pair.size_b)):
        assert bool((points >= 0).all() and (points <= torch.tensor(size[::-1])).all())


class TestSPair:
    def test_a_pair_holds_what_its_file_holds(self, tmp_path: Path) -> None:
        place = layouts.spair(tmp_path)
        pairs = load_dataset("spair-71k", tmp_path)
        files = sorted((place / "PairAnnotation/test").iterdir())
        assert len(pairs) == len(files) == 6
        assert pairs.categories == ("cat", "train")
        for pair, path in zip(pairs, files, strict=True):
            check(pair)
            values = json.loads(path.read_text())
            assert pair.name == f"test/{path.stem}"
            assert pair.points_a.tolist() == values["src_kps"]
            assert pair.points_b.tolist() == values["trg_kps"]
            assert pair.box_b == tuple(values["trg_bndbox"])
            assert pair.size_b == (values["trg_imsize"][1], values["trg_imsize"][0])
            assert pair.image_a.name == values["src_imname"]
            assert (pair.category, pair.label_a) == (values["category"],) * 2

    def test_the_folder_itself_can_be_named_and_images_are_listed_once(
        self, tmp_path: Path
    ) -> None:
        pairs = load_dataset("spair-71k", layouts.spair(tmp_path))
        images = pairs.images()
        assert len(images) == 6 and set(images.values()) == {"cat", "train"}

    def test_a_layout_takes_the_pairs_that_its_list_names(self, tmp_path: Path) -> None:
        layouts.spair(tmp_path)
        counts = [
            len(load_dataset("spair-71k", tmp_path, layout=each)) for each in ("large", "small")
        ]
        assert counts == [6, 3]

    def test_making_it_reads_no_pair(self, tmp_path: Path) -> None:
        place = layouts.spair(tmp_path)
        path = min((place / "PairAnnotation/test").iterdir())
        path.write_text("{")
        pairs = load_dataset("spair-71k", tmp_path)
        assert pairs[1].category == "cat"
        with pytest.raises(DatasetError, match="not JSON"):
            _ = pairs[0]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"trg_bndbox": None}, "no 'trg_bndbox'"),
            ({"trg_kps": [[1, 2]]}, "must be as many"),
            ({"trg_kps": "none"}, "wrong value"),
            ({"src_kps": [[1, "x"]]}, "must be a list of"),
            ({"category": "dog"}, "not 'cat'"),
            ({"trg_bndbox": [5, 5, 5, 9]}, "left, top, right, bottom"),
            ({"src_imsize": [0, 4, 3]}, "must be width and height in pixels"),
        ],
    )
    def test_a_malformed_pair_is_named(
        self, tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        place = layouts.spair(tmp_path)
        path = min((place / "PairAnnotation/test").iterdir())
        layouts.edit_json(path, **change)
        with pytest.raises(DatasetError, match=message) as caught:
            _ = load_dataset("spair-71k", tmp_path)[0]
        assert caught.value.file == path

    def test_a_missing_image_is_named_with_how_to_get_it(self, tmp_path: Path) -> None:
        place = layouts.spair(tmp_path)
        path = min((place / "JPEGImages/cat").iterdir())
        path.unlink()
        with pytest.raises(DatasetError, match=r"no such image.*SPair-71k.tar.gz"):
            list(load_dataset("spair-71k", tmp_path))

    @pytest.mark.parametrize("missing", ["JPEGImages", "PairAnnotation"])
    def test_a_missing_folder_is_named(self, tmp_path: Path, missing: str) -> None:
        shutil.rmtree(layouts.spair(tmp_path) / missing)
        with pytest.raises(DatasetError, match=f"SPair-71k/{missing}: it is not there"):
            load_dataset("spair-71k", tmp_path)

    @pytest.mark.parametrize("sign", ["_", "\uf03a", "%3A"])
    def test_names_unpacked_without_colons_are_understood(self, tmp_path: Path, sign: str) -> None:
        place = layouts.spair(tmp_path)
        for path in list((place / "PairAnnotation/test").iterdir()):
            path.rename(path.with_name(path.name.replace(":", sign)))
        assert load_dataset("spair-71k", tmp_path).categories == ("cat", "train")


class TestAP10K:
    def test_a_pair_holds_17_points_of_each_animal(self, tmp_path: Path) -> None:
        place = layouts.ap10k(tmp_path)
        pairs = load_dataset("ap-10k", tmp_path)
        assert pairs.categories == ("cat", "dog", "lion")
        for pair in pairs:
            check(pair)
            (path,) = place.glob(f"ImageAnnotation/*/*/{pair.image_b.stem}.json")
            values = json.loads(path.read_text())
            flat = torch.cat([pair.points_b, 2 * pair.visibility_b[:, None]], 1).flatten()
            assert flat.tolist() == values["keypoints"]
            left, top, width, height = values["bbox"]
            assert pair.box_b == (left, top, left + width, top + height)
            assert pair.visible.sum() == sum(
                a > 0 and b > 0 for a, b in zip(pair.visibility_a, pair.visibility_b, strict=True)
            )

    def test_pairs_across_species_and_families_have_their_own_labels(self, tmp_path: Path) -> None:
        layouts.ap10k(tmp_path)
        (species,) = load_dataset("ap-10k", tmp_path, split="test_cross_species")
        (family,) = load_dataset("ap-10k", tmp_path, split="test_cross_family")
        assert (species.category, species.label_a, species.label_b) == ("Felidae", "cat", "lion")
        assert (family.category, family.label_a, family.label_b) == ("all", "cat", "dog")

    def test_a_keypoint_too_few_is_named(self, tmp_path: Path) -> None:
        place = layouts.ap10k(tmp_path)
        path = min(place.glob("ImageAnnotation/Felidae/cat/*.json"))
        layouts.edit_json(path, keypoints=[0] * 48)
        with pytest.raises(DatasetError, match="17 times x, y, v, got 48"):
            list(load_dataset("ap-10k", tmp_path))


class TestPFPascal:
    def test_points_come_from_the_list(self, tmp_path: Path) -> None:
        layouts.pf_pascal(tmp_path)
        pairs = load_dataset("pf-pascal", tmp_path)
        assert pairs.categories == ("aeroplane", "dog")
        for pair in pairs:
            check(pair)
            assert len(pair.points_a) == 6 and bool((pair.points_a % 1 == 0.5).all())

    def test_points_come_from_annotations_where_the_list_has_none(self, tmp_path: Path) -> None:
        layouts.pf_pascal(tmp_path)
        pairs = load_dataset("pf-pascal", tmp_path, split="trn")
        listed = load_dataset("pf-pascal", tmp_path)
        for pair, same in zip(pairs, listed, strict=True):
            assert pair.visible.tolist() == [True] * 5 + [False]  # the last is NaN there
            assert torch.equal(pair.points_a[:5] + 0.5, same.points_a[:5])

    def test_a_damaged_annotation_is_named(self, tmp_path: Path) -> None:
        place = layouts.pf_pascal(tmp_path)
        min(place.glob("Annotations/aeroplane/*.mat")).write_bytes(b"no")
        with pytest.raises(DatasetError, match="not a MATLAB file"):
            _ = load_dataset("pf-pascal", tmp_path, split="trn")[0]

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            (";", " ", "equally many numbers"),
            (",1,", ",0,", "1 to 20"),
            ("class", "klass", "no column 'class'"),
        ],
    )
    def test_a_malformed_list_is_named(
        self, tmp_path: Path, old: str, new: str, message: str
    ) -> None:
        path = layouts.pf_pascal(tmp_path) / "test_pairs_pf_pascal.csv"
        path.write_text(path.read_text().replace(old, new, 1))
        with pytest.raises(DatasetError, match=message):
            _ = load_dataset("pf-pascal", tmp_path)[0]


class TestPFWillow:
    @pytest.mark.parametrize("inside", [True, False])
    def test_points_are_ten_x_and_then_ten_y(self, tmp_path: Path, inside: bool) -> None:
        place = layouts.pf_willow(tmp_path)
        line = (tmp_path / "test_pairs.csv").read_text().splitlines()[1].split(",")
        if inside:
            shutil.move(tmp_path / "test_pairs.csv", place)
        for root in (tmp_path, place):
            pair = load_dataset("pf-willow", root)[0]
            check(pair)
            assert pair.category == "car(G)" and pair.label_a == "car"
            assert pair.points_a[:, 0].tolist() == [float(cell) for cell in line[2:12]]
            assert pair.points_a[:, 1].tolist() == [float(cell) for cell in line[12:22]]
            assert pair.points_b[:, 1].tolist() == [float(cell) for cell in line[32:]]

    def test_a_short_line_is_named(self, tmp_path: Path) -> None:
        layouts.pf_willow(tmp_path)
        path = tmp_path / "test_pairs.csv"
        path.write_text(path.read_text().rsplit(",", 1)[0] + "\n")
        with pytest.raises(DatasetError, match="line 3"):
            list(load_dataset("pf-willow", tmp_path))


class TestHPatches:
    def test_each_sequence_pairs_its_first_image_with_the_others(self, tmp_path: Path) -> None:
        layouts.hpatches(tmp_path)
        pairs = load_dataset("hpatches", tmp_path)
        assert len(pairs) == 10 and pairs.categories == ("illumination", "viewpoint")
        for pair in pairs:
            check(pair)
            number = int(pair.image_b.stem)
            assert pair.homography is not None
            expected = [[1, 0.01, number], [0, 1, -number], [1e-5, 0, 1]]
            assert torch.allclose(pair.homography, torch.tensor(expected).double())
            assert pair.size_a == (61, 80) and pair.size_b == (60 + number, 80)

    def test_large_sequences_stay_only_when_asked_for(self, tmp_path: Path) -> None:
        layouts.hpatches(tmp_path)
        assert len(load_dataset("hpatches", tmp_path, large=True)) == 15
        assert len(load_dataset("hpatches", tmp_path, split="viewpoint")) == 5

    def test_keypoints_of_both_images_are_read(self, tmp_path: Path) -> None:
        layouts.hpatches(tmp_path, keypoints=9)
        pairs = load_dataset("hpatches", tmp_path, keypoints=tmp_path / "superpoint-1k")
        known = np.loadtxt(tmp_path / "superpoint-1k/i_ajuntament-2.kp")
        assert np.array_equal(pairs[0].points_b.numpy(), known)
        assert pairs[0].visible.sum() == 9

    def test_a_malformed_homography_is_named(self, tmp_path: Path) -> None:
        place = layouts.hpatches(tmp_path)
        (place / "v_abstract/H_1_3").write_text("1 0 0\n0 1 0\n")
        with pytest.raises(DatasetError, match=r"H_1_3: it must be 3 x 3 finite numbers"):
            list(load_dataset("hpatches", tmp_path))


class TestDavis:
    def test_frames_and_masks_come_in_order(self, tmp_path: Path) -> None:
        layouts.davis(tmp_path)
        videos = load_dataset("davis-2017", tmp_path)
        assert [video.name for video in videos] == ["bear", "two-dogs"]
        assert [len(video) for video in videos] == [5, 5]
        assert len(videos.images()) == 10
        mask = videos[1].read_mask(0)
        assert mask.dtype == torch.uint8 and mask.unique().tolist() == [0, 1, 2, 255]

    def test_a_missing_frame_is_named(self, tmp_path: Path) -> None:
        place = layouts.davis(tmp_path)
        (place / "JPEGImages/480p/bear/00002.jpg").unlink()
        with pytest.raises(DatasetError, match=r"bear/00002.jpg: this frame is missing"):
            _ = load_dataset("davis-2017", tmp_path)[0]

    def test_a_mask_in_colours_is_refused(self, tmp_path: Path) -> None:
        place = layouts.davis(tmp_path)
        path = place / "Annotations/480p/bear/00001.png"
        layouts.Image.open(path).convert("RGB").save(path)
        with pytest.raises(DatasetError, match=r"00001.png: it holds colours"):
            load_dataset("davis-2017", tmp_path)[0].read_mask(1)


class TestFolder:
    def test_rows_with_the_same_images_are_one_pair(self, tmp_path: Path) -> None:
        pairs = load_dataset("folder", layouts.folder(tmp_path))
        assert len(pairs) == 2 and pairs.categories == ("kind0", "kind1")
        for pair in pairs:
            check(pair)
            assert len(pair.points_a) == 5 and bool(pair.visible.all())

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ({"image_a": "0a.png"}, "must have image_a and image_b"),
            ({"points": []}, "has 'points'; known are"),
            ({"points_a": [[1, 2]], "points_b": []}, "1 points_a for 0 points_b"),
            ({"box_b": [1, 2, 3]}, "box_b must be"),
            ({"box_b": [1, 2, 1, 4]}, "box_b must be"),
            ({"homography": [[1, 0], [0, 1]]}, "homography must be 3 x 3"),
            ({"visible": [1, 0]}, "one number for each point"),
            ({"visible": "yes"}, "one number for each point"),
            ({"box_b": 4}, "box_b must be"),
            ({"image_b": "absent.png"}, "no such image"),
        ],
    )
    def test_a_malformed_entry_is_named(
        self, tmp_path: Path, entry: dict[str, Any], message: str
    ) -> None:
        place = layouts.folder(tmp_path)
        whole = {"image_a": "0a.png", "image_b": "0b.png"} if entry != {"image_a": "0a.png"} else {}
        (place / "pairs.json").write_text(json.dumps([{**whole, **entry}]))
        with pytest.raises(DatasetError, match=message):
            _ = load_dataset("folder", place)[0]

    def test_pairs_of_one_name_are_refused(self, tmp_path: Path) -> None:
        place = layouts.folder(tmp_path)
        entry = {"name": "same", "image_a": "0a.png", "image_b": "0b.png"}
        (place / "pairs.json").write_text(json.dumps({"pairs": [entry, entry]}))
        with pytest.raises(DatasetError, match="2 pairs have the name 'same'"):
            load_dataset("folder", place)

    def test_a_number_that_is_none_is_named_with_its_line(self, tmp_path: Path) -> None:
        path = layouts.folder(tmp_path) / "pairs.csv"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines, "0a.png,0b.png,1,2,x,4,kind0"]))
        with pytest.raises(DatasetError, match=f"line {len(lines) + 1}"):
            load_dataset("folder", path.parent)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("spair-71k", "ap-10k", "pf-pascal", "pf-willow", "hpatches", "davis-2017"):
        with pytest.raises(DatasetError, match=r"absent: there is no such folder.*Get "):
            load_dataset(name, tmp_path / "absent")


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    for name, make in (("spair-71k", layouts.spair), ("davis-2017", layouts.davis)):
        make(tmp_path)
        with pytest.raises(DatasetError, match="split"):
            load_dataset(name, tmp_path, split="exam")


def test_an_unknown_data_set_or_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="did you mean 'spair-71k'"):
        load_dataset("spair71k", tmp_path)
    with pytest.raises(InvalidArgumentError, match="no option 'fold'"):
        load_dataset("spair-71k", tmp_path, fold=1)


def test_pairs_are_taken_like_those_of_a_list(tmp_path: Path) -> None:
    pairs = load_dataset("spair-71k", layouts.spair(tmp_path))
    assert pairs[-1].name == pairs[5].name
    assert [pair.name for pair in pairs[4:]] == [pairs[4].name, pairs[5].name]
    with pytest.raises(IndexError):
        _ = pairs[6]


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
