"""DINO descriptors against what transformers itself gives for the same tiny random models."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from kornia_ditf_dino.catalogue import SPECS
from kornia_ditf_dino.descriptor import (
    DINO,
    IMAGENET_MEAN,
    IMAGENET_STD,
    DINOConfig,
    capture_layer,
    find_blocks,
    overlap_patches,
)
from kornia_ditf_dino.loading import load_dino
from torch import Tensor

import kornia_ditf as kd
from kornia_ditf.errors import CaptureError, CheckpointError, InvalidArgumentError
from kornia_ditf.testing import check_descriptor, tiny

LAYERS, PATCH = 4, 4
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "patch_size": PATCH,
    "image_size": 24,
}
MADE: dict[str, Callable[[], Any]] = {
    "dino": lambda: transformers.ViTModel(
        transformers.ViTConfig(**SIZES, intermediate_size=64), add_pooling_layer=False
    ),
    "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**SIZES, mlp_ratio=2)),
    "dinov2-giant": lambda: transformers.Dinov2Model(
        transformers.Dinov2Config(**SIZES, mlp_ratio=2, use_swiglu_ffn=True)
    ),
    "dinov2-registers": lambda: transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**SIZES, mlp_ratio=2, num_register_tokens=3)
    ),
    "dinov3": lambda: transformers.DINOv3ViTModel(
        transformers.DINOv3ViTConfig(**SIZES, intermediate_size=64, num_register_tokens=2)
    ),
}
FAMILIES = tuple(MADE)
FAMILY = pytest.mark.parametrize("family", FAMILIES)
Give = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Give:
    """Give the folder of a tiny random model, sharded, saved once; not to be changed."""

    @cache
    def give(family: str) -> Path:
        with tiny.seeded():
            model = MADE[family]()
            for parameter in model.parameters():  # constants and near-zeros hide mistakes
                parameter.data += 0.2 * torch.randn_like(parameter)
        path = tmp_path_factory.mktemp(family)
        model.save_pretrained(path, max_shard_size="40KB")
        return path

    return give


def whole_model(path: Path) -> Any:
    """Load all of a model with transformers itself."""
    kind = json.loads((path / "config.json").read_text())["architectures"][0]
    model_class = getattr(transformers, kind)
    options = {"add_pooling_layer": False} if kind == "ViTModel" else {}
    return model_class.from_pretrained(path, **options).eval()


def image(height: int = 24, width: int = 36, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(3))


def normalised(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels - mean) / std


@torch.no_grad()
def own_outputs(model: Any, pixels: Tensor) -> Any:
    options = {"interpolate_pos_encoding": True} if type(model).__name__ == "ViTModel" else {}
    return model(normalised(pixels), output_hidden_states=True, **options)


def as_map(tokens: Tensor, rows: int, columns: int) -> Tensor:
    patches = tokens[:, -rows * columns :]
    return patches.transpose(1, 2).reshape(len(patches), -1, rows, columns)


@FAMILY
def test_tokens_are_those_of_transformers_at_every_layer(family: str, folder: Give) -> None:
    path = folder(family)
    expected = own_outputs(whole_model(path), image()).hidden_states
    for layer in range(LAYERS):
        found = load_dino(path, layer=layer, layernorm=False)(image()).data
        torch.testing.assert_close(found, as_map(expected[layer + 1], 6, 9), rtol=0, atol=2e-6)


@FAMILY
def test_by_default_they_are_the_models_own_output(family: str, folder: Give) -> None:
    expected = own_outputs(whole_model(folder(family)), image()).last_hidden_state
    found = load_dino(folder(family))(image())
    torch.testing.assert_close(found.data, as_map(expected, 6, 9), rtol=0, atol=2e-6)


@FAMILY
@pytest.mark.parametrize("facet", ["key", "query", "value"])
def test_facets_are_projections_of_the_normalised_input(
    family: str, facet: str, folder: Give
) -> None:
    model = whole_model(folder(family))
    # By their names in this and in earlier versions of transformers, of the third layer.
    norm, projection = (
        [module for name, module in model.named_modules() if name.endswith(ends)][2]
        for ends in ((".layernorm_before", ".norm1"), (f".{facet}", f".{facet[0]}_proj"))
    )
    with torch.no_grad():
        expected = projection(norm(own_outputs(model, image()).hidden_states[2]))
    found = load_dino(folder(family), layer=2, facet=facet)(image()).data
    torch.testing.assert_close(found, as_map(expected, 6, 9), rtol=0, atol=2e-6)


@FAMILY
def test_a_stride_is_a_stride_of_the_patch_embedding(family: str, folder: Give) -> None:
    model = whole_model(folder(family))
    found = load_dino(folder(family), layer=0, stride=2)(image())
    assert found.grid == (12, 18)

    # As dino-vit-features does it: the convolution's stride is changed, and the positions are
    # interpolated to the grid that it gives. DINOv3's positions are of the grid alone.
    convolution = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    convolution.stride = (2, 2)
    padded = F.pad(normalised(image()), (1, 1, 1, 1), mode="replicate")
    if family == "dinov3":
        original = model.rope_embeddings.forward
        model.rope_embeddings.forward = lambda pixels: original(pixels.new_zeros(1, 3, 48, 72))
        with torch.no_grad():
            expected = model(padded, output_hidden_states=True).hidden_states[1]
    else:
        embeddings = model.embeddings
        interpolate = embeddings.interpolate_pos_encoding
        embeddings.interpolate_pos_encoding = lambda tokens, *_: interpolate(tokens, 48, 72)
        options = {"interpolate_pos_encoding": True} if family == "dino" else {}
        with torch.no_grad():
            expected = model(padded, output_hidden_states=True, **options).hidden_states[1]
    torch.testing.assert_close(found.data, as_map(expected, 12, 18), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("patch", "stride", "error"), [(8, 4, 0.0), (8, 2, 0.0), (14, 7, 0.5)])
def test_tokens_stand_where_the_frame_says(patch: int, stride: int, error: float) -> None:
    # The mean of a patch of the pixels' own coordinates is where its middle is.
    height, width = 10 * stride, 12 * stride
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    coordinates = torch.stack([x, y, torch.ones_like(x)])[None].float()
    patches = overlap_patches(coordinates, patch, stride)
    middles = F.avg_pool2d(patches, patch)
    frame = kd.Frame(image_size=(height, width), model_size=(height, width))
    centres = kd.DescriptorMap(middles, frame).centres().T.reshape(2, 10, 12)
    inner = slice(patch // stride, -(patch // stride))  # the border repeats pixels
    difference = middles[0, :2, inner, inner] - centres[:, inner, inner]
    torch.testing.assert_close(difference, torch.full_like(difference, error), rtol=0, atol=1e-4)


def test_patches_that_do_not_overlap_are_left_alone() -> None:
    picture = image()
    assert overlap_patches(picture, 4, 4) is picture


@FAMILY
def test_a_batch_gives_what_its_images_give(family: str, folder: Give) -> None:
    descriptor = load_dino(folder(family), stride=2)
    batch = image(24, 32, batch=3)
    together = descriptor(batch).data
    alone = torch.cat([descriptor(one).data for one in batch])
    torch.testing.assert_close(together, alone, rtol=0, atol=5e-6)
    assert torch.equal(together, descriptor(batch).data)


@FAMILY
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
@pytest.mark.parametrize("stride", [PATCH, 2])
def test_it_keeps_every_rule(
    family: str, dtype: str, tolerance: float, stride: int, folder: Give
) -> None:
    descriptor = load_dino(folder(family), dtype=getattr(torch, dtype), stride=stride)
    check_descriptor(descriptor, size=(24, 40), tolerance=tolerance)


def test_the_frame_knows_the_images_own_pixels(folder: Give) -> None:
    descriptor = load_dino(folder("dinov2"), long_side=32)
    found = descriptor(image(48, 96))
    assert found.frame == kd.Frame(image_size=(48, 96), model_size=(16, 32))
    assert found.grid == (4, 8)
    squashed = load_dino(folder("dinov2"), size=(20, 20), long_side=32)(image(48, 96))
    assert squashed.frame.model_size == (20, 20) and squashed.grid == (5, 5)


def test_the_forward_stops_at_the_layer_and_leaves_no_hook(folder: Give) -> None:
    model = whole_model(folder("dinov2"))
    passed = []
    for number, block in enumerate(model.encoder.layer):
        block.mlp.register_forward_pre_hook(lambda *_, number=number: passed.append(number))
    before = {name: len(m._forward_hooks) for name, m in model.named_modules()}
    DINO(model, DINOConfig(layer=1))(image())
    assert passed == [0, 1]
    DINO(model, DINOConfig(layer=1, facet="key"))(image())
    assert passed == [0, 1, 0]
    with pytest.raises(ValueError, match="channel"):
        capture_layer(model, torch.zeros(1, 4, 8, 8), 1, "token")
    assert before == {name: len(m._forward_hooks) for name, m in model.named_modules()}


def test_a_model_that_skips_the_layer_is_an_error(folder: Give) -> None:
    model = whole_model(folder("dinov2"))
    model.encoder.forward = lambda tokens, **_: transformers.modeling_outputs.BaseModelOutput(
        tokens
    )
    with pytest.raises(CaptureError, match="never reached layer 1"):
        DINO(model, DINOConfig(layer=1))(image())


def test_only_the_layers_up_to_the_asked_one_are_held(folder: Give) -> None:
    descriptor = load_dino(folder("dinov3"), layer=1)
    assert len(find_blocks(descriptor.model)) == 2
    assert descriptor.config.layernorm is False  # it is not the last of the model's own


def test_loading_says_nothing(folder: Give, capfd: pytest.CaptureFixture[str]) -> None:
    load_dino(folder("dinov2"), layer=0)
    assert capfd.readouterr() == ("", "")


def test_the_models_own_colours_are_used(folder: Give, tmp_path: Path) -> None:
    path = copied(folder("dinov3"), tmp_path)
    colours = {"image_mean": [0.43, 0.411, 0.296], "image_std": [0.213, 0.156, 0.143]}
    (path / "preprocessor_config.json").write_text(json.dumps(colours))
    config = load_dino(path).config
    assert (config.mean, config.std) == (colours["image_mean"], colours["image_std"])
    assert load_dino(path, mean=(0, 0, 0)).config.mean == (0, 0, 0)


def test_an_identity_names_weights_settings_and_dtype(folder: Give, tmp_path: Path) -> None:
    descriptors = [
        load_dino(folder("dinov2")),
        load_dino(folder("dinov2"), layer=1),
        load_dino(folder("dinov2"), dtype=torch.bfloat16),
        load_dino(copied(folder("dinov2"), tmp_path)),
    ]
    assert len({each.identity for each in descriptors}) == len(descriptors)
    assert load_dino(folder("dinov2")).identity == descriptors[0].identity
    assert DINO(whole_model(folder("dinov2")), DINOConfig()).identity is None


def copied(path: Path, target: Path) -> Path:
    copy = target / "copy"
    copy.mkdir()
    for file in path.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"layer": LAYERS}, "layer must lie in"),
            ({"layer": -1}, "layer must be 0 or more"),
            ({"facet": "keys"}, "facet must be one of"),
            ({"stride": PATCH + 1}, "stride must lie in"),
            ({"size": (10, 24)}, "multiples of 4"),
            ({"size": 24}, r"size must be \(height, width\)"),
            ({"mean": (0, 0)}, "mean must be three numbers"),
            ({"std": (1, 0, 1)}, "std must be three numbers above 0"),
            ({"facet": "key", "layernorm": True}, "layernorm is for tokens"),
            ({"device": "nowhere"}, "device"),
        ],
    )
    def test_options_are_checked(self, options: dict[str, Any], message: str, folder: Give) -> None:
        with pytest.raises(InvalidArgumentError, match=message):
            load_dino(folder("dinov2"), **options)

    def test_an_unknown_option_is_named(self, folder: Give) -> None:
        with pytest.raises(InvalidArgumentError, match="no option 'blocks'"):
            kd.create_descriptor("dinov2-base", source=folder("dinov2"), blocks=3)

    def test_a_model_of_another_kind_is_refused(self, folder: Give, tmp_path: Path) -> None:
        path = copied(folder("dinov2"), tmp_path)
        (path / "config.json").write_text(json.dumps({"model_type": "bert"}))
        with pytest.raises(CheckpointError, match="'bert'"):
            load_dino(path)

    def test_pickles_are_refused(self, folder: Give, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text((folder("dinov2") / "config.json").read_text())
        (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
        with pytest.raises(CheckpointError, match="safetensors"):
            load_dino(tmp_path)

    def test_a_missing_tensor_is_named(self, folder: Give, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = copied(folder("dinov2"), tmp_path)
        stored = json.loads((path / "model.safetensors.index.json").read_text())["weight_map"]
        name = "encoder.layer.1.norm1.weight"
        shard = path / stored[name]
        tensors = load_file(shard)
        del tensors[name]
        save_file(tensors, shard, metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=name):
            load_dino(path)
        load_dino(path, layer=0)  # which does not need it

    def test_a_damaged_file_is_refused(self, folder: Give, tmp_path: Path) -> None:
        path = copied(folder("dinov2"), tmp_path)
        for shard in path.glob("*.safetensors"):
            shard.write_bytes(shard.read_bytes()[:100])
        with pytest.raises(CheckpointError, match="damaged or cut short"):
            load_dino(path)

    def test_wrong_numbers_of_prompts_are_refused(self, folder: Give) -> None:
        descriptor = load_dino(folder("dinov2"))
        descriptor(image(), "prompts are not read")
        with pytest.raises(InvalidArgumentError, match="prompts"):
            descriptor(image(), ["one", "two"])


class TestPresets:
    def test_all_are_installed(self) -> None:
        assert {spec.name for spec in SPECS} <= set(kd.list_descriptors())

    def test_what_nobody_published_says_so(self) -> None:
        published = [s.name for s in SPECS if not s.source.startswith("uncalibrated")]
        assert published == [
            "dino-vits8",
            *(f"dinov2-{s}" for s in ("small", "base", "large", "giant")),
        ]

    @pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
    def test_their_options_are_valid(self, spec: kd.DescriptorSpec) -> None:
        preset = dict(spec.load.keywords)
        assert preset.pop("source") == spec.repo
        config = DINOConfig(**preset)
        assert config.long_side is not None and config.long_side % spec.pixels_per_token == 0

    def test_a_preset_is_loaded_from_a_copy(self, folder: Give) -> None:
        descriptor = kd.create_descriptor("dinov2-small", source=folder("dinov2"), layer=2)
        assert isinstance(descriptor, DINO)
        assert (descriptor.config.layer, descriptor.config.layernorm) == (2, False)
        assert descriptor.config.long_side == 840
        host = kd.create_descriptor("dinov3-vits16", source=folder("dinov3"), long_side=24)
        assert host(image()).data.shape == (1, 32, 4, 6)


def test_weights_that_are_stored_quantised_are_refused(folder: Give, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = copied(folder("dinov2"), tmp_path)
    shard = min(path.glob("*.safetensors"))
    weights = load_file(shard)
    scaled = next(name for name in weights if name.endswith(".weight"))
    save_file({**weights, f"{scaled}_scale": torch.ones(1)}, shard)
    with pytest.raises(CheckpointError, match="quantised"):
        load_dino(path)
