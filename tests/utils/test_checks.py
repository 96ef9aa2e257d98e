from __future__ import annotations

import numpy as np
import pytest
import torch

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.utils.checks import check_integer, check_timestep, read_device, read_dtype


def test_integers_of_other_libraries_are_integers() -> None:
    check_integer("block", np.int64(3), minimum=0)
    check_timestep(np.float32(260))


@pytest.mark.parametrize("name", ["bfloat16", "bf16", "torch.bfloat16", torch.bfloat16])
def test_a_dtype_has_several_names(name: object) -> None:
    assert read_dtype(name) is torch.bfloat16


@pytest.mark.parametrize("name", ["float23", "int8", torch.int8, 3, None, "nn"])
def test_what_is_no_dtype_of_weights_is_refused(name: object) -> None:
    with pytest.raises(InvalidArgumentError, match="dtype must be one of float32"):
        read_dtype(name)


def test_a_device_that_is_here_is_taken() -> None:
    assert read_device("cpu") == read_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "meta", 3, None])
def test_a_device_that_is_not_here_is_named(name: object) -> None:
    with pytest.raises(InvalidArgumentError, match="device .* cannot be used"):
        read_device(name)
