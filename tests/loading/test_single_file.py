from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from originals import Weights, as_flux, as_ldm_vae, as_sd3, gguf_file, weights_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import kornia_ditf as kd
from kornia_ditf.backbones.sd3 import SD3Backbone
from kornia_ditf.errors import CheckpointError, InvalidArgumentError, MissingExtraError
from kornia_ditf.loading.single_file import load_single_file
from kornia_ditf.loading.weight_file import WeightFile, as_file

Checkpoints = Callable[[str], Path]
OPTIONS: dict[str, Any] = {"long_side": 64, "treatment": "adaln"}
IMAGE = torch.rand(1, 3, 40, 61, generator=torch.Generator().manual_seed(0))
ORIGINALS: dict[str, Callable[[Mapping[str, Tensor]], Weights]] = {
    "flux": as_flux,
    "sd3.5-medium": as_sd3,
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / "cache"))


def save(weights: Mapping[str, Tensor], path: Path, **metadata: str) -> Path:
    whole = {name: value.clone().contiguous() for name, value in weights.items()}
    save_file(whole, path, metadata or None)
    return path


def describe(given: Any, **options: Any) -> Tensor:
    return kd.create_descriptor(given, **{**OPTIONS, **options})(IMAGE, "a cat").data


@pytest.mark.parametrize("family", ORIGINALS)
def test_a_file_gives_the_features_of_its_folder(
    family: str, tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(family)
    weights, expected = weights_of(folder), describe(folder)
    original = ORIGINALS[family](weights)
    prefixed = {f"model.diffusion_model.{name}": value for name, value in original.items()}
    wrapped = {f"module.transformer.{name}": value for name, value in weights.items()}
    for number, stored in enumerate((weights, original, wrapped, prefixed)):
        path = save(stored, tmp_path / f"{number}.safetensors")
        assert torch.equal(describe(path, config=folder), expected)
    name = "flux.1-dev" if family == "flux" else family
    block = kd.find_backbone(folder).block
    numbers: dict[str, Any] = {"timestep": 250, "ensemble": 1, "massive_channels": ()}
    named = describe(name, source=path, config=folder, block=block, **numbers)
    assert torch.equal(named, expected)


@pytest.mark.parametrize("prefix", ["first_stage_model.", "vae."])
def test_a_file_of_all_parts_uses_its_own_vae_and_tells_of_its_text_encoders(
    prefix: str, tiny_checkpoint: Checkpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint("flux"), tmp_path / "flux"))
    whole = {f"model.diffusion_model.{n}": v for n, v in as_flux(weights_of(folder)).items()}
    vae = as_ldm_vae(weights_of(folder, "vae"))
    whole |= {f"{prefix}{name}": value for name, value in vae.items()}
    whole["text_encoders.clip_l.transformer.text_model.final_layer_norm.bias"] = torch.zeros(2)
    path, expected = save(whole, tmp_path / "all.safetensors"), describe(folder)
    for file in (folder / "vae").glob("*.safetensors"):
        other = {name: torch.zeros_like(value) for name, value in load_file(file).items()}
        save_file(other, file, {"format": "pt"})
    assert not torch.equal(describe(folder), expected)
    assert torch.equal(describe(path, config=folder), expected)
    assert "all.safetensors also holds text encoders" in caplog.text
    plan = kd.find_backbone(path, config=folder).plan(path, config=folder)
    assert plan.vae_held > 0 and plan.download == {}
    del whole[f"{prefix}encoder.conv_in.weight"]
    describe(save(whole, tmp_path / "partial.safetensors"), config=folder)
    assert "the VAE in" in caplog.text and "is not used" in caplog.text


