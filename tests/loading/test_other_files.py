"""What files are said to be that are no transformers."""

from __future__ import annotations

import gzip
import pickle  # noqa: TID251 - to be refused
import re
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kornia_ditf.loading.header import read_header
from kornia_ditf.loading.other_files import explain_content, explain_tensors

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flux/model_index.json", "{}")


CONTENTS: dict[str, tuple[str, bytes | Callable[[Path], None]]] = {
    "a pointer of Git LFS": ("a.safetensors", LFS),
    "a web page": ("a.safetensors", b"\n<!DOCTYPE html><html>"),
    "message of a server": ("a.gguf", b'{"error": "Repository is gated"}'),
    "login or the accepted licence": ("a.safetensors", b"Access to model x is restricted"),
    "JSON and no weights; name the folder": ("model_index.json", b'{"_class_name": "X"}'),
    "an archive; unpack it": ("flux.zip", zipped),
    "archive": ("flux.tar.gz", gzip.compress(b"anything")),
    "a picture": ("a.png", b"\x89PNG\r\n\x1a\n"),
    "an ONNX graph": ("a.onnx", b"\x08\x07\x12\x07pytorch"),
    "came before GGUF": ("a.bin", b"tjgg" + bytes(20)),
    "empty; download it again": ("a.safetensors", b""),
    "an HDF5 file": ("a.h5", b"\x89HDF\r\n\x1a\n"),
}


@pytest.mark.parametrize("told", CONTENTS)
def test_files_are_known_by_their_content(told: str, tmp_path: Path) -> None:
    name, content = CONTENTS[told]
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    said = explain_content(path)
    assert said is not None and said.startswith(str(path)) and told in said
    if name.endswith(".safetensors"):
        with pytest.raises(Exception, match=re.escape(said)):  # so is a shard of a folder
            read_header(path)


@pytest.mark.parametrize("length", [0x3C, 0x80, 0x0280, 0x4B50, 0x7B, 0x0A])
def test_a_length_that_looks_like_another_format_does_not_mislead(
    length: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    content = path.read_bytes()
    path.write_bytes(length.to_bytes(8, "little") + content[8:])
    assert explain_content(path) is None


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_comes_with_the_command_that_converts_it(
    old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.ckpt"
    weights = {"a": torch.arange(3.0), "step": 4}
    old_form = {"_use_new_zipfile_serialization": not old}
    torch.save({"state_dict": weights}, path, **old_form)  # noqa: TID251 - to be refused
    said = explain_content(path)
    assert said is not None and "is a pickle" in said
    words = shlex.split(said[said.index("python -c") :])
    monkeypatch.chdir(tmp_path)
    exec(words[2], {})
    assert torch.equal(load_file(tmp_path / "model.safetensors")["a"], torch.arange(3.0))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_every_protocol_are_known(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(pickle.dumps({"a": 1}, protocol))
    assert "is a pickle" in str(explain_content(path))


TENSORS = {
    "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": "a LoRA",
    "diffusion_model.double_blocks.0.img_attn.qkv.lora_down.weight": "a LoRA",
    "lora_unet_down_blocks_1_attentions_0.lora_down.weight": "a LoRA",
    "emb_params": "a textual inversion",
    "clip_l": "a textual inversion",
    "image_proj.norm.weight": "an IP-Adapter",
    "controlnet_x_embedder.weight": "a ControlNet",
    "control_model.input_blocks.0.0.weight": "a ControlNet",
    "encoder.conv_in.weight": "a VAE",
    "first_stage_model.encoder.conv_in.weight": "a VAE",
    "text_model.encoder.layers.0.self_attn.q_proj.weight": "a text encoder",
    "encoder.block.0.layer.0.SelfAttention.q.weight": "a text encoder",
    "model.embed_tokens.weight": "a text encoder or language model",
    "embeddings.cls_token": "an image encoder",
    "model.diffusion_model.label_emb.0.0.weight": "StableDiffusionXLPipeline",
    "model.diffusion_model.input_blocks.1.0.in_layers.0.weight": "StableDiffusionPipeline",
}


@pytest.mark.parametrize("name", TENSORS)
def test_files_of_weights_are_known_by_their_tensors(name: str) -> None:
    said = explain_tensors(Path("a.safetensors"), ["bias", name], {})
    assert str(said).startswith("a.safetensors holds ") and TENSORS[name] in str(said)


def test_a_lora_says_which_model_it_is_for_and_what_to_do() -> None:
    name = "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight"
    said = explain_tensors(Path("style.safetensors"), [name], {"ss_base_model_version": "flux1"})
    assert "(for flux1)" in str(said) and "load_lora_weights('style.safetensors')" in str(said)


def test_a_transformer_beside_its_text_encoders_is_not_taken_for_one() -> None:
    names = ["model.diffusion_model.img_in.weight", "text_encoders.t5xxl.shared.weight"]
    assert explain_tensors(Path("a.safetensors"), names, {}) is None
