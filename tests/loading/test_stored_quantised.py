from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import kornia_ditf as kd
from kornia_ditf.errors import CheckpointError
from kornia_ditf.loading import weights
from kornia_ditf.loading.weights import without_progress_bars

Checkpoints = Callable[[str], Path]


@pytest.mark.parametrize("package", ["bitsandbytes", "torchao"])
def test_a_folder_names_the_package_that_it_needs(
    package: str,
    tiny_checkpoint: Checkpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint("flux"), tmp_path / "flux"))
    store_quantised(folder, {"quant_method": package})
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=f"which is stored quantised.*pip install {package}"):
        kd.create_descriptor(folder)


def test_the_price_of_a_folder_is_that_of_what_it_stores(
    tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint("flux"), tmp_path / "flux"))
    plain = kd.find_backbone(folder).plan(folder, block=2, dtype=torch.float32)
    store_quantised(folder, {"quant_method": "torchao"})
    plan = kd.find_backbone(folder).plan(folder, block=2, dtype=torch.bfloat16)
    shards = (folder / "transformer").glob("*.safetensors")
    assert plan.transformer_whole == sum(shard.stat().st_size for shard in shards)
    share = plan.transformer_held / plan.transformer_whole
    assert share == pytest.approx(plain.transformer_held / plain.transformer_whole, rel=0.05)
    assert "stored quantised: all of it is loaded" in plan.source and plan.download == {}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["Int8WeightOnlyConfig", "Float8WeightOnlyConfig"])
def test_a_folder_of_torchao_gives_what_diffusers_gives(
    kind: str, tiny_checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    import diffusers

    config = diffusers.TorchAoConfig(getattr(quantization, kind)())
    check_quantised(config, tiny_checkpoint, tmp_path, monkeypatch)


@pytest.mark.gpu  # diffusers quantises with bitsandbytes on an accelerator alone
@pytest.mark.filterwarnings("default")  # the quantisers' own
def test_a_folder_of_bitsandbytes_gives_what_diffusers_gives(
    tiny_checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")
    import diffusers

    config = diffusers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    check_quantised(config, tiny_checkpoint, tmp_path, monkeypatch)


def store_quantised(folder: Path, how: dict[str, Any]) -> None:
    path = folder / "transformer/config.json"
    stored = {**json.loads(path.read_text()), "quantization_config": how}
    path.write_text(json.dumps(stored))


def check_quantised(
    config: Any, tiny_checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Store a folder quantised, and compare its features with those of what diffusers loads."""
    import diffusers

    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(tiny_checkpoint("flux"), tmp_path / "flux"))
    image, given = torch.rand(1, 3, 40, 61), {"long_side": 64, "treatment": "adaln"}
    plain = kd.create_descriptor(folder, **given)(image).data
    options: dict[str, Any] = {"subfolder": "transformer", "dtype": torch.float32}
    with without_progress_bars():
        model: Any = diffusers.FluxTransformer2DModel.from_pretrained(
            folder, quantization_config=config, **options
        )
        shutil.rmtree(folder / "transformer")
        model.save_pretrained(folder / "transformer")
        whole: Any = diffusers.FluxTransformer2DModel.from_pretrained(folder, **options)
    vae = diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae")
    expected = kd.create_descriptor((whole, vae), prompt_encoder=folder, **given)(image)
    assert torch.equal(kd.create_descriptor(folder, **given)(image).data, expected.data)
    assert 0 < (expected.data - plain).norm() < 0.2 * plain.norm()
