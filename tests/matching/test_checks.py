from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from kornia_ditf.matching.checks import full_precision

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
