"""The adapters in their hosts, where they are installed; else in doubles of the hosts' loaders."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kornia_ditf import match
from kornia_ditf.adapters import gluefactory
from kornia_ditf.adapters.hosts import use_in
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError, MissingExtraError

DOUBLES = Path(__file__).parent / "doubles"
QUICK: dict[str, Any] = {"long_side": 96, "block": 2}
OPTIONS: dict[str, Any] = {
    "backbone": "nano",
    "block": 3,
    "timestep": 40,
    "treatment": "raw",
    "ensemble": 2,
    "dtype": "bfloat16",
    "device": "cpu",
}

Host = Callable[[str], ModuleType]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Import a host, or its double where it is not installed, and forget it afterwards."""
    roots: list[str] = []

    def give(name: str) -> ModuleType:
        root = name.partition(".")[0]
        if find_spec(root) is None:
            monkeypatch.syspath_prepend(DOUBLES)
            roots.append(root)
        return import_module(name)

    yield give
    gluefactory._main_model.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in roots]:
        del sys.modules[name]


def check_options(ditf: Any) -> None:
    config = ditf.config
    assert (config.block, config.timestep, config.treatment, config.ensemble) == (3, 40, "raw", 2)
    assert next(ditf.parameters()).dtype == torch.bfloat16


