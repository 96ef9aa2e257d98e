"""Matchers behind one interface: OpenCV's, Kornia's, descriptors', and those on disk."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from kornia_ditf import (
    ImageMatcher,
    Matches,
    find_matcher,
    list_descriptors,
    list_matchers,
    load_matcher,
)
from kornia_ditf.errors import (
    DatasetError,
    HubError,
    InvalidArgumentError,
    MatcherError,
    MissingExtraError,
    UnknownBackboneError,
)
from kornia_ditf.matchers import kornia_models
from kornia_ditf.matchers.base import MatcherSpec
from kornia_ditf.preprocess import read_image
from kornia_ditf.registry import hookspecs, lookup, plugins
from kornia_ditf.registry.matchers import missing_for

DATA = Path("examples/data")


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    return read_image(DATA / "graffiti_a.jpg")[:, :, 100:292, 100:356]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sift", {}),
        ("orb", {}),
        ("sift", {"verification": "homography"}),
        ("sift", {"long_side": 192}),
        ("nano", {"long_side": 128}),
        ("nano", {"detector": "sift", "max_keypoints": 300}),
    ],
)
def test_a_moved_photograph_is_matched_where_it_moved_to(
    name: str, options: dict[str, Any], photograph: Tensor
) -> None:
    a, b = photograph[..., :160, :224], photograph[..., 32:, 32:]
    matches = load_matcher(name, **options).match(a, b)
    moved, allowed = matches.points_a - matches.points_b, 2 if name == "nano" else 0.5
    right = (moved - 32).abs().amax(1) < 4
    assert len(matches) > 20
    assert float(right.float().mean()) > 0.6
    assert moved[right].median(0).values.tolist() == pytest.approx([32, 32], abs=allowed)


def test_features_of_one_image_serve_many_pairs(photograph: Tensor) -> None:
    matcher = load_matcher("sift")
    kept = matcher.extract(photograph)
    again = matcher.match(kept, photograph)
    assert torch.equal(again.points_a, matcher.match(photograph, photograph).points_a)
    assert len(again) > 20


def test_an_image_without_features_gives_no_matches() -> None:
    for name in ("sift", "orb"):
        assert len(load_matcher(name).match(torch.zeros(3, 64, 64), torch.zeros(3, 64, 64))) == 0


@pytest.mark.parametrize("name", ["disk", "aliked", "xfeat", "disk-lightglue"])
def test_kornias_models_run_with_random_weights_alike(name: str, photograph: Tensor) -> None:
    small = photograph[..., :64, :64]
    first, second = (
        load_matcher(name, random_weights=True, max_keypoints=32).match(small, small)
        for _ in range(2)
    )
    assert torch.equal(first.points_a, second.points_a)
    assert bool(torch.isfinite(first.scores).all())
    if name == "disk":
        assert torch.equal(first.points_a, first.points_b)


def test_loftr_runs_with_random_weights(photograph: Tensor) -> None:
    matches = load_matcher("loftr", random_weights=True).match(
        photograph[..., :60, :90], photograph[..., :64, :64]
    )
    assert matches.points_a.shape == matches.points_b.shape


def test_missing_weights_are_named_and_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("kornia.feature.disk.disk.load_state_dict_from_url", refuse)
    with pytest.raises(HubError, match=r"Kornia's disk.*no network.*random_weights=true"):
        load_matcher("disk")


def test_what_an_installation_lacks_is_said_before_loading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cv2.ORB_create", None)
    monkeypatch.delattr("cv2.ORB_create")
    assert "has no ORB" in list_matchers()["orb"].lacks()
    with pytest.raises(MissingExtraError, match="orb cannot be loaded: OpenCV .* has no ORB"):
        load_matcher("orb")
    monkeypatch.setattr(kornia_models, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="has no LoFTR"):
        load_matcher("loftr", random_weights=True)
    monkeypatch.setitem(sys.modules, "vismatch", None)
    with pytest.raises(MissingExtraError, match="pip install vismatch"):
        load_matcher("vismatch:roma")


def test_an_unknown_matcher_or_option_is_named() -> None:
    with pytest.raises(UnknownBackboneError, match="did you mean 'sift'"):
        load_matcher("sitf")
    with pytest.raises(InvalidArgumentError, match=r"sift has no option 'ratios'.*'ratio'"):
        load_matcher("sift", ratios=0.8)
    with pytest.raises(InvalidArgumentError, match="verification must be one of homography"):
        load_matcher("sift", verification="magsac")


def test_vismatch_matchers_come_through_one_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def __call__(self, a: Tensor, b: Tensor) -> dict[str, Any]:
            assert a.shape == (3, 32, 40)
            found = np.array([[1.0, 2.0], [3.0, 4.0]])
            return {"matched_kpts0": found, "matched_kpts1": found + 1, "matched_confidences": None}

    fake = SimpleNamespace(available_models=["roma"], get_matcher=lambda name, device: Model())
    fake.__spec__ = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "vismatch", fake)  # type: ignore[arg-type]
    assert "vismatch:roma" in list_matchers()
    matches = load_matcher("vismatch:roma").match(torch.rand(3, 32, 40), torch.rand(3, 32, 40))
    assert matches.points_b.tolist() == [[2, 3], [4, 5]]


@pytest.fixture
def stored(tmp_path: Path) -> dict[str, str]:
    with h5py.File(tmp_path / "features.h5", "w") as file:
        for name, points in (("db/a.jpg", [[1, 2], [3, 4]]), ("db/b.jpg", [[5, 6], [7, 8]])):
            file.create_dataset(f"{name}/keypoints", data=np.array(points, np.float16))
    with h5py.File(tmp_path / "matches.h5", "w") as file:
        group = file.create_group("db-a.jpg/db-b.jpg")
        group["matches0"] = np.array([-1, 0], np.int32)
        group["matching_scores0"] = np.array([0, 0.5], np.float16)
    return {kind: str(tmp_path / f"{kind}.h5") for kind in ("features", "matches")}


def test_matches_of_hloc_are_read_in_either_order(stored: dict[str, str]) -> None:
    matcher = load_matcher("hloc", **stored)
    image = torch.rand(3, 16, 16)
    a, b = (matcher.extract(image, f"some/where/db/{name}.jpg") for name in "ab")
    assert matcher.match(a, b).points_a.tolist() == [[3, 4]]
    assert matcher.match(a, b).points_b.tolist() == [[5, 6]]
    assert matcher.match(b, a).points_a.tolist() == [[5, 6]]
    assert matcher.match(a, b).scores.tolist() == [0.5]


def test_a_stored_match_that_is_missing_or_damaged_is_named(
    stored: dict[str, str], tmp_path: Path
) -> None:
    matcher = load_matcher("hloc", **stored)
    with pytest.raises(DatasetError, match=r"no image 'c\.jpg'"):
        matcher.extract(torch.rand(3, 16, 16), "c.jpg")
    a = matcher.extract(torch.rand(3, 16, 16), "db/a.jpg")
    with pytest.raises(DatasetError, match="no pair"):
        matcher.match(a, a)
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(DatasetError, match="no HDF5"):
        load_matcher("hloc", features=tmp_path / "text.h5", matches=stored["matches"])
    with h5py.File(tmp_path / "wrong.h5", "w") as file:
        file["db-a.jpg/db-b.jpg/matches0"] = np.array([9, 0])
    wrong = load_matcher("hloc", features=stored["features"], matches=tmp_path / "wrong.h5")
    b = wrong.extract(torch.rand(3, 16, 16), "db/b.jpg")
    with pytest.raises(DatasetError, match="no keypoint 9"):
        wrong.match(a, b)


class Wrong(ImageMatcher):
    """Gives what it was told to."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    def compare(self, features_a: Any, features_b: Any) -> Matches:
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "must return Matches, got a NoneType"),
        (Matches(torch.zeros(2, 2), torch.zeros(3, 2), torch.ones(2)), "shape"),
        (Matches(torch.full((2, 2), torch.nan), torch.zeros(2, 2), torch.ones(2)), "NaN"),
        (Matches(torch.zeros(2, 2), torch.zeros(2, 2), torch.full((2,), torch.nan)), "NaN"),
        (Matches(torch.zeros(2, 2), torch.zeros(2, 2) + 1j, torch.ones(2)), "complex numbers"),
        (Matches(torch.zeros(2, 2), torch.full((2, 2), -99.0), torch.ones(2)), r"\(-99.*outside"),
    ],
)
def test_answers_that_are_no_matches_are_refused(answer: Any, told: str) -> None:
    with pytest.raises(MatcherError, match=told):
        Wrong(answer).match(torch.rand(3, 16, 16), torch.rand(3, 16, 16))


