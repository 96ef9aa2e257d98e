from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.checks import full_precision
from kornia_ditf.matching.nearest import mutual_nearest

FLAGS = torch.backends.cuda.matmul


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("newer", [False, True])
def test_products_on_cuda_are_whole_whichever_way_the_caller_shortened_them(newer: bool) -> None:
    if not newer:
        torch.set_float32_matmul_precision("high")
    elif hasattr(FLAGS, "fp32_precision"):
        FLAGS.fp32_precision = "tf32"  # from here on, reading allow_tf32 raises
    with full_precision(torch.device("cuda")):
        assert getattr(FLAGS, "fp32_precision", "ieee") == "ieee"
        assert not FLAGS.allow_bf16_reduced_precision_reduction
    assert getattr(FLAGS, "fp32_precision", "tf32") == "tf32"
    assert newer or FLAGS.allow_tf32
    assert FLAGS.allow_bf16_reduced_precision_reduction


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), ()])
def test_descriptors_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"descriptors_b must have the shape \(M, D\)"):
        mutual_nearest(torch.ones(3, 4), torch.ones(shape))


def test_descriptors_on_two_devices_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="got cpu and meta"):
        mutual_nearest(torch.ones(3, 4), torch.ones(3, 4, device="meta"))