def unit(descriptors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(descriptors, dim=-1)


HLOC = "imcui.hloc" if find_spec("imcui") else "hloc"


def load_hloc(host: Host, **conf: Any) -> Any:
    root = host(HLOC)
    use_in(HLOC)
    load = import_module(f"{root.__name__}.utils.base_model").dynamic_load
    extractors = import_module(f"{root.__name__}.extractors")
    return load(extractors, "ditf")({"name": "ditf", **conf}).eval().to("cpu")


def test_hloc_extracts_what_the_direct_call_gives(
    host: Host, nano: DiTF, images: list[Tensor]
) -> None:
    model = load_hloc(host, **QUICK)
    with torch.no_grad():
        found = {name: value[0].numpy() for name, value in model({"image": images[0]}).items()}
    maps = nano(images[0])
    count = maps.grid[0] * maps.grid[1]
    assert {name: value.shape for name, value in found.items()} == {
        "keypoints": (count, 2),
        "scores": (count,),
        "descriptors": (nano.width, count),
    }
    np.testing.assert_array_equal(found["keypoints"], maps.centres())
    np.testing.assert_allclose(found["descriptors"].T, unit(maps.tokens)[0], atol=1e-6)


def test_hlocs_configuration_reaches_the_backbone(host: Host, images: list[Tensor]) -> None:
    model = load_hloc(host, detector="sift", max_keypoints=30, **OPTIONS)
    check_options(model.feature.descriptor.descriptor)
    assert 20 < model({"image": images[0]})["keypoints"].shape[1] <= 30


def load_gluefactory(host: Host, name: str, **conf: Any) -> Any:
    get_model = host("gluefactory.models").get_model
    return get_model(name)({"name": name, **conf}).eval()


@pytest.mark.parametrize(
    "name", ["kornia_ditf.adapters.gluefactory", "extractors.ditf"], ids=["module", "name"]
)
def test_gluefactory_extracts_what_the_direct_call_gives(
    name: str, host: Host, nano: DiTF, images: list[Tensor]
) -> None:
    host("gluefactory.models")
    if name == "extractors.ditf":
        use_in("glue-factory")
    model = load_gluefactory(host, name, dense_outputs=True, **QUICK)
    found = model({"image": torch.cat(images)})
    maps = nano(torch.cat(images))
    assert torch.equal(found["keypoints"][1], maps.centres() + 0.5)
    torch.testing.assert_close(found["descriptors"], unit(maps.tokens), atol=1e-6, rtol=0)
    torch.testing.assert_close(found["dense_descriptors"], maps.data)
    assert found["keypoint_scores"].shape == found["keypoints"].shape[:2]
    with pytest.raises(NotImplementedError):
        model.loss(found, {})


def test_gluefactorys_configuration_reaches_the_backbone(host: Host) -> None:
    model = load_gluefactory(host, "kornia_ditf.adapters.gluefactory", **OPTIONS)
    check_options(model.feature.descriptor.descriptor)


def test_gluefactorys_padding_holds_no_keypoints(host: Host, images: list[Tensor]) -> None:
    model = load_gluefactory(host, "kornia_ditf.adapters.gluefactory", **QUICK)
    size = torch.tensor([[100, 60]])
    found = model({"image": images[0], "image_size": size})
    assert bool((found["keypoints"] < size + 0.5).all())


def test_a_module_that_glue_factory_may_ask_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = gluefactory.no_such_name


def load_dim(host: Host, folder: Path, **conf: Any) -> Any:
    dim = host("deep_image_matching")
    use_in("deep-image-matching")
    assert "ditf" in dim.config.opt_zoo["extractors"]
    assert dim.config.confs["ditf+kornia_matcher"]["extractor"]["name"] == "ditf"
    extractor = {"name": "ditf", **conf}
    if hasattr(dim.config.Config, "parse_general_config"):
        (folder / "images").mkdir()
        config = dim.config.Config(
            {"dir": folder, "pipeline": "ditf+kornia_matcher", "strategy": "bruteforce"}
        )
        config.extractor.update(extractor)
    else:
        config = dim.config.Config({}, extractor)
    return dim.extractors.extractor_loader(dim.extractors, "ditf")(config)


def test_deep_image_matching_extracts_what_the_direct_call_gives(
    host: Host, nano: DiTF, bgr: list[Any], tmp_path: Path
) -> None:
    extractor = load_dim(host, tmp_path, **QUICK)
    assert extractor.descriptor_size == nano.width
    assert not extractor.grayscale and not extractor.as_float
    found = extractor._extract(bgr[0])
    maps = nano(np.ascontiguousarray(bgr[0][..., ::-1]))
    np.testing.assert_array_equal(found["keypoints"], maps.centres())
    np.testing.assert_allclose(found["descriptors"].T, unit(maps.tokens)[0], atol=1e-6)
    assert found["scores"].shape == (len(found["keypoints"]),)
    assert extractor._frame2tensor(bgr[0]).shape == (1, 3, 128, 160)


def test_deep_image_matchings_configuration_reaches_the_backbone(
    host: Host, tmp_path: Path
) -> None:
    extractor = load_dim(host, tmp_path, detector="sift", **OPTIONS)
    check_options(extractor._extractor.descriptor)
    found = extractor._extract(np.zeros((64, 64, 3), np.uint8))
    assert found["keypoints"].shape == (0, 2)
    assert found["descriptors"].shape == (extractor.descriptor_size, 0)


def load_vismatch(host: Host, **options: Any) -> Any:
    vismatch = host("vismatch")
    use_in("vismatch")
    use_in("vismatch")
    assert vismatch.available_models.count("ditf") == 1
    return vismatch.get_matcher("ditf", device="cpu", **options)


def test_vismatch_matches_as_the_direct_call_does(
    host: Host, nano: DiTF, images: list[Tensor]
) -> None:
    matcher = load_vismatch(host, max_num_keypoints=40, ransac_iters=500, search="none", **QUICK)
    assert matcher.ransac_iters == 500
    found = matcher(images[0][0], images[1][0])
    direct = match(nano(images[0]), nano(images[1])).best(40)
    np.testing.assert_allclose(found["matched_confidences"], direct.scores, atol=1e-6)
    np.testing.assert_array_equal(found["matched_kpts0"][:10], direct.points_a[:10])
    np.testing.assert_array_equal(found["matched_kpts1"][:10], direct.points_b[:10])
    np.testing.assert_array_equal(found["all_kpts0"], nano(images[0]).centres())
    assert found["all_desc1"].shape == (found["all_kpts1"].shape[0], nano.width)


def test_vismatch_matches_a_turned_image(host: Host, images: list[Tensor]) -> None:
    found = load_vismatch(host, **QUICK)(images[0][0], images[0][0].rot90(1, (1, 2)))
    turned = np.stack([found["matched_kpts0"][:, 1], 159 - found["matched_kpts0"][:, 0]], 1)
    assert np.median(np.abs(found["matched_kpts1"] - turned)) < 0.5


def test_vismatchs_options_reach_the_backbone(host: Host) -> None:
    options = {name: value for name, value in OPTIONS.items() if name != "device"}
    check_options(load_vismatch(host, **options).matcher.local_feature.descriptor.descriptor)


def test_vismatchs_other_matchers_are_left_alone(host: Host) -> None:
    vismatch = host("vismatch")
    use_in("vismatch")
    with pytest.raises(RuntimeError, match="no-such-matcher"):
        vismatch.get_matcher("no-such-matcher")


def test_a_host_that_is_unknown_or_not_installed_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match="'hlok'; did you mean 'hloc'"):
        use_in("hlok")
    if find_spec("hloc") is None:
        with pytest.raises(MissingExtraError, match="hloc is not installed: install it from"):
            use_in("hloc")
    if find_spec("vismatch") is None:
        with pytest.raises(MissingExtraError, match="pip install vismatch"):
            use_in("vismatch")
