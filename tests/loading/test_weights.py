from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kornia_ditf.backbones import SPECS
from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.errors import CheckpointError, InvalidArgumentError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.weights import (
    Layout,
    build_empty,
    load_transformer,
    load_vae_encoder,
    without_deprecations,
    without_progress_bars,
)
from kornia_ditf.registry.lookup import find_backbone
from kornia_ditf.types import Tap

Checkpoints = Callable[[str], Path]
SHAPES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "dit": (
        "DiTTransformer2DModel",
        ("transformer_blocks",),
        ("norm_out", "proj_out_1", "proj_out_2"),
    ),
    "pixart-alpha-1024": (
        "PixArtTransformer2DModel",
        ("transformer_blocks",),
        ("norm_out", "proj_out"),
    ),
    "sd3.5-medium": ("SD3Transformer2DModel", ("transformer_blocks",), ("norm_out", "proj_out")),
    "flux": (
        "FluxTransformer2DModel",
        ("transformer_blocks", "single_transformer_blocks"),
        ("norm_out", "proj_out"),
    ),
}
VAE_WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


def load(folder: Path, family: str = "flux", **options: Any) -> nn.Module:
    class_name, blocks, head = SHAPES[family]
    layout = Layout(class_name=class_name, block_lists=blocks, unused=head)
    return load_transformer(Checkpoint(folder), layout, **options)


