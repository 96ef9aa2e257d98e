"""What the tests of captures share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy_transformer import TEXT, TOKENS, WIDTH, ToyTransformer


@pytest.fixture
def toy() -> ToyTransformer:
    torch.manual_seed(0)
    return ToyTransformer().eval().requires_grad_(False)


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"hidden": (2, TOKENS, WIDTH), "text": (2, TEXT, WIDTH), "emb": (2, WIDTH)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
