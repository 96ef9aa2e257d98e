"""Every transformer is called as its own pipeline calls it: time, packing, positions, texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_layered
from kornia_ditf_zoo.catalogue import SPECS
from pipeline_calls import calls_of, compare_calls
from tiny_zoo import SAVERS
from torch import Tensor

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone

SPEC = {spec.name: spec for spec in SPECS}
Checkpoints = Callable[[str], Path]


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of ERNIE-Image's scheduler
@pytest.mark.parametrize("name", SAVERS)
@torch.no_grad()
def test_the_transformer_is_called_as_its_pipeline_calls_it(
    name: str, tiny_zoo: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "omnigen":
        without_torchvision(monkeypatch)
    monkeypatch.setattr(pipeline_qwenimage_layered, "calculate_dimensions", lambda *_: (96, 64))
    backbone = SPEC[name].load(tiny_zoo(name))
    assert isinstance(backbone, DiffusersBackbone)
    rows, columns = 4 * backbone.patch_size, 6 * backbone.patch_size
    latent = torch.randn(
        1, backbone.latent_channels, rows, columns, generator=torch.Generator().manual_seed(0)
    )
    found, expected = calls_of(backbone, SPEC[name].pipeline, tiny_zoo(name), latent)
    if name in WITHOUT:
        expected = WITHOUT[name](expected)
    if name == "glm-image":  # the call with a draft of the image; without, it is only left out
        assert found.pop("prior_token_drop").all()
    if name == "qwen-image":
        assert expected["encoder_hidden_states_mask"] is None
    compare_calls(found, expected)


def without_padding(call: Mapping[str, Any]) -> dict[str, Any]:
    """Cut off the texts' padding that Chroma's mask excludes."""
    words = call["encoder_hidden_states"].shape[1]
    length = int(call["attention_mask"][0, :words].sum())
    text = call["encoder_hidden_states"][:, :length]
    return {**call, "encoder_hidden_states": text, "txt_ids": call["txt_ids"][:length]}


def without_left_padding(call: Mapping[str, Any]) -> dict[str, Any]:
    """Cut off the padding in front of Ideogram's words, which is a segment of its own."""
    padding = int((call["segment_ids"][0] == -1).sum())
    return {
        argument: value[:, padding:] if isinstance(value, Tensor) and value.ndim > 1 else value
        for argument, value in call.items()
    }


def without_layers(call: Mapping[str, Any]) -> dict[str, Any]:
    """Take Qwen-Image-Layered's picture to decompose for the one that is described."""
    tokens = call["hidden_states"].shape[1] // 2
    places = [shapes[-1:] for shapes in call["img_shapes"]]
    return {**call, "hidden_states": call["hidden_states"][:, :tokens], "img_shapes": places}


def without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OmniGen's pipeline prepare prompts, for which it uses nothing of torchvision."""
    from diffusers.pipelines.omnigen import pipeline_omnigen, processor_omnigen

    processor = processor_omnigen.OmniGenMultiModalProcessor
    monkeypatch.setattr(processor_omnigen, "transforms", MagicMock(), raising=False)
    monkeypatch.setattr(pipeline_omnigen, "OmniGenMultiModalProcessor", processor, raising=False)


def without_negative_prompt(call: Mapping[str, Any]) -> dict[str, Any]:
    """Take OmniGen's first row, without the padding to the negative prompt's length."""
    padding = int((call["position_ids"][0] == 0).sum()) - 1
    rows = {name: v[:1] if isinstance(v, Tensor) else v for name, v in call.items()}
    for argument in ("input_ids", "position_ids", "attention_mask"):
        rows[argument] = rows[argument][:, padding:]
    return {**rows, "attention_mask": rows["attention_mask"][..., padding:]}


# What some pipelines pad, or call besides, that is left out here.
WITHOUT: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "chroma1-hd": without_padding,
    "ideogram-4": without_left_padding,
    "qwen-image-layered": without_layers,
    "omnigen": without_negative_prompt,
}