def test_only_what_the_block_needs_is_read(
    tiny_checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_checkpoint("sd3.5-medium")
    file = WeightFile(save(as_sd3(weights_of(folder)), tmp_path / "sd3.safetensors"))
    config = json.loads((folder / "transformer/config.json").read_text())
    read: list[str] = []
    value = file.read
    monkeypatch.setattr(file, "read", lambda name: read.append(name) or value(name))
    load_single_file(file, SD3Backbone.layout(), config, last_block=1)
    assert {name.split(".")[1] for name in read if name.startswith("joint")} == {"0", "1"}
    assert not any(name.startswith("final_layer") for name in read)


def test_a_plan_is_what_is_held(tiny_checkpoint: Checkpoints, tmp_path: Path) -> None:
    folder = tiny_checkpoint("flux")
    path = save(as_flux(weights_of(folder)), tmp_path / "flux.safetensors")
    options: dict[str, Any] = {"block": 1, "dtype": torch.float32, "config": folder}
    plan = kd.find_backbone(path, config=folder).plan(path, **options)
    transformer: Any = kd.create_ditf(path, **options).backbone.transformer
    held = sum(value.numel() * value.itemsize for value in transformer.state_dict().values())
    assert plan.transformer_held == held < plan.transformer_whole
    assert plan.download == {} and str(path) in plan.source and plan.vae_held > 0


def test_gguf_gives_what_diffusers_own_loader_gives(
    tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    import diffusers

    folder = tiny_checkpoint("sd3.5-medium")
    path = gguf_file(as_sd3(weights_of(folder)), tmp_path / "sd3.gguf")
    whole = diffusers.SD3Transformer2DModel.from_single_file(
        str(path),
        config=str(folder),
        subfolder="transformer",
        quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=torch.float32),
        dtype=torch.float32,
    )
    vae = diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae")
    expected = describe((whole, vae), prompt_encoder=folder)
    ditf = kd.create_ditf(path, config=folder, **OPTIONS)
    assert torch.equal(ditf(IMAGE, "a cat").data, expected)
    assert (describe(folder) - expected).norm() < 0.1 * expected.norm()
    backbone: Any = ditf.backbone
    linear = backbone.transformer.transformer_blocks[0].attn.to_q
    assert type(linear).__name__ == "GGUFLinear" and "gguf" in backbone.settings().lower()
    plan = kd.find_backbone(path, config=folder).plan(path, block=2, config=folder)
    assert plan.transformer_held < path.stat().st_size


def test_gguf_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        kd.create_descriptor(path)
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kornia-ditf\[gguf\]'"):
        kd.create_descriptor(path)


@pytest.mark.parametrize("beside", ["weight_scale", "scale_weight", "rows", "tiles"])
def test_scaled_float8_weights_are_multiplied_by_their_scale(
    beside: str, tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    folder = tiny_checkpoint("flux")
    plain, scaled = weights_of(folder), Weights()
    for name, value in weights_of(folder).items():
        scaled[name] = value
        if "transformer_blocks" in name and name.endswith("weight") and value.ndim == 2:
            scaled[name] = (value / 0.5).to(torch.float8_e4m3fn)
            plain[name] = scaled[name].float() * 0.5
            kind = {"rows": "weight_scale", "tiles": "weight_scale_inv"}.get(beside, beside)
            shape = {
                "rows": (len(value), 1),
                "tiles": (-(-len(value) // 128), -(-value.shape[1] // 128)),
            }
            scale = torch.full(shape.get(beside, (1,)), 0.5)
            scaled[name.removesuffix("weight") + kind] = scale
    expected = describe(save(plain, tmp_path / "plain.safetensors"), config=folder)
    stored = save(scaled, tmp_path / "scaled.safetensors", quantization="fp8")
    assert torch.equal(describe(stored, config=folder), expected)


def test_other_files_are_told_what_they_are(tiny_checkpoint: Checkpoints, tmp_path: Path) -> None:
    tensors = {"encoder.conv_in.weight": torch.zeros(4, 3, 3, 3)}
    path = save(tensors, tmp_path / "other.safetensors")
    for options in ({}, {"config": tiny_checkpoint("flux")}):
        with pytest.raises(CheckpointError, match="holds a VAE and no transformer"):
            kd.create_descriptor(path, **options)
    web = tmp_path / "page.safetensors"
    web.write_text("<!DOCTYPE html>")
    with pytest.raises(CheckpointError, match=r"page.safetensors is a web page"):
        kd.create_descriptor(web)


def test_a_gguf_of_a_language_model_is_told_its_architecture(tmp_path: Path) -> None:
    tensors = {"token_embd.weight": torch.zeros(4, 32), "blk.0.attn_q.weight": torch.zeros(32, 32)}
    path = gguf_file(tensors, tmp_path / "llama.gguf", architecture="llama")
    with pytest.raises(CheckpointError, match=r"language model.*\(its architecture: llama\)"):
        kd.create_descriptor(path)


def test_shards_and_cut_files_are_refused(tiny_checkpoint: Checkpoints, tmp_path: Path) -> None:
    weights = as_flux(weights_of(tiny_checkpoint("flux")))
    whole = save(weights, tmp_path / "whole.safetensors")
    shard = tmp_path / "model-00001-of-00002.safetensors"
    shard.write_bytes(whole.read_bytes())
    with pytest.raises(CheckpointError, match="one shard of several"):
        as_file(shard)
    whole.write_bytes(whole.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        kd.create_descriptor(whole)


def test_a_shape_that_is_not_published_asks_for_its_configuration(
    tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    path = save(as_flux(weights_of(tiny_checkpoint("flux-schnell"))), tmp_path / "a.safetensors")
    other = tiny_checkpoint("flux")  # with an embedding of guidance
    with pytest.raises(CheckpointError, match=r"flux.1-schnell.*pass config="):
        kd.create_descriptor(path)
    with pytest.raises(CheckpointError, match="give config=.*the model's own folder"):
        kd.create_descriptor(path, config=other)
    with pytest.raises(InvalidArgumentError, match="is not one; leave it out"):
        kd.create_descriptor(tiny_checkpoint("flux"), config=tiny_checkpoint("flux"))


def test_a_published_architecture_is_known_by_its_shapes(tmp_path: Path) -> None:
    from kornia_ditf.backbones import configs
    from kornia_ditf.loading.weights import build_empty

    architecture = dict(configs.sd3(24, positions=192, qk_norm=False)["transformer"])
    model = build_empty(architecture, "SD3Transformer2DModel", torch.bfloat16)
    sizes = {name: value.numel() for name, value in model.state_dict().items()}
    offset, header = 0, dict[str, Any]()
    for name, value in model.state_dict().items():
        end = offset + sizes[name]
        header[name] = {"dtype": "F8_E4M3", "shape": [*value.shape], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    path = tmp_path / "sd3.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)  # a hole: nothing is written to the disk
    with safe_open(path, "pt") as opened:
        assert len(opened.keys()) == len(sizes)
    spec = kd.find_backbone(path)
    assert (spec.blocks, spec.width, spec.base) == (24, 1536, "stabilityai/" + SD3)
    assert spec.architecture["transformer"]["pos_embed_max_size"] == 192


SD3 = "stable-diffusion-3-medium-diffusers"
