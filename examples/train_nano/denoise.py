"""Trained weights in, the same descriptor with a better denoiser out.

    python examples/train_nano/denoise.py --data DIR --weights OUT/nano_weights --out OUT

Correspondence takes capacity from denoising. What stands before the described block's modulation
makes the descriptor, and what stands behind it does not: so all up to there is frozen, to the bit,
and only the blocks behind and the head learn on, from flow matching alone. Step number and seed
decide every draw, and a run that was stopped goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import photographs
import torch
from network import BLOCK, CELL, Network, flow_loss, read, write
from torch import Tensor, nn
from train import load_checkpoint, save_checkpoint
from views import Image, as_tensor, draw_pair, pyramid

SIZE, COUNT = (128, 128), 8
AVERAGE = 0.998


def learning_parts(network: Network) -> list[nn.Parameter]:
    """Freeze what the descriptor is made of; return what is left to learn."""
    network.requires_grad_(False)
    parts = [*network.transformer_blocks[BLOCK:], network.norm_out, network.proj_out]
    for part in parts:
        part.requires_grad_(True)
    network.scale_shift_table.requires_grad_(True)
    # The described block's own shift and scale belong to the descriptor.
    network.transformer_blocks[BLOCK].scale_shift_table.requires_grad_(False)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def draw_loss(
    network: Network, pyramids: list[list[Image]], step: int, seed: int, device: torch.device
) -> Tensor:
    """Draw a step's images, noise and noise levels; return their flow loss."""
    rng = np.random.default_rng([seed, 1, step])  # not the draws of train.py
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    images = as_tensor([draw_pair(rng, pyramids, SIZE, CELL).view_a for _ in range(COUNT)])
    noise = torch.randn(images.shape, generator=generator)
    level = torch.sigmoid(torch.randn(len(images), generator=generator))
    with torch.autocast(device.type, torch.bfloat16):
        return flow_loss(network, images.to(device), noise.to(device), level.to(device))


def denoise(options: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    pyramids = [pyramid(image) for image in photographs.split(options.data)[0]]
    network, average = (read(options.weights).to(device) for _ in range(2))
    average.requires_grad_(False)
    learned = learning_parts(network.train())
    optimizer = torch.optim.AdamW(learned, options.rate, betas=(0.9, 0.97), weight_decay=0.02)
    checkpoint = options.out / "denoise.safetensors"
    done = load_checkpoint(checkpoint, network, average, optimizer) if checkpoint.exists() else 0
    began = saved = time.monotonic()
    recent: list[float] = []
    for step in range(done, options.steps):
        fall = min(1.0, (step + 1) / 50, max(0.02, (options.steps - step) / (0.5 * options.steps)))
        for group in optimizer.param_groups:
            group["lr"] = options.rate * fall
        loss = draw_loss(network, pyramids, step, options.seed, device)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        keep = min(AVERAGE, (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), network.parameters(), strict=True):
                if parameter.requires_grad:
                    mean.lerp_(parameter, 1 - keep)
        recent.append(loss.item())
        if (step + 1) % 20 == 0:
            seconds = time.monotonic() - began
            print(f"step {step + 1}  flow {np.mean(recent):.4f}  seconds {seconds:.0f}", flush=True)
            recent = []
        if time.monotonic() - saved > options.save_every or step + 1 == options.steps:
            save_checkpoint(checkpoint, network, average, optimizer, step + 1, options)
            write(average, options.out / "nano_weights")
            saved = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the photographs")
    parser.add_argument("--weights", type=Path, required=True, help="nano_weights of train.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the better weights")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every", type=float, default=180, help="seconds between checkpoints")
    denoise(parser.parse_args())


if __name__ == "__main__":
    main()
