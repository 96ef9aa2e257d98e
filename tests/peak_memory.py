"""Measure the peak memory of loading a FLUX of half a gigabyte, up to a block and whole.

python tests/peak_memory.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTH, DOUBLE, SINGLE, BLOCK = 1024, 4, 12, 5
CONFIG = {
    "_class_name": "FluxTransformer2DModel",
    "attention_head_dim": 128,
    "num_attention_heads": WIDTH // 128,
    "num_layers": DOUBLE,
    "num_single_layers": SINGLE,
    "joint_attention_dim": 4096,
    "guidance_embeds": True,
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _call("make", folder)
        for name in ("flux.safetensors", "flux.gguf"):
            path = Path(folder) / name
            print(f"{name}: {path.stat().st_size / 2**20:.0f} MiB")
            for block in (BLOCK, None):
                until = "whole" if block is None else f"up to block {block}"
                print(f"  {until}: {_call('load', str(path), json.dumps(block)).strip()} MiB")


def make(folder: str) -> None:
    """Write random weights in FLUX's original names, as bfloat16 and as GGUF in Q8_0."""
    import torch
    from originals import as_flux, gguf_file
    from safetensors.torch import save_file

    from kornia_ditf.loading.weights import build_empty

    model = build_empty(CONFIG, "FluxTransformer2DModel", torch.float32)
    random = {name: torch.randn(value.shape) / 50 for name, value in model.state_dict().items()}
    weights = as_flux(random)
    gguf_file(weights, Path(folder) / "flux.gguf", architecture="flux")
    half = {name: value.bfloat16().contiguous() for name, value in weights.items()}
    save_file(half, Path(folder) / "flux.safetensors")


def load(path: str, block: str) -> None:
    """Load a file, and print how far the resident memory grew at its peak."""
    import diffusers  # noqa: F401 - counts as what is there before
    import torch

    from kornia_ditf.backbones.flux import FluxBackbone
    from kornia_ditf.loading.single_file import load_single_file
    from kornia_ditf.loading.weight_file import WeightFile

    load_file, layout = load_single_file, FluxBackbone.layout()
    before = _resident("VmRSS")
    load_file(
        WeightFile(Path(path)), layout, CONFIG, last_block=json.loads(block), dtype=torch.bfloat16
    )
    print((_resident("VmHWM") - before) // 2**10)


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def _call(*arguments: str) -> str:
    here = Path(__file__)
    paths = (str(here.parents[1]), str(here.parent), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    words = [sys.executable, str(here), *arguments]
    return subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    if sys.argv[1:]:
        {"make": make, "load": load}[sys.argv[1]](*sys.argv[2:])
    else:
        main()
