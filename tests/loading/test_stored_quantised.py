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
    path = folder / "transformer/config.json"
    stored = {"quantization_config": {"quant_method": package}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **stored}))
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=f"as which it is stored.*pip install {package}"):
        kd.create_descriptor(folder)


@pytest.mark.gpu  # diffusers quantises with bitsandbytes on an accelerator alone
@pytest.mark.filterwarnings("default")  # the quantisers' own
def test_a_folder_of_bitsandbytes_gives_what_diffusers_gives(
    tiny_checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")
    import diffusers

    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(tiny_checkpoint("flux"), tmp_path / "flux"))
    config = diffusers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    options: dict[str, Any] = {"subfolder": "transformer", "dtype": torch.float32}
    with without_progress_bars():
        model: Any = diffusers.FluxTransformer2DModel.from_pretrained(
            folder, quantization_config=config, **options
        )
        shutil.rmtree(folder / "transformer")
        model.save_pretrained(folder / "transformer")
        whole: Any = diffusers.FluxTransformer2DModel.from_pretrained(folder, **options)
    vae = diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae")
    image, given = torch.rand(1, 3, 40, 61), {"long_side": 64, "treatment": "adaln"}
    expected = kd.create_descriptor((whole, vae), prompt_encoder=folder, **given)(image)
    assert torch.equal(kd.create_descriptor(folder, **given)(image).data, expected.data)
