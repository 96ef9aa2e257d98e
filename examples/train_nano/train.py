"""Train one stage of nano.

    python examples/train_nano/train.py --data DIR --out DIR

Two losses on one network: flow matching at random noise, and correspondence between the block's
descriptors of two views at little noise. Step number and seed decide every draw, so a run that
was stopped anywhere goes on from `checkpoint.safetensors` as if it had not been.
`--correspondence-weight 0` trains the denoiser alone, the control of the model card. With
`--keep-descriptor` as well, all that makes the descriptor is frozen, to the bit, and only what
stands behind it learns on.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from pathlib import Path

import numpy as np
import photographs
import torch
from loss import correspondence_loss
from network import BLOCK, CELL, Network, build, describe, flow_losses, noisy, read, write
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from views import Image, as_tensor, draw_pair, patterned, pyramid

# (height, width) of the views and how many pairs of them make a step.
SHAPES = (
    ((96, 96), 10),
    ((128, 128), 6),
    ((128, 160), 5),
    ((192, 160), 3),
    ((160, 256), 2),
    ((240, 176), 2),
    ((256, 320), 1),
    ((336, 256), 1),
)
PICKS = 1536  # tokens compared in a step, shared among its pairs
FLOW_PIXELS = 128 * 128  # of an image that is denoised
PATTERNED = 72
# Noise of the views that are compared, at most; the descriptor is read at timestep 0.
COMPARED_LEVEL = 0.03
AVERAGE = 0.99
COLUMNS = ("step", "correspondence", "accuracy", "flow", "learning_rate", "seconds")


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm up over 100 steps, hold, and fall linearly to a fiftieth over the last 40 %."""
    falling = max(0.02, (steps - step) / (0.4 * steps))
    return peak * min(1.0, (step + 1) / 100, falling)


def losses(
    network: Network,
    pyramids: list[list[Image]],
    step: int,
    options: argparse.Namespace,
    device: torch.device,
) -> tuple[Tensor, Tensor, float]:
    """Draw a step's batch; return its correspondence loss, its flow loss and its accuracy."""
    rng = np.random.default_rng([options.seed, step])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    size, count = SHAPES[rng.integers(len(SHAPES))]
    pairs = [draw_pair(rng, pyramids, size, CELL) for _ in range(count)]
    image_a = as_tensor([pair.view_a for pair in pairs])
    image_b = as_tensor([pair.view_b for pair in pairs])
    images = torch.cat([image_a, image_b])
    level = COMPARED_LEVEL * torch.rand(2 * count, generator=generator) ** 2
    noise = torch.randn(images.shape, generator=generator)
    flow_count = max(1, round(options.flow_images * FLOW_PIXELS / (size[0] * size[1])))
    flow_noise = torch.randn(image_a[:flow_count].shape, generator=generator)
    # Little noise is drawn more often: it is the hardest to tell from texture.
    flow_level = torch.rand(len(flow_noise), generator=generator) ** 1.5
    picks = [
        rng.permutation(np.flatnonzero(pair.visible))[: PICKS // count].astype(np.int64)
        for pair in pairs
    ]

    correspondence, accuracy = torch.zeros(()), 0.0
    with torch.autocast(device.type, torch.bfloat16):
        flow = flow_losses(
            network,
            image_a[:flow_count].to(device),
            flow_noise.to(device),
            flow_level.to(device),
        ).mean()
        if options.correspondence_weight > 0:
            mixed = noisy(images, noise, level).to(device)
            tokens = describe(network, mixed, level.to(device), BLOCK)
    if options.correspondence_weight > 0:
        agreement = correspondence_loss(tokens[:count], tokens[count:], pairs, picks, size)
        correspondence, accuracy = agreement.loss, agreement.accuracy
    return correspondence, flow, accuracy


def save_checkpoint(
    path: Path,
    network: Network,
    average: Network,
    optimizer: torch.optim.Optimizer,
    step: int,
    options: argparse.Namespace,
) -> None:
    """Write all that the next step depends on, under a temporary name, then rename."""
    tensors = {}
    for name, parameter in network.named_parameters():
        tensors[f"network.{name}"] = parameter.detach().contiguous()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"adam.{key}.{name}"] = torch.as_tensor(value).contiguous()
    for name, parameter in average.named_parameters():
        tensors[f"average.{name}"] = parameter.detach().contiguous()
    settings = {"seed": options.seed, "steps": options.steps, "rate": options.rate}
    temporary = path.with_suffix(".part")
    save_file(tensors, temporary, {"step": str(step), "settings": json.dumps(settings)})
    temporary.replace(path)