def test_a_plugin_can_register_matchers(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = MatcherSpec(name="wrong", load=Wrong, source="a test", license="CC0")
    module = ModuleType("plugin")

    @hookspecs.hookimpl
    def register_matchers() -> list[MatcherSpec]:
        return [spec]

    module.register_matchers = register_matchers  # type: ignore[attr-defined]
    entry = SimpleNamespace(name="wrong", load=lambda: module)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    lookup.forget_plugins()
    try:
        assert find_matcher("wrong") is spec
        assert isinstance(load_matcher("wrong", threshold=2), Wrong)
        assert "wrong" not in list_descriptors()
    finally:
        monkeypatch.undo()
        lookup.forget_plugins()


def test_features_in_the_contrib_modules_of_opencv_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import cv2

    monkeypatch.delattr(cv2, "AKAZE_create", raising=False)
    monkeypatch.setattr(cv2, "xfeatures2d", SimpleNamespace(), raising=False)
    told = missing_for(find_matcher("akaze"))
    assert "has no AKAZE without its contrib modules: pip uninstall -y opencv-" in told
    assert told.endswith(("opencv-contrib-python", "opencv-contrib-python-headless"))
    monkeypatch.setattr(cv2.xfeatures2d, "AKAZE_create", cv2.ORB_create, raising=False)
    assert missing_for(find_matcher("akaze")) == ""
    image = torch.rand(3, 64, 96)
    assert len(load_matcher("akaze").match(image, image).scores) > 0
