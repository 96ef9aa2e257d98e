"""The plugin on a tiny random model of the real architecture, in the real file layout."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from kornia_ditf_template.lumina import LUMINA_NEXT

from kornia_ditf import find_backbone
from kornia_ditf.testing import check_backbone, tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import LuminaNextDiT2DModel
    from transformers import GemmaConfig, GemmaModel

    folder = tmp_path_factory.mktemp("lumina")
    with tiny.seeded():
        transformer = LuminaNextDiT2DModel(
            sample_size=8,
            hidden_size=32,
            num_layers=3,
            num_kv_heads=2,
            num_attention_heads=2,
            multiple_of=16,
            cross_attention_dim=24,
        )
        tiny.save_transformer(transformer, folder)
        tiny.save_vae(folder, channels=4)
        tiny.save_scheduler(folder)
        text = GemmaConfig(
            vocab_size=tiny.save_letters(folder),
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=12,
        )
        GemmaModel(text).save_pretrained(folder / "text_encoder")
        tiny.save_index(folder, "LuminaPipeline")
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_keeps_every_rule(checkpoint: Path, dtype: str) -> None:
    check_backbone(LUMINA_NEXT, checkpoint, dtype=dtype)


@torch.no_grad()
def test_the_transformer_is_called_as_its_pipeline_calls_it(checkpoint: Path) -> None:
    """Time convention, packing and positions: what the conformance suite cannot know."""
    from diffusers import LuminaPipeline

    seen: dict[str, Any] = {}

    def note(_: object, __: object, inputs: dict[str, Any]) -> None:
        seen.update(inputs)

    pipeline = LuminaPipeline.from_pretrained(checkpoint, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.transformer.register_forward_pre_hook(note, with_kwargs=True)
    latent = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    pipeline("a cat", guidance_scale=1, sigmas=[0.25], height=64, width=96, latents=latent)

    backbone: Any = LUMINA_NEXT.load(checkpoint)
    found = backbone.transformer_inputs(latent, 250, backbone.condition(["a cat"]))
    theirs, ours = (call["encoder_mask"].bool() for call in (seen, found))
    for name in ("encoder_hidden_states", "encoder_mask"):  # both pad, to other lengths
        assert torch.equal(found[name][ours], seen[name][theirs].to(found[name].dtype))
    assert torch.equal(found["image_rotary_emb"], seen["image_rotary_emb"][:4, :6])
    assert torch.equal(found["hidden_states"], seen["hidden_states"])
    torch.testing.assert_close(found["timestep"], seen["timestep"])


def test_it_is_found_when_it_is_installed(checkpoint: Path) -> None:
    assert "template" in entry_points(group="kornia_ditf").names
    assert find_backbone("lumina-next-sft") is LUMINA_NEXT
    assert find_backbone(checkpoint).load == LUMINA_NEXT.load