def load_checkpoint(
    path: Path,
    network: Network,
    average: Network,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Restore what `save_checkpoint` wrote; return the number of steps done."""
    with safe_open(path, framework="pt") as file, torch.no_grad():
        keys = set(file.keys())
        for name, parameter in network.named_parameters():
            parameter.copy_(file.get_tensor(f"network.{name}"))
            state = ("step", "exp_avg", "exp_avg_sq")
            if f"adam.step.{name}" in keys:
                optimizer.state[parameter] = {
                    key: file.get_tensor(f"adam.{key}.{name}").to(
                        "cpu" if key == "step" else parameter.device
                    )
                    for key in state
                }
        for name, parameter in average.named_parameters():
            parameter.copy_(file.get_tensor(f"average.{name}"))
        return int(file.metadata()["step"])


def parts_behind_descriptor(network: Network) -> list[nn.Parameter]:
    """Freeze all that the described block's input and modulation depend on; return the rest."""
    network.requires_grad_(False)
    for part in (*network.transformer_blocks[BLOCK:], network.norm_out, network.proj_out):
        part.requires_grad_(True)
    network.scale_shift_table.requires_grad_(True)
    network.transformer_blocks[BLOCK].scale_shift_table.requires_grad_(False)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def begin_log(log: Path, done: int) -> float:
    """Write the log's head, or drop what follows the checkpoint; return the seconds so far."""
    lines = log.read_text().splitlines() if done else [",".join(COLUMNS)]
    kept = lines[:1] + [line for line in lines[1:] if int(line.split(",")[0]) <= done]
    log.write_text("\n".join(kept) + "\n")
    return float(kept[-1].split(",")[-1]) if len(kept) > 1 else 0.0


def plot(log: Path, picture: Path) -> None:
    """Draw the losses of a log."""
    from matplotlib.figure import Figure

    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(8, 3))
    axes = figure.subplots(1, 3)
    for axis, column in zip(axes, ("correspondence", "accuracy", "flow"), strict=True):
        axis.plot([int(row["step"]) for row in rows], [float(row[column]) for row in rows])
        axis.set_title(column)
        axis.set_xlabel("step")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


def train(options: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.data / "photographs.csv").exists():
        photographs.collect(options.data)
    images = photographs.split(options.data)[0]
    pyramids = [pyramid(image) for image in images + patterned(images, PATTERNED, options.seed)]

    network = (read(options.start) if options.start else build()).to(device).train()
    average = build().to(device)
    average.load_state_dict(network.state_dict())
    learned = list(network.parameters())
    if options.keep_descriptor:
        learned = parts_behind_descriptor(network)
    optimizer = torch.optim.AdamW(learned, options.rate, betas=(0.9, 0.97), weight_decay=0.02)
    checkpoint, log = options.out / "checkpoint.safetensors", options.out / "log.csv"
    done = load_checkpoint(checkpoint, network, average, optimizer) if checkpoint.exists() else 0
    began = saved = time.monotonic()
    began -= begin_log(log, done)
    recent: list[tuple[float, float, float]] = []
    for step in range(done, options.steps):
        rate = learning_rate(step, options.steps, options.rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        correspondence, flow, accuracy = losses(network, pyramids, step, options, device)
        total = options.correspondence_weight * correspondence + options.flow_weight * flow
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        keep = min(AVERAGE, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - keep)
        recent.append((correspondence.item(), accuracy, flow.item()))
        if not math.isfinite(total.item()):
            raise FloatingPointError(f"the loss is {total.item()} at step {step}")
        if (step + 1) % 20 == 0:
            means = np.mean(recent, 0)
            recent = []
            row = (step + 1, *means.round(4), round(rate, 6), round(time.monotonic() - began, 1))
            with log.open("a") as file:
                csv.writer(file).writerow(row)
            shown = zip(COLUMNS, row, strict=True)
            print("  ".join(f"{name} {value:g}" for name, value in shown), flush=True)
        if time.monotonic() - saved > options.save_every or step + 1 == options.steps:
            save_checkpoint(checkpoint, network, average, optimizer, step + 1, options)
            write(average, options.out / "nano_weights")
            plot(log, options.out / "losses.png")
            saved = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the photographs")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and weights")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every", type=float, default=180, help="seconds between checkpoints")
    parser.add_argument("--correspondence-weight", type=float, default=1.0)
    parser.add_argument("--keep-descriptor", action="store_true", help="train what is behind it")
    parser.add_argument("--flow-weight", type=float, default=3.0)
    parser.add_argument("--flow-images", type=int, default=1, help="denoised a step, of 128 x 128")
    parser.add_argument("--start", type=Path, help="nano_weights to continue from")
    options = parser.parse_args()
    if options.keep_descriptor and (options.correspondence_weight or not options.start):
        parser.error("--keep-descriptor needs --start and --correspondence-weight 0")
    train(options)


if __name__ == "__main__":
    main()
