"""Random descriptors, and what an operation of them takes: tensors, operations, host reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kornia_ditf.types import DescriptorMap, Frame, Matches


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_map(
    size: tuple[int, int] = (37, 53),
    grid: tuple[int, int] = (5, 7),
    *,
    batch: int = 1,
    width: int = 16,
    seed: int = 0,
) -> DescriptorMap:
    return DescriptorMap(random(batch, width, *grid, seed=seed), Frame(size, (32, 32)))


def random_pixels(described: DescriptorMap, count: int, seed: int = 0) -> Tensor:
    height, width = described.frame.image_size
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, width, (len(described), count), generator=generator)
    y = torch.randint(0, height, (len(described), count), generator=generator)
    return torch.stack([x, y], -1).float()


def assert_same(one: Matches, other: Matches) -> None:
    assert torch.equal(one.points_a, other.points_a)
    assert torch.equal(one.points_b, other.points_b)
    torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """Notes how many elements the largest tensor has that anything makes."""

    elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor):
                # A view is as large as what is held for it.
                self.elements = max(self.elements, value.untyped_storage().nbytes() // 4)
        return out


class Operations(TorchDispatchMode):
    """Counts operations, and those that wait for their result on the host."""

    count = reads = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += 1
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "isin", "unique")
        self.reads += any(name in str(func) for name in waits)
        return func(*args, **(kwargs or {}))
