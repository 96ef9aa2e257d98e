"""Recognising weights that are stored quantised, which mean nothing without their scales."""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor

from kornia_ditf.errors import CheckpointError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.header import Header, read_header

_PLAIN = re.compile(r"F64|F32|F16|BF16|F8_E[45]M[23](FNUZ)?")
# Buffers that some writers store besides: positions and counters are int64, masks are bool.
_NOT_PACKED = re.compile(r"F64|F32|F16|BF16|I64|BOOL")
# Names under which bitsandbytes, GPTQ, AWQ, torchao, quanto, compressed-tensors, nunchaku and
# fp8 exporters keep packed weights, or the scales beside them.
_PARTS = re.compile(
    r"(\w*_)?scales?(_\w+)?|w?scales|w?zeros?|q(weight|zeros)|\w*_(packed|qdata|zero_point)|"
    r"SCB|absmax|amax|zp|codebooks?|lut|quant_\w+|\w*quantized\w*|\w*_quant\w*|g_idx|"
    r"smooth(_\w+)?|wtscale",
    re.IGNORECASE,
)
_TILE = 128
_ADVICE = (
    "name the model's unquantised weights; quantization_config=... quantises them while they are "
    "loaded"
)


def refuse_quantised(file: str, header: Header, *, known: Collection[str] = ()) -> list[str]:
    """Raise unless every weight in a safetensors file means what its numbers say.

    Args:
        file: named in the error.
        header: of the file.
        known: names of tensors that the model itself has.

    Returns:
        names of other tensors in the modules of the known ones, which the model has no place for.

    Raises:
        CheckpointError: weights are stored quantised.
    """
    notes = header.metadata.items()
    sign = next((key for key, text in notes if "quant" in key or '"_type"' in text), None)
    for name, dtype in header.dtypes.items():
        if name.endswith("weight") and not _PLAIN.fullmatch(dtype):
            sign = sign or f"{name} is stored as {dtype}"
        if name not in known and _is_companion(name, header.dtypes):
            sign = sign or name
    modules = {_module(name) for name in known} - {""}
    extra = sorted(name for name in header.dtypes.keys() - known if _module(name) in modules)
    for name in extra:
        weight = header.dtypes.get(f"{_module(name)}.weight", "")
        if not _NOT_PACKED.fullmatch(header.dtypes[name]) or weight.startswith("F8"):
            sign = sign or name
    if sign is not None:
        raise CheckpointError(f"{file} holds quantised weights ({sign}); {_ADVICE}")
    return extra


def find_scales(header: Header) -> dict[str, str]:
    """Find the float8 weights of a file that have a scale of their own: weight to scale."""
    scales = {}
    for name in header.dtypes:
        base = name.removesuffix("weight")
        for beside in (f"{name}_scale", f"{base}scale_weight", f"{base}weight_scale_inv"):
            if name != base and header.dtypes[name].startswith("F8") and beside in header.dtypes:
                scales[name] = beside
    return scales


def rescale(weight: Tensor, scale: Tensor) -> Tensor:
    """Return a float8 weight in float32, multiplied by its scale: one, one per row, or per tile.

    Raises:
        CheckpointError: the scale's shape is none of these.
    """
    scale = scale.float()
    if scale.ndim == 1 and len(scale) == len(weight) > 1:
        scale = scale[:, None]
    tiles = tuple(-(-side // _TILE) for side in weight.shape)
    if scale.shape == tiles and scale.numel() > 1:
        for axis, side in enumerate(weight.shape):
            scale = scale.repeat_interleave(_TILE, axis).narrow(axis, 0, side)
    try:
        return weight.float() * scale
    except RuntimeError as error:
        raise CheckpointError(
            f"a float8 weight of {tuple(weight.shape)} has a scale of {tuple(scale.shape)}, which "
            f"is neither one number, nor one per row, nor one per tile of 128 x 128; {_ADVICE}"
        ) from error


def check_plain(checkpoint: Checkpoint, subfolder: str, stem: str = "model") -> None:
    """Check the weights of a part that another library loads, downloading them.

    What its configuration calls quantised is left to that library, which restores or refuses it.

    Raises:
        CheckpointError: weights are stored quantised, missing or damaged.
    """
    if subfolder and not checkpoint.has_part(subfolder):
        return
    config = f"{subfolder}/config.json" if subfolder else "config.json"
    if checkpoint.json(config).get("quantization_config") is None:
        for file in sorted(set(checkpoint.shards(subfolder, stem).values())):
            refuse_quantised(file, read_header(checkpoint.file(file)))


def _is_companion(name: str, names: Collection[str]) -> bool:
    """Whether a tensor is a scale or the like beside a weight, or a packed weight itself."""
    module, part = _module(name), name.rpartition(".")[2]
    if part in ("qweight", "weight_packed", "qdata", "_data") or name == "scaled_fp8":
        return True
    if f"{name.partition('.weight.')[0]}.weight" in names and ".weight." in name:
        return True
    return f"{module}.weight" in names and _PARTS.fullmatch(part) is not None


def _module(name: str) -> str:
    return name.rpartition(".")[0]