def whole(folder: Path, family: str, dtype: torch.dtype) -> nn.Module:
    import diffusers

    model_class: Any = getattr(diffusers, SHAPES[family][0])
    with without_progress_bars():
        model: nn.Module = model_class.from_pretrained(folder, subfolder="transformer", dtype=dtype)
    return model


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@pytest.fixture
def flux(tiny_checkpoint: Checkpoints, tmp_path: Path) -> Path:
    """Give a FLUX that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint("flux"), tmp_path / "flux"))


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "transformer").glob("*.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", SHAPES)
def test_every_tensor_kept_is_bit_for_bit_what_diffusers_loads(
    family: str, dtype: torch.dtype, tiny_checkpoint: Checkpoints
) -> None:
    folder = tiny_checkpoint(family)
    expected = tensors(whole(folder, family, dtype))
    sizes = []
    for block in (0, 1, 2, None):
        model = load(folder, family, last_block=block, dtype=dtype)
        found = tensors(model)
        for name, value in found.items():
            assert value.device.type == "cpu" and not value.requires_grad
            assert value.dtype == expected[name].dtype, name
            assert torch.equal(value, expected[name]), name
        assert not any(module.training for module in model.modules())
        sizes.append(len(found))
    assert sizes == sorted(set(sizes))


def test_modules_that_a_class_keeps_in_float32_stay_there(
    tiny_checkpoint: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    kept = ["x_embedder", "norm1"]
    monkeypatch.setattr(diffusers.FluxTransformer2DModel, "_keep_in_fp32_modules", kept)
    expected = tensors(whole(tiny_checkpoint("flux"), "flux", torch.bfloat16))
    found = tensors(load(tiny_checkpoint("flux"), dtype=torch.bfloat16))
    assert {value.dtype for value in found.values()} == {torch.float32, torch.bfloat16}
    for name, value in found.items():
        assert value.dtype == expected[name].dtype and torch.equal(value, expected[name]), name


def test_shards_that_hold_later_blocks_are_never_opened(flux: Path) -> None:
    expected = tensors(load(flux, last_block=1))
    stored = Checkpoint(flux).shards("transformer")
    needed = {stored[name] for name in expected}
    others = [path for path in shards(flux) if f"transformer/{path.name}" not in needed]
    assert len(others) >= 3
    for path in others:
        path.unlink()
    found = tensors(load(flux, last_block=1))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    with pytest.raises(CheckpointError, match="download it again"):
        load(flux)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-64]),
        lambda path: path.write_bytes(path.read_bytes()[:7]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        lambda path: save_file({"other": torch.zeros(1)}, path),
    ],
    ids=["missing", "cut", "stub", "empty", "lfs-pointer", "of-another-model"],
)
def test_a_bad_shard_is_named(flux: Path, damage: Callable[[Path], Any]) -> None:
    path = shards(flux)[1]
    damage(path)
    with pytest.raises(CheckpointError, match=path.name):
        load(flux)


def test_a_tensor_of_another_shape_or_missing_is_named(flux: Path) -> None:
    path = next(path for path in shards(flux) if "x_embedder.weight" in load_file(path))
    content = load_file(path)
    save_file({**content, "x_embedder.weight": torch.zeros(3, 5)}, path)
    with pytest.raises(CheckpointError, match=r"'x_embedder.weight' has the shape \(3, 5\)"):
        load(flux)
    index = path.with_name("diffusion_pytorch_model.safetensors.index.json")
    names = json.loads(index.read_text())
    del names["weight_map"]["x_embedder.weight"]
    index.write_text(json.dumps(names))
    with pytest.raises(CheckpointError, match=r"no tensor 'x_embedder\.weight'"):
        load(flux)


@pytest.mark.parametrize(
    "change",
    [
        {"_class_name": "UNet2DModel"},
        {"_class_name": "Transformer2DModel"},
        {"num_layers": "two"},
        {"attention_head_dim": -4},
    ],
)
def test_a_configuration_of_another_model_is_refused(flux: Path, change: dict[str, Any]) -> None:
    path = flux / "transformer/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError):
        load(flux)


@pytest.mark.parametrize("block", [-1, 5, 100])
def test_blocks_that_do_not_exist_are_refused(block: int, tiny_checkpoint: Checkpoints) -> None:
    with pytest.raises(InvalidArgumentError, match=r"\[0, 4\]"):
        load(tiny_checkpoint("flux"), last_block=block)


def test_a_dtype_without_fractions_is_refused(tiny_checkpoint: Checkpoints) -> None:
    with pytest.raises(InvalidArgumentError, match="floating-point"):
        load(tiny_checkpoint("flux"), dtype=torch.int8)


def test_loading_is_silent_and_leaves_the_defaults_alone(
    tiny_checkpoint: Checkpoints,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # The published DiT configuration has attributes that its present class does not know.
    folder = tiny_checkpoint("dit")
    capfd.readouterr()
    with caplog.at_level(logging.WARNING):
        load(folder, "dit", last_block=1, dtype=torch.bfloat16)
        load_vae_encoder(Checkpoint(folder))
    assert tuple(capfd.readouterr()) == ("", "")
    assert not caplog.records
    assert torch.get_default_dtype() == torch.float32


def test_progress_bars_are_left_as_they_were() -> None:
    from diffusers.utils import logging as library

    for shown in (True, False):
        (library.enable_progress_bar if shown else library.disable_progress_bar)()
        with without_progress_bars():
            assert not library.is_progress_bar_enabled()
        assert library.is_progress_bar_enabled() == shown
    library.enable_progress_bar()


def test_positions_that_the_checkpoint_stores_are_not_computed() -> None:
    """Those of SD3.5-medium would take half a minute and gigabytes."""
    spec = next(spec for spec in SPECS if spec.name == "sd3.5-medium")
    config = dict(spec.architecture["transformer"])
    model: Any = build_empty(config, "SD3Transformer2DModel", torch.bfloat16)
    assert model.pos_embed.pos_embed.is_meta


def test_positions_that_no_checkpoint_stores_are_computed(tiny_checkpoint: Checkpoints) -> None:
    config = Checkpoint(tiny_checkpoint("dit")).json("transformer/config.json")
    model: Any = build_empty(config, "DiTTransformer2DModel", torch.float32)
    assert not model.pos_embed.pos_embed.is_meta
    assert all(parameter.is_meta for parameter in model.parameters())


def test_values_in_a_list_that_no_checkpoint_stores_are_computed() -> None:
    config = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "num_kv_heads": 1}
    rotary = {"axes_dim_rope": (4, 6, 6), "axes_lens": (8, 8, 8), "multiple_of": 2}
    model: Any = build_empty({**config, **rotary}, "Lumina2Transformer2DModel", torch.float32)
    assert not any(value.is_meta for value in model.rope_embedder.freqs_cis)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_what_libraries_warn_of_in_their_own_code_stays_with_them() -> None:
    with without_deprecations():
        warnings.warn("theirs", FutureWarning, stacklevel=1)
    with pytest.raises(UserWarning, match="ours"), without_deprecations():
        warnings.warn("ours", UserWarning, stacklevel=1)


@pytest.mark.parametrize("family", ["dit", "flux"])
@torch.no_grad()
def test_the_vaes_encoder_alone_encodes_as_the_whole(
    family: str, tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    from diffusers import AutoencoderKL

    folder = Path(shutil.copytree(tiny_checkpoint(family), tmp_path / family))
    expected = AutoencoderKL.from_pretrained(folder, subfolder="vae").eval().requires_grad_(False)
    content = load_file(folder / VAE_WEIGHTS)
    kept = {n: v for n, v in content.items() if not n.startswith(("decoder", "post_quant"))}
    assert len(kept) < len(content)
    save_file(kept, folder / VAE_WEIGHTS)  # the decoder is never read
    encoder: Any = load_vae_encoder(Checkpoint(folder))
    image = torch.rand(2, 3, 32, 48)
    found, truth = encoder.encode(image).latent_dist, expected.encode(image).latent_dist
    assert torch.equal(found.parameters, truth.parameters)


@torch.no_grad()
def test_vaes_with_the_old_names_of_attention_load_as_diffusers_loads_them(
    tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    from diffusers import AutoencoderKL

    folder = Path(shutil.copytree(tiny_checkpoint("dit"), tmp_path / "dit"))
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    content = load_file(folder / VAE_WEIGHTS)
    for new, former in old.items():
        content = {n.replace(f".{new}.", f".{former}."): v for n, v in content.items()}
    assert any(".proj_attn." in name for name in content)
    save_file(content, folder / VAE_WEIGHTS, metadata={"format": "pt"})
    expected = AutoencoderKL.from_pretrained(folder, subfolder="vae").state_dict()
    found = load_vae_encoder(Checkpoint(folder)).state_dict()
    assert found and all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_weights_that_are_stored_quantised_are_refused(
    part: str, tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint("dit"), tmp_path / "dit"))
    config = folder / part / "config.json"
    values = json.loads(config.read_text())
    quantised = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    config.write_text(json.dumps({**values, "quantization_config": quantised}))
    with pytest.raises(CheckpointError, match=f"{part}, which is stored quantised"):
        find_backbone(folder).load(folder)
    config.write_text(json.dumps(values))
    for path in (folder / part).glob("*.safetensors"):
        save_file({**load_file(path), "scaled_fp8": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="holds quantised weights"):
        find_backbone(folder).load(folder)


@pytest.mark.parametrize("extra", [torch.ones(3), torch.arange(3), torch.ones(3) > 0])
def test_a_tensor_that_the_configuration_has_no_place_for_is_ignored_with_a_warning(
    extra: torch.Tensor,
    tiny_checkpoint: Checkpoints,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint("dit"), tmp_path / "dit"))
    expected = load_vae_encoder(Checkpoint(folder)).state_dict()
    weights = load_file(folder / VAE_WEIGHTS)
    save_file({**weights, "encoder.conv_in.gain": extra}, folder / VAE_WEIGHTS)
    found = load_vae_encoder(Checkpoint(folder)).state_dict()
    (said,) = [record.getMessage() for record in caplog.records]
    assert VAE_WEIGHTS in said and "'encoder.conv_in.gain' that the configuration has no" in said
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("gain", torch.int8), ("gain", torch.uint8), ("gain", torch.int32), ("absmax", torch.float32)],
)
def test_a_tensor_without_a_place_that_looks_quantised_is_refused(
    name: str, dtype: torch.dtype, tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint("dit"), tmp_path / "dit"))
    weights = load_file(folder / VAE_WEIGHTS)
    extra = {f"encoder.conv_in.{name}": torch.ones(3, dtype=dtype)}
    save_file({**weights, **extra}, folder / VAE_WEIGHTS)
    with pytest.raises(CheckpointError, match=rf"quantised weights \(encoder\.conv_in\.{name}\)"):
        load_vae_encoder(Checkpoint(folder))


def test_anything_beside_a_float8_weight_is_taken_for_its_scale(
    tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint("dit"), tmp_path / "dit"))
    weights = load_file(folder / VAE_WEIGHTS)
    conv = "encoder.conv_in"
    weights[f"{conv}.weight"] = weights[f"{conv}.weight"].to(torch.float8_e4m3fn)
    save_file({**weights, f"{conv}.gain": torch.ones(3)}, folder / VAE_WEIGHTS)
    with pytest.raises(CheckpointError, match=r"quantised weights \(encoder\.conv_in\.gain\)"):
        load_vae_encoder(Checkpoint(folder))


def shift_of(tap: Tap) -> torch.Tensor:
    assert tap.shift is not None
    return tap.shift


def _torchao() -> Any:
    from diffusers import TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def _quanto() -> Any:
    from diffusers import QuantoConfig

    return QuantoConfig(weights_dtype="int8")


@pytest.mark.filterwarnings("default")  # the quantisers' own
@pytest.mark.parametrize(
    ("library", "make", "family"),
    [
        ("torchao", _torchao, "flux"),
        # Not the tiny FLUX: quanto's CPU kernel crashes where a width is no multiple of 16.
        ("optimum.quanto", _quanto, "dit"),
    ],
)
@torch.no_grad()
def test_quantised_blocks_are_those_of_the_whole_quantised_model(
    library: str, make: Callable[[], Any], family: str, tiny_checkpoint: Checkpoints
) -> None:
    pytest.importorskip(library)
    folder = tiny_checkpoint(family)

    def load(**options: Any) -> DiffusersBackbone:
        backbone = find_backbone(folder).load(folder, dtype=torch.bfloat16, **options)
        assert isinstance(backbone, DiffusersBackbone)
        return backbone

    whole = load(quantization_config=make())
    part = load(quantization_config=make(), block=2)
    latent = torch.randn(1, whole.latent_channels, 8, 8)
    conditioning = whole.condition([""])
    expected = whole.tap(latent, 260, conditioning, block=2)
    found = part.tap(latent, 260, conditioning, block=2)
    assert torch.equal(found.x, expected.x) and torch.equal(shift_of(found), shift_of(expected))
    kinds = {type(parameter) for parameter in part.transformer.parameters()}
    assert kinds - {nn.Parameter}, "nothing was quantised"
    exact = load(block=2).tap(latent, 260, conditioning, block=2)
    assert (found.x - exact.x).norm() < 0.05 * exact.x.norm()
    last = part.streams[-1].blocks
    assert isinstance(part.transformer.get_submodule(last)[-1], nn.Identity)
