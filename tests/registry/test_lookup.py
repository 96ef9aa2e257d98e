from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from fake_hub import REPO, FakeHub
from plugin_entries import Entry

from kornia_ditf.backbones.spec import NEUTRAL_RULE, BackboneSpec
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.dense import DenseDescriptor, DescriptorSpec
from kornia_ditf.errors import (
    CheckpointError,
    HubUnreachableError,
    InvalidArgumentError,
    PluginError,
    UnknownBackboneError,
)
from kornia_ditf.preprocess import as_image
from kornia_ditf.registry import hookspecs
from kornia_ditf.registry import lookup as registry
from kornia_ditf.registry.datasets import list_datasets
from kornia_ditf.registry.lookup import (
    create_descriptor,
    create_ditf,
    find_backbone,
    find_descriptor,
    list_backbones,
    list_descriptors,
)
from kornia_ditf.types import DescriptorMap, Frame


def plugin(specs: object) -> ModuleType:
    module = ModuleType("plugin")

    @hookspecs.hookimpl
    def register_backbones() -> Any:
        if isinstance(specs, Exception):
            raise specs
        return specs

    module.register_backbones = register_backbones  # type: ignore[attr-defined]
    return module


def toy(name: str = "toy") -> BackboneSpec:
    return BackboneSpec.uncalibrated(
        name=name,
        repo="someone/toy",
        pipeline="ToyPipeline",
        load=lambda *args, **options: pytest.fail("listing must not load"),
        blocks=7,
        width=8,
        pixels_per_token=16,
        long_side=256,
        license="MIT",
    )


def test_a_plugins_backbone_is_listed_beside_the_built_in_ones(installed: list[Entry]) -> None:
    installed.append(Entry("toys", plugin([toy()])))
    assert find_backbone("toy").block == 3
    assert next(iter(list_backbones())) == "nano"


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownBackboneError, match=r"'flux1-dev'.*did you mean 'flux.1-dev'"):
        create_descriptor("flux1-dev")


@pytest.mark.parametrize("name", ["", " ", "nano+", "+nano"])
def test_an_empty_name_is_no_default(name: str) -> None:
    with pytest.raises(UnknownBackboneError, match="the name of a backbone is empty"):
        create_descriptor(name)


def test_a_folder_follows_the_neutral_rule(tiny_checkpoint: Any) -> None:
    spec = find_backbone(tiny_checkpoint("flux"))
    assert spec.source == NEUTRAL_RULE
    assert (spec.block, spec.timestep, spec.calibrated) == (spec.blocks // 2, 250, False)


def test_a_folder_that_holds_no_model_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no model_index.json"):
        find_backbone(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "OtherPipeline"}')
    with pytest.raises(CheckpointError, match="has no transformer/config.json"):
        find_backbone(tmp_path)
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds a OtherPipeline"):
        find_backbone(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(CheckpointError, match="no usable depth .* or width"):
        find_backbone(tmp_path)
    (tmp_path / "model_index.json").write_text("{broken")
    with pytest.raises(CheckpointError, match="is damaged"):
        find_backbone(tmp_path)


def test_a_published_repository_is_known_by_its_hub_id() -> None:
    assert find_backbone("black-forest-labs/FLUX.1-dev").name == "flux.1-dev"


def test_another_hub_id_is_described_by_its_own_configuration(
    tiny_checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub(tiny_checkpoint("sd3"), tmp_path, monkeypatch)
    spec = find_backbone(REPO)
    assert (spec.blocks, spec.width, spec.source) == (4, 32, NEUTRAL_RULE)
    assert set(hub.downloaded) == {"model_index.json", "transformer/config.json"}


@pytest.mark.parametrize("options", [{}, {"local_files_only": True}, {"revision": "v2"}])
def test_a_model_of_the_hub_is_read_from_the_cache_and_the_revision_that_are_named(
    options: dict[str, Any],
    tiny_checkpoint: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub = tmp_path / "cache" / "models--someone--model"
    shutil.copytree(tiny_checkpoint("flux"), hub / "snapshots" / ("a" * 40))
    (hub / "refs").mkdir()
    (hub / "refs" / options.get("revision", "main")).write_text("a" * 40)
    ditf = create_ditf(REPO, block=1, cache_dir=tmp_path / "cache", **options)
    assert str(ditf.backbone.identity).startswith(f"{REPO}@{'a' * 40}")
    assert ditf.backbone.condition(["a cat"])["prompt_embeds"].shape[0] == 1
    with pytest.raises(HubUnreachableError, match="not cached"):
        create_ditf(REPO, block=1, cache_dir=tmp_path, **options)


@pytest.mark.parametrize("source", ["", " "])
def test_an_empty_source_is_not_the_default(source: str) -> None:
    for create in (create_descriptor, create_ditf):
        with pytest.raises(InvalidArgumentError, match="source must name"):
            create("nano", source=source)


@pytest.mark.parametrize(
    "name", ["./nano", "models/nano/", "nano.safetensors", "https://huggingface.co/a/b"]
)
def test_a_mistyped_path_suggests_no_backbone(name: str) -> None:
    with pytest.raises(UnknownBackboneError) as caught:
        find_backbone(name)
    assert "installed" not in str(caught.value) and "hub id" in str(caught.value)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("torch_dtype", "it is called dtype here"),
        ("device_map", "device='cuda'"),
        ("varient", "did you mean 'variant'"),
        ("treatmant", "did you mean 'treatment'"),
        ("offlod", "did you mean 'offload'"),
        ("anything", "options: architecture, block, blocks, cache_dir, "),
    ],
)
def test_an_option_of_another_name_is_told_ours(option: str, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"no option {option!r}.*{told}"):
        create_descriptor("nano", **{option: "x"})


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), SystemExit(7)])
def test_a_plugin_whose_loader_fails_is_named(
    error: BaseException, installed: list[Entry], capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        print("loading")
        raise error

    installed.append(Entry("odd", plugin([replace(toy(), load=fails)])))
    registry.forget_plugins()
    with pytest.raises(PluginError, match=rf"'toy'.*plugin 'odd'.*{type(error).__name__}"):
        create_descriptor("toy")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "loading\n")


