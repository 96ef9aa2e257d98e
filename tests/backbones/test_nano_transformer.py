"""nano's transformer as a plain module, against diffusers' own class."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kornia_ditf.backbones.nano import WEIGHTS
from kornia_ditf.backbones.nano_transformer import NanoTransformer

CONFIG = json.loads((WEIGHTS / "transformer" / "config.json").read_text())
STATE = load_file(WEIGHTS / "transformer" / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_whole_forward_equals_diffusers_exactly(dtype: torch.dtype) -> None:
    import diffusers

    their_class: Any = diffusers.SanaTransformer2DModel
    theirs = their_class.from_config(CONFIG)
    ours = NanoTransformer.from_config(CONFIG)
    for model in (theirs, ours):
        model.load_state_dict(STATE)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 24, 40, generator=generator).to(dtype)
    caption, timestep = torch.zeros(2, 1, 8, dtype=dtype), torch.tensor([0.0, 345.0])
    with torch.no_grad():
        expected = theirs(image, caption, timestep, return_dict=False)[0]
        assert torch.equal(ours(image, caption, timestep), expected)


@pytest.mark.parametrize(("name", "value"), [("qk_norm", "rms_norm"), ("guidance_embeds", True)])
def test_a_part_that_nano_has_not_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        NanoTransformer.from_config({**CONFIG, name: value})


def test_describing_with_nano_loads_no_model_library() -> None:
    script = (
        "import sys, torch, kornia_ditf; "
        "kornia_ditf.create_descriptor('nano', long_side=32)(torch.rand(1, 3, 32, 32)); "
        "print(*{name.partition('.')[0] for name in sys.modules}, 'torch._dynamo' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"diffusers", "transformers", "sympy", "True"}.isdisjoint(run.stdout.split())
