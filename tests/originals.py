"""Weights of FLUX and SD3 in the names and the fused tensors of their authors' own code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

Weights = dict[str, Tensor]
_TIMES = {"timestep_embedder": "time_in", "text_embedder": "vector_in"} | {
    "guidance_embedder": "guidance_in"
}


class _Renamed:
    """Builds weights in other names from those of diffusers."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.given, self.made = weights, Weights()

    def move(self, old: str, new: str) -> None:
        for kind in ("weight", "bias"):
            if f"{old}.{kind}" in self.given:
                self.made[f"{new}.{kind}"] = self.given[f"{old}.{kind}"]

    def join(self, prefix: str, parts: tuple[str, ...], new: str) -> None:
        for kind in ("weight", "bias"):
            joined = [self.given[f"{prefix}{part}.{kind}"] for part in parts]
            self.made[f"{new}.{kind}"] = torch.cat(joined)

    def swap(self, old: str, new: str) -> None:
        """diffusers has scale before shift where the originals have shift before scale."""
        for kind in ("weight", "bias"):
            scale, shift = self.given[f"{old}.{kind}"].chunk(2)
            self.made[f"{new}.{kind}"] = torch.cat([shift, scale])

    def gain(self, old: str, new: str) -> None:
        if f"{old}.weight" in self.given:
            self.made[new] = self.given[f"{old}.weight"]

    def count(self, name: str) -> int:
        return len({key.split(".")[1] for key in self.given if key.startswith(f"{name}.")})


def as_flux(weights: Mapping[str, Tensor]) -> Weights:
    new = _Renamed(weights)
    for own, original in _TIMES.items():
        new.move(f"time_text_embed.{own}.linear_1", f"{original}.in_layer")
        new.move(f"time_text_embed.{own}.linear_2", f"{original}.out_layer")
    new.move("context_embedder", "txt_in")
    new.move("x_embedder", "img_in")
    new.move("proj_out", "final_layer.linear")
    new.swap("norm_out.linear", "final_layer.adaLN_modulation.1")
    for index in range(new.count("transformer_blocks")):
        old, own = f"transformer_blocks.{index}.", f"double_blocks.{index}."
        image, text = ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")
        streams = (
            ("img", "norm1", image, "ff", "to_out.0", "norm_"),
            ("txt", "norm1_context", text, "ff_context", "to_add_out", "norm_added_"),
        )
        for kind, norm, parts, feed, out, gain in streams:
            new.move(f"{old}{norm}.linear", f"{own}{kind}_mod.lin")
            new.join(f"{old}attn.", parts, f"{own}{kind}_attn.qkv")
            new.move(f"{old}attn.{out}", f"{own}{kind}_attn.proj")
            new.move(f"{old}{feed}.net.0.proj", f"{own}{kind}_mlp.0")
            new.move(f"{old}{feed}.net.2", f"{own}{kind}_mlp.2")
            new.gain(f"{old}attn.{gain}q", f"{own}{kind}_attn.norm.query_norm.scale")
            new.gain(f"{old}attn.{gain}k", f"{own}{kind}_attn.norm.key_norm.scale")
    for index in range(new.count("single_transformer_blocks")):
        old, own = f"single_transformer_blocks.{index}.", f"single_blocks.{index}."
        new.move(f"{old}norm.linear", f"{own}modulation.lin")
        new.move(f"{old}proj_out", f"{own}linear2")
        new.join(old, ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), f"{own}linear1")
        new.gain(f"{old}attn.norm_q", f"{own}norm.query_norm.scale")
        new.gain(f"{old}attn.norm_k", f"{own}norm.key_norm.scale")
    return new.made


def as_sd3(weights: Mapping[str, Tensor]) -> Weights:
    new = _Renamed(weights)
    new.made["pos_embed"] = weights["pos_embed.pos_embed"]
    new.move("pos_embed.proj", "x_embedder.proj")
    new.move("context_embedder", "context_embedder")
    new.move("proj_out", "final_layer.linear")
    new.swap("norm_out.linear", "final_layer.adaLN_modulation.1")
    for own, original in (("timestep_embedder", "t_embedder"), ("text_embedder", "y_embedder")):
        new.move(f"time_text_embed.{own}.linear_1", f"{original}.mlp.0")
        new.move(f"time_text_embed.{own}.linear_2", f"{original}.mlp.2")
    last = new.count("transformer_blocks") - 1
    image, text = ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")
    for index in range(last + 1):
        old, own = f"transformer_blocks.{index}.", f"joint_blocks.{index}."
        new.move(f"{old}norm1.linear", f"{own}x_block.adaLN_modulation.1")
        context = (f"{old}norm1_context.linear", f"{own}context_block.adaLN_modulation.1")
        (new.swap if index == last else new.move)(*context)
        for name, attention, parts, out, gain in (
            ("x_block", "attn", image, "to_out.0", "norm_"),
            ("context_block", "attn", text, "to_add_out", "norm_added_"),
            ("x_block", "attn2", image, "to_out.0", "norm_"),
        ):
            if f"{old}{attention}.{parts[0]}.weight" in weights:
                new.join(f"{old}{attention}.", parts, f"{own}{name}.{attention}.qkv")
                new.move(f"{old}{attention}.{out}", f"{own}{name}.{attention}.proj")
                for letter in "qk":
                    ln = f"{own}{name}.{attention}.ln_{letter}.weight"
                    new.gain(f"{old}{attention}.{gain}{letter}", ln)
        for name, feed in (("x_block", "ff"), ("context_block", "ff_context")):
            new.move(f"{old}{feed}.net.0.proj", f"{own}{name}.mlp.fc1")
            new.move(f"{old}{feed}.net.2", f"{own}{name}.mlp.fc2")
    return new.made


_VAE = (
    (r"(en|de)coder\.(?:down|up)_blocks\.(\d+)\.resnets\.(\d+)", r"\1coder.LEVEL\2.block.\3"),
    (r"(?:down|up)_blocks\.(\d+)\.(down|up)samplers\.0", r"LEVEL\1.\2sample"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    ("conv_shortcut", "nin_shortcut"),
    ("conv_norm_out", "norm_out"),
)


def as_ldm_vae(weights: Mapping[str, Tensor]) -> Weights:
    """Name a VAE as latent diffusion did: levels of the decoder count from the image."""
    levels = len({name.split(".")[2] for name in weights if name.startswith("decoder.up_blocks")})
    made = Weights()
    for name, value in weights.items():
        own = name
        for pattern, replacement in _VAE:
            own = re.sub(pattern, replacement, own)
        level = re.search(r"LEVEL(\d+)", own)
        if level is not None:
            up = name.startswith("decoder")
            number = levels - 1 - int(level[1]) if up else int(level[1])
            own = own.replace(level[0], f"{'up' if up else 'down'}.{number}")
        attends = "attn_1" in own and value.ndim == 2
        made[own] = value[..., None, None] if attends else value
    return made


def weights_of(folder: Path, part: str = "transformer") -> Weights:
    found: Weights = {}
    for shard in (folder / part).glob("*.safetensors"):
        found |= load_file(shard)
    return found


def gguf_file(weights: Mapping[str, Tensor], path: Path, *, architecture: str = "sd3") -> Path:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in weights.items():
        kind = gguf.GGMLQuantizationType.Q8_0
        fits = value.ndim == 2 and value.shape[1] % 32 == 0
        data = gguf.quants.quantize(value.numpy(), kind) if fits else value.numpy()
        writer.add_tensor(name, data, raw_dtype=kind if fits else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