def test_an_unknown_option_is_named(tiny_checkpoint: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="has no option 'treatmant'"):
        create_descriptor(tiny_checkpoint("dit"), treatmant="raw")


def test_a_block_out_of_range_is_refused_before_anything_is_loaded(
    installed: list[Entry],
) -> None:
    installed.append(Entry("toys", plugin([toy()])))
    with pytest.raises(InvalidArgumentError, match=r"block of toy must lie in \[0, 6\], got 7"):
        create_descriptor("toy", block=7)


@pytest.mark.parametrize("dtype", ["float23", "int8", "nn"])
def test_an_unknown_dtype_is_refused(dtype: str, installed: list[Entry]) -> None:
    installed.append(Entry("toys", plugin([toy()])))
    with pytest.raises(InvalidArgumentError, match="dtype must be one of"):
        create_descriptor("toy", dtype=dtype)


def test_a_preset_keeps_its_massive_channels_only_where_they_were_measured() -> None:
    from kornia_ditf.config import DiTFConfig

    spec = find_backbone("flux.1-dev")
    assert DiTFConfig.from_spec(spec).massive_channels == (154, 1446)
    assert DiTFConfig.from_spec(spec, ensemble=1).massive_channels == (154, 1446)
    assert DiTFConfig.from_spec(spec, block=20).massive_channels is None
    assert DiTFConfig.from_spec(spec, timestep=90).massive_channels is None
    assert DiTFConfig.from_spec(spec, block=20, massive_channels=(1,)).massive_channels == (1,)


class Constant(DenseDescriptor):
    """Describes every image by ones, at 16 pixels a token."""

    width = 3

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, image: Any, prompts: Any = None) -> DescriptorMap:
        pixels = as_image(image)
        size = (pixels.shape[2], pixels.shape[3])
        data = torch.full((len(pixels), 3, size[0] // 16, size[1] // 16), self.factor)
        return DescriptorMap(data, Frame(size, size))


def test_a_plugins_descriptor_is_listed_and_made_with_its_options(installed: list[Entry]) -> None:
    module = ModuleType("plugin")
    spec = DescriptorSpec(
        name="constant", load=Constant, width=3, pixels_per_token=16, source="a test", license="MIT"
    )

    @hookspecs.hookimpl
    def register_descriptors() -> list[DescriptorSpec]:
        return [spec]

    module.register_descriptors = register_descriptors  # type: ignore[attr-defined]
    installed.append(Entry("constants", module))
    assert list_descriptors()["constant"] is find_descriptor("constant") is spec
    assert "constant" not in list_backbones()
    described = create_descriptor("constant", factor=2.0)(torch.rand(2, 3, 32, 48))
    assert described.data.shape == (2, 3, 2, 3) and described.data.unique().tolist() == [2.0]
    with pytest.raises(InvalidArgumentError, match="constant has no option 'block'"):
        create_descriptor("constant", block=3)
    with pytest.raises(UnknownBackboneError, match="did you mean 'constant'"):
        create_descriptor("constnt")


def test_a_loader_that_gives_something_else_is_named(installed: list[Entry]) -> None:
    installed.append(Entry("toys", plugin([replace(toy(), load=lambda *_, **__: 3)])))
    with pytest.raises(InvalidArgumentError, match="load of 'toy' returned a int, not a Backbone"):
        create_descriptor("toy")


def test_any_descriptor_describes_images_of_several_sizes() -> None:
    images = [torch.rand(3, 32, 48), torch.rand(3, 16, 16)]
    maps = Constant().describe_together(images, ["a", "b"])
    assert [each.frame.image_size for each in maps] == [(32, 48), (16, 16)]
    with pytest.raises(InvalidArgumentError, match="2 images have 1 prompts"):
        Constant().describe_together(images, ["a"])


def test_a_plugins_data_set_is_listed_apart_from_descriptors(installed: list[Entry]) -> None:
    module = ModuleType("plugin")
    spec = DatasetSpec(name="pairs", load=list, layout="none", source="a test", license="CC0")

    @hookspecs.hookimpl
    def register_datasets() -> list[DatasetSpec]:
        return [spec]

    module.register_datasets = register_datasets  # type: ignore[attr-defined]
    installed.append(Entry("sets", module))
    assert list_datasets()["pairs"] == spec
    assert "pairs" not in list_descriptors()
