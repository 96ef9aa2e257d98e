from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from kornia_ditf.errors import DamagedFileError, InvalidArgumentError
from kornia_ditf.types import DescriptorMap, Frame
from kornia_ditf.types.storage import decode, encode
from kornia_ditf.utils.files import save_sealed


def tokens(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    sizes = 10 ** torch.empty(shape[-2:]).uniform_(-30, 30, generator=generator)
    return torch.randn(shape, generator=generator) * sizes


def test_int8_is_off_by_half_a_step_of_each_token_however_large_it_is() -> None:
    data = tokens(2, 24, 5, 7)
    stored = encode({"block_3": data}, "int8")
    assert stored["block_3"].dtype == torch.int8
    assert stored["block_3_scale"].shape == (2, 1, 5, 7)
    restored = decode(stored)
    assert set(restored) == {"block_3"}
    largest = data.abs().amax(1, keepdim=True)
    assert bool(((restored["block_3"] - data).abs() <= 0.5001 * largest / 127).all())


def test_tokens_of_zeros_stay_zeros() -> None:
    assert not decode(encode({"a": torch.zeros(4, 2, 2)}, "int8"))["a"].any()


@pytest.mark.parametrize("store", ["float32", "float16"])
def test_floating_point_formats_are_restored_as_they_are(store: str) -> None:
    data = torch.randn(3, 2, 2, dtype=torch.float64).transpose(1, 2)
    stored = encode({"a": data}, store)
    assert stored["a"].dtype == getattr(torch, store) and stored["a"].is_contiguous()
    assert torch.equal(decode(stored)["a"], data.to(stored["a"].dtype))


@pytest.mark.parametrize(
    ("store", "value", "words"),
    [
        ("float16", 1e6, "store float32 or int8"),
        ("int8", torch.nan, "NaN or infinity"),
        ("float32", torch.inf, "NaN or infinity"),
        ("int4", 1.0, "did you mean 'int8'"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(store: str, value: float, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        encode({"a": torch.tensor([1.0, value]).view(2, 1, 1)}, store)


def test_a_map_is_saved_in_a_quarter_and_read_in_float32(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    described = DescriptorMap(torch.randn(2, 64, 6, 8), Frame((48, 64), (48, 64)))
    described.save(path, {"image": "a.png"}, store="int8")
    assert sum(each.nbytes for each in load_file(path).values()) < described.data.nbytes * 0.27
    read = DescriptorMap.load(path)
    assert read.data.dtype == torch.float32 and read.frame == described.frame
    assert float(F.cosine_similarity(read.data, described.data, dim=1).min()) > 0.9999


def test_int8_without_its_scales_is_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_sealed(path, {"descriptors": torch.zeros(4, 2, 2, dtype=torch.int8)}, {})
    with pytest.raises(DamagedFileError, match="descriptors_scale"):
        DescriptorMap.load(path)
