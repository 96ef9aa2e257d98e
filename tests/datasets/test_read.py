"""Every data set is read from its published layout, and says what is wrong with a copy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
import torch

from kornia_ditf import load_dataset
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
