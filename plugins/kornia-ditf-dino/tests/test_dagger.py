"""The preset of DiTF's rows marked with a dagger, on tiny models of both architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from independent import mutual_nearest
from kornia_ditf_dino.descriptor import IMAGENET_MEAN, IMAGENET_STD
from tiny import save_tiny
from torch import Tensor

import kornia_ditf as kd
from kornia_ditf.testing.tiny import seeded

LAYERS, PATCH = 12, 4


def save_dinov2(folder: Path) -> Path:
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "mlp_ratio": 2}
    config = transformers.Dinov2Config(
        **sizes, num_hidden_layers=LAYERS, patch_size=PATCH, image_size=24
    )
    with seeded():
        transformers.Dinov2Model(config).save_pretrained(folder)
    return folder


@torch.no_grad()
def layer_11(folder: Path, image: Tensor) -> Tensor:
    """Tokens of layer 11 by transformers itself, shape (1, 32, rows, columns)."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    model: Any = transformers.Dinov2Model.from_pretrained(folder).eval()
    tokens = model((image - mean) / std, output_hidden_states=True).hidden_states[LAYERS][:, 1:]
    rows, columns = (side // PATCH for side in image.shape[2:])
    return torch.as_tensor(tokens).transpose(1, 2).reshape(1, -1, rows, columns)


def unit(data: Tensor) -> Tensor:
    return F.normalize(data.double(), dim=1)


def test_the_dagger_preset_is_flux_and_dinov2_of_unit_length_reduced_together(
    tmp_path: Path,
) -> None:
    flux, dino = save_tiny("flux", tmp_path / "flux"), save_dinov2(tmp_path / "dino")
    settings = {"block": 3, "long_side": 64, "ensemble": 2, "massive_channels": (1,)}
    small: dict[str, Any] = {
        "flux.1-dev-960": {"source": flux, **settings},
        "dinov2-base": {"source": dino, "long_side": 48},
    }
    fused = kd.create_descriptor("ditf-dino-dagger", options=small)
    assert fused.pca == 1280
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(1, 3, 48, side, generator=generator) for side in (48, 36)]
    parts = []
    for image in images:
        transformer = kd.create_descriptor("flux.1-dev", source=flux, timestep=260, **settings)
        tokens = layer_11(dino, image)
        finest = F.interpolate(transformer(image).data, tokens.shape[2:], mode="bilinear")
        parts.append(torch.cat([unit(finest), unit(tokens)], 1))
    for image, expected in zip(images, parts, strict=True):
        torch.testing.assert_close(fused(image).data.double(), expected, rtol=0, atol=1e-5)

    fused.pca = 10  # of 64 channels, as 1280 is of 3840
    joined = np.concatenate([part[0].flatten(1).T.numpy() for part in parts])
    centred = joined - joined.mean(0)
    reduced = torch.from_numpy(centred @ np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :10])
    found = kd.match_images(*images, fused, search="none", refined=False)
    counts = [part[0, 0].numel() for part in parts]
    expected_pairs = mutual_nearest(*torch.split(reduced, counts))
    maps = found.maps
    centres = [each.centres() for each in maps]
    places = {
        (tuple(centres[0][i].tolist()), tuple(centres[1][j].tolist())) for i, j in expected_pairs
    }
    pairs = zip(found.matches.points_a.tolist(), found.matches.points_b.tolist(), strict=True)
    assert {(tuple(a), tuple(b)) for a, b in pairs} == places


def test_its_protocol_reduces_the_pair_as_the_preset_does() -> None:
    protocol, spec = kd.find_protocol("ditf-spair-dagger"), kd.find_descriptor("ditf-dino-dagger")
    assert isinstance(spec, kd.DescriptorSpec)
    assert (protocol.pca, protocol.fit.side) == (spec.pca, 960) == (1280, 960)
    assert spec.protocol == protocol.name and "second-hand" in spec.source
