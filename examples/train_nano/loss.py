"""The correspondence loss: a symmetric InfoNCE between the tokens of two views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from views import Array, Pair


def read_at(tokens: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """Read a descriptor map bilinearly.

    Args:
        tokens: shape (D, rows, columns).
        points: (x, y) in pixels of the image, shape (K, 2).
        size: (height, width) of the image.

    Returns:
        descriptors, shape (K, D).
    """
    scale = points.new_tensor([size[1], size[0]])
    grid = (points + 0.5) / scale * 2 - 1
    read = F.grid_sample(tokens[None], grid[None, None], padding_mode="border", align_corners=False)
    return read[0, :, 0].T


@dataclass(frozen=True, eq=False)
class Agreement:
    """The symmetric InfoNCE of a batch, and how often the true match scores highest."""

    loss: Tensor
    accuracy: float


def correspondence_loss(
    tokens_a: Tensor,
    tokens_b: Tensor,
    pairs: Sequence[Pair],
    picks: Sequence[Array],
    size: tuple[int, int],
    temperature: float = 0.06,
    near_px: float = 4.5,
) -> Agreement:
    """Tell each picked token's true match from all else in its image and in others.

    Args:
        tokens_a: descriptors of the first views, shape (B, D, rows, columns).
        tokens_b: descriptors of the second views, same shape.
        pairs: the B pairs.
        picks: for each pair, indices of the tokens of the first view that are compared.
        size: (height, width) of the views.
        temperature: divides the cosines.
        near_px: tokens this near to the true match are neither right nor wrong; in the finer of
            two views of different scale, so many times farther as it is finer.
    """
    device = tokens_a.device
    centres = torch.from_numpy(pairs[0].points_a).float().to(device)
    here, there, logits_here, logits_there = [], [], [], []
    for index, (pair, pick) in enumerate(zip(pairs, picks, strict=True)):
        points_a = centres[torch.from_numpy(pick).to(device)]
        points_b = torch.from_numpy(pair.points_b[pick]).float().to(device)
        grid_a = F.normalize(tokens_a[index].flatten(1).T, dim=1)
        grid_b = F.normalize(tokens_b[index].flatten(1).T, dim=1)
        a = grid_a[torch.from_numpy(pick).to(device)]
        b = F.normalize(read_at(tokens_b[index], points_b, size), dim=1)
        zoom = pair.zoom()
        near_a = torch.cdist(points_a, centres) < near_px * max(1, 1 / zoom)
        near_b = torch.cdist(points_b, centres) < near_px * max(1, zoom)
        logits_here.append((a @ grid_b.T).masked_fill(near_b, -1e4))
        logits_there.append((b @ grid_a.T).masked_fill(near_a, -1e4))
        here.append(a)
        there.append(b)
    owner = torch.cat([torch.full((len(a),), i, device=device) for i, a in enumerate(here)])
    same = owner[:, None] == owner
    all_a, all_b = torch.cat(here), torch.cat(there)
    right = (all_a * all_b).sum(1, keepdim=True)
    others = (all_a @ all_b.T).masked_fill(same, -1e4)
    first = torch.zeros(len(right), dtype=torch.long, device=device)
    losses, hits = [], []
    for inside, outside in ((logits_here, others), (logits_there, others.T)):
        logits = torch.cat([right, torch.cat(inside), outside], 1) / temperature
        losses.append(F.cross_entropy(logits, first))
        hits.append((logits.argmax(1) == 0).float().mean().item())
    return Agreement((losses[0] + losses[1]) / 2, sum(hits) / 2)
