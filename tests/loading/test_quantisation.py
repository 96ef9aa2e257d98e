from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kornia_ditf.errors import CheckpointError
from kornia_ditf.loading.header import read_header
from kornia_ditf.loading.quantisation import refuse_quantised

FP8, INT8 = torch.float8_e4m3fn, torch.int8
LAYER = "blocks.0.to_q"


def check(folder: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> None:
    path = folder / "weights.safetensors"
    save_file(tensors, path, metadata=metadata or None)
    refuse_quantised(str(path), read_header(path))


@pytest.mark.parametrize(
    "companion",
    [
        "weight_scale",
        "weight_scale_inv",
        "weight_scale_2",
        "scale_weight",
        "input_scale",
        "scale_input",
        "weight.absmax",
        "weight.quant_map",
        "weight.quant_state.bitsandbytes__nf4",
        "SCB",
        "weight._scale",
        "weight_zero_point",
        "weight_qdata",
        "comfy_quant",
        "wscales",
        "smooth",
    ],
)
def test_a_scale_beside_a_weight_is_refused_by_its_name(tmp_path: Path, companion: str) -> None:
    tensors = {
        f"{LAYER}.weight": torch.ones(4, 4, dtype=FP8),
        f"{LAYER}.{companion}": torch.ones(1),
    }
    with pytest.raises(CheckpointError, match=rf"quantised weights \({LAYER}\.{companion}\)"):
        check(tmp_path, tensors)


@pytest.mark.parametrize("packed", ["qweight", "weight_packed", "weight._data"])
def test_packed_weights_in_place_of_a_weight_are_refused(tmp_path: Path, packed: str) -> None:
    with pytest.raises(CheckpointError, match=f"quantised weights .*{packed}"):
        check(tmp_path, {f"{LAYER}.{packed}": torch.ones(4, 2, dtype=torch.int32)})


def test_integers_as_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is stored as I8"):
        check(tmp_path, {f"{LAYER}.weight": torch.ones(4, 4, dtype=INT8)})


def test_a_note_of_the_writer_is_enough(tmp_path: Path) -> None:
    tensors = {f"{LAYER}.weight": torch.ones(4, 4)}
    with pytest.raises(CheckpointError, match="quantization_config"):
        check(tmp_path, tensors, quantization_config="{}")


def test_plain_weights_of_every_float_and_what_models_have_besides_are_taken(
    tmp_path: Path,
) -> None:
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.float64, FP8)
    plain = {f"{LAYER}{n}.weight": torch.ones(4, 4).to(d) for n, d in enumerate(dtypes)}
    others = {
        "logit_scale": torch.ones(()),
        "blocks.0.scale_shift_table": torch.ones(6, 4),
        "embeddings.position_ids": torch.arange(4),
        f"{LAYER}0.bias": torch.ones(4),
        "layer_scale1.lambda1": torch.ones(4),
    }
    check(tmp_path, {**plain, **others}, format="pt")
