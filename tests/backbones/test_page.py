"""The lines of docs/backbones.md on models as users have them run, on tiny checkpoints."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from originals import as_flux, gguf_file, weights_of
from safetensors.torch import save_file

import kornia_ditf as kd
from kornia_ditf.loading.weights import without_deprecations, without_progress_bars, without_remarks

ROOT = Path(__file__).parents[2]


def save_lora(folder: Path, name: str) -> None:
    import diffusers

    peft = pytest.importorskip("peft")
    model: Any = diffusers.FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer")
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    layers = peft.get_peft_model_state_dict(model)
    diffusers.FluxPipeline.save_lora_weights("loras", layers, weight_name=name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_way_of_having_a_model_runs(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(tiny_checkpoint("flux"), "copies/flux"))
    picture = cv2.imread(str(ROOT / "examples/data/graffiti_a.jpg"))
    cv2.imwrite("a.jpg", cv2.resize(picture, (160, 128)))
    original = {name: value.contiguous() for name, value in as_flux(weights_of(folder)).items()}
    save_file(original, "finetuned.safetensors")
    gguf_file(original, tmp_path / "flux1-dev-Q4_K_S.gguf", architecture="flux")
    pytest.importorskip("av")
    from clips import write_clip

    write_clip(Path("clip.mp4"), (0, 40, 130), "mpeg4", "yuv420p", (64, 96))
    half = {name: value.half().contiguous() for name, value in weights_of(folder).items()}
    save_file(half, folder / "transformer/diffusion_pytorch_model.fp16.safetensors")
    page = (ROOT / "docs/backbones.md").read_text("utf-8")
    section = page.partition("## Ways to load a model")[2].partition("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    with without_deprecations(), without_remarks(), without_progress_bars():
        save_lora(folder, "watercolour.safetensors")
        for block in blocks:
            exec(compile(block, "backbones.md", "exec"), names)
            assert isinstance(names.pop("features"), kd.DescriptorMap)
