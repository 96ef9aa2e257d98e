"""`kornia-ditf match`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

import kornia_ditf
from kornia_ditf.errors import OutputError
from kornia_ditf.loading import calibration
from kornia_ditf.viz import matches as picture

Run = Callable[..., Result]
RunJson = Callable[..., Any]

EXAMPLE_DATA = Path(__file__).parents[2] / "examples" / "data"


def test_json_holds_what_the_library_finds(
    run_json: RunJson, images: list[Path], model: Path
) -> None:
    found = run_json("match", images[0], images[1], "-b", model, "--long-side", 48, "--seed", 3)
    ditf = kornia_ditf.create_descriptor(model, long_side=48, seed=3, massive_channels=())
    expected = kornia_ditf.match_images(images[0], images[1], ditf).matches
    np.testing.assert_allclose(found["points_a"], expected.points_a, atol=1e-3)
    np.testing.assert_allclose(found["points_b"], expected.points_b, atol=1e-3)
    np.testing.assert_allclose(found["scores"], expected.scores, atol=1e-5)
    assert found["images"]["a"]["size"] == [48, 64]
    assert found["backbone"]["seed"] == 3 and not found["backbone"]["embedded_default"]


def test_an_image_matched_with_itself_is_explained_by_the_identity(
    run_json: RunJson, images: list[Path], model: Path
) -> None:
    found = run_json("match", images[0], images[0], "-b", model, "--long-side", 0)
    assert found["points_a"] == found["points_b"] and len(found["points_a"]) == 16 * 12
    np.testing.assert_allclose(found["homography"]["matrix"], np.eye(3), atol=1e-2)
    assert all(found["homography"]["inliers"])


def test_files_are_written_and_named(
    run: Run, images: list[Path], model: Path, tmp_path: Path
) -> None:
    drawn, values = tmp_path / "m.png", tmp_path / "m.json"
    files = ("--picture", drawn, "--out", values)
    result = run("match", *images[:2], "-b", model, "--long-side", 48, *files)
    assert result.exit_code == 0, result.stderr
    assert f"{drawn}, {values}" in result.stdout
    with Image.open(drawn) as shown:
        assert shown.width >= 500
    document = json.loads(values.read_text())
    assert f"{len(document['scores'])}; similarity" in result.stdout
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_embedded_default_is_said_to_be_it(run: Run, images: list[Path]) -> None:
    result = run("match", *images[:2], "--long-side", 32)
    assert result.exit_code == 0, result.stderr
    assert "nano (the embedded default; name another with --backbone)" in result.stdout


@pytest.mark.slow
def test_two_views_of_a_wall_give_their_homography_and_the_time(run: Run, tmp_path: Path) -> None:
    wall = [EXAMPLE_DATA / f"graffiti_{side}.jpg" for side in "ab"]
    result = run("match", *wall, "--json-file", tmp_path / "wall.json")
    assert result.exit_code == 0, result.stderr
    assert "A to B" in result.stdout and "homography" in result.stdout
    assert " in all" in result.stdout
    found = json.loads((tmp_path / "wall.json").read_text())["homography"]["matrix"]
    true = json.loads((EXAMPLE_DATA / "graffiti.json").read_text())["homography_a_to_b"]
    corners = np.array([[[0, 0], [640, 0], [640, 512], [0, 512]]], np.float64)
    moved = [cv2.perspectiveTransform(corners, np.array(matrix))[0] for matrix in (found, true)]
    assert np.linalg.norm(moved[0] - moved[1], axis=1).mean() < 4


def test_massive_channels_are_found_on_both_images_and_not_kept(
    run_json: RunJson, images: list[Path], massive_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "save", lambda *_: pytest.fail("kept on disk"))
    found = run_json("match", *images[:2], "-b", massive_model, "--long-side", 48)["backbone"]
    assert found["massive_channels"] == [7, 19]
    assert found["massive_channels_from"] == "found in these two images"


def test_a_treatment_without_discarding_looks_for_no_channels(
    run_json: RunJson, images: list[Path], massive_model: Path
) -> None:
    options = ("-b", massive_model, "--long-side", 48, "--treatment", "adaln")
    found = run_json("match", *images[:2], *options)
    assert found["backbone"]["massive_channels"] == []
    assert "find massive channels" not in found["seconds"]


def test_a_high_minimum_leaves_no_match_and_no_homography(
    run: Run, run_json: RunJson, images: list[Path], model: Path
) -> None:
    options = ("match", *images[:2], "-b", model, "--long-side", 48, "--min-score", 1)
    found = run_json(*options)
    assert found["scores"] == [] and found["homography"] is None
    assert "0 matches do not fix a homography" in run(*options).stdout


def test_an_output_is_never_an_input(run: Run, images: list[Path], model: Path) -> None:
    before = images[0].read_bytes()
    result = run("match", *images[:2], "-b", model, "--picture", images[0])
    assert result.exit_code == 5 and "one of the images" in result.stderr
    assert images[0].read_bytes() == before


@pytest.mark.parametrize("option", ["--picture", "--json-file"])
def test_a_name_that_is_too_long_for_a_file_is_an_error_of_the_output(
    run: Run, images: list[Path], tmp_path: Path, option: str
) -> None:
    result = run("match", *images[:2], option, tmp_path / f"{'n' * 256}.png")
    assert result.exit_code == 5 and "File name too long" in result.stderr


def test_an_output_that_cannot_be_written_speaks_before_the_work(
    run: Run, images: list[Path], tmp_path: Path
) -> None:
    result = run("match", *images[:2], "--out", tmp_path / "no" / "m.json")
    assert result.exit_code == 5 and "mkdir -p" in result.stderr


def test_an_interruption_while_drawing_leaves_no_file(
    run: Run, images: list[Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(picture, "draw_matches", interrupt)
    folder = tmp_path / "out"
    folder.mkdir()
    files = ("--picture", folder / "m.png", "--out", folder / "m.json")
    result = run("match", *images[:2], "-b", model, "--long-side", 48, *files)
    assert result.exit_code == 130
    assert list(folder.iterdir()) == []


def test_three_prompts_are_too_many(run: Run, images: list[Path], model: Path) -> None:
    prompts = [part for text in "abc" for part in ("--prompt", text)]
    result = run("match", *images[:2], "-b", model, *prompts)
    assert result.exit_code == 2 and "--prompt" in result.stderr


def test_each_image_may_have_its_own_prompt(
    run_json: RunJson, images: list[Path], tiny_checkpoint: Callable[[str], Path]
) -> None:
    options = ("-b", tiny_checkpoint("flux"), "--long-side", 64, "--rows", 1)
    one = run_json("match", images[0], images[0], *options, "--prompt", "a cat")
    two = run_json("match", images[0], images[0], *options, "--prompt", "a cat", "--prompt", "dog")
    assert one["backbone"]["prompt"] == "a cat"
    assert two["backbone"]["prompt"] == ["a cat", "dog"]
    assert one["scores"] != two["scores"]


def test_every_key_of_the_json_is_documented(
    run_json: RunJson, images: list[Path], model: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
    found = run_json("match", *images[:2], "-b", model, "--long-side", 32)
    assert [key for key in found if f"`{key}`" not in page] == []


@pytest.mark.parametrize(
    ("option", "told"),
    [("source=here", "type --source"), ("name=nano", "type --backbone")],
)
def test_an_option_of_the_command_is_no_option_of_the_backbone(
    run: Run, images: list[Path], option: str, told: str
) -> None:
    result = run("match", *images[:2], "--option", option)
    assert result.exit_code == 2 and told in result.stderr


def test_the_picture_and_the_result_are_written_both_or_not_at_all(
    run: Run, images: list[Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, _: object) -> None:
        raise OutputError(f"cannot write {path}")

    monkeypatch.setattr("kornia_ditf.utils.picture.save_picture", fail)
    made = [tmp_path / "p.png", tmp_path / "m.json"]
    result = run(
        *("match", *images[:2], "-b", model, "--long-side", 48),
        *("--picture", made[0], "--json-file", made[1]),
    )
    assert result.exit_code == 5 and str(made[0]) in result.stderr
    assert not any(path.exists() for path in made)


def test_another_matcher_is_used_with_its_own_options(
    run_json: RunJson, images: list[Path]
) -> None:
    found = run_json("match", images[0], images[0], "-m", "sift", "-o", "ratio=0.9")
    assert found["matcher"] == {"name": "sift", "ratio": 0.9}
    assert found["points_a"] == found["points_b"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("-m", "sitf"), 4, "did you mean 'sift'"),
        (("-m", "sift", "--block", 3), 2, "--block applies only to described images"),
        (("-m", "sift", "-o", "ratio=7"), 2, "ratio must lie in"),
    ],
)
def test_what_a_matcher_cannot_take_is_named(
    run: Run, images: list[Path], arguments: tuple[str, ...], code: int, told: str
) -> None:
    result = run("match", *images[:2], *arguments)
    assert result.exit_code == code and told in result.stderr


def test_matchers_are_listed_with_what_they_lack(run: Run, run_json: RunJson) -> None:
    listed = {each["name"]: each for each in run_json("matchers")["matchers"]}
    assert listed["sift"]["lacks"] == ""
    assert {"orb", "akaze", "loftr", "disk-lightglue", "hloc"} <= set(listed)
    text = run("matchers").stdout
    assert "ready" in text and "vismatch:NAME" in text


def test_a_mirrored_image_is_matched_in_its_pose(
    run: Any, run_json: Any, images: list[Path], model: Path, tmp_path: Path
) -> None:
    mirrored = tmp_path / "mirrored.png"
    with Image.open(images[0]) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    settings = ("-b", model, "--long-side", 48, "--search", "none")
    found = run_json("match", mirrored, images[0], *settings, "--pose", "flips")
    assert found["pose"]["chosen"] == "mirrored"
    assert set(found["pose"]["distances"]) == {"upright", "mirrored"}
    across = [a[0] + b[0] for a, b in zip(found["points_a"], found["points_b"], strict=True)]
    assert len(across) > 8 and max(abs(each - 63) for each in across) < 1
    wrong = run("match", mirrored, images[0], "--pose", "flip")
    assert "did you mean 'flips'" in wrong.stderr
