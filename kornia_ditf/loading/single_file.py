"""Transformers in a single file, in diffusers' names or converted by diffusers from the original.

The converter runs twice: on shapes alone, to learn which tensors of the file a block needs, and
then with their values. All others stay without memory and are never read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kornia_ditf.errors import CheckpointError, InvalidArgumentError
from kornia_ditf.loading.weight_file import WeightFile
from kornia_ditf.loading.weights import Layout, build_empty, fill, leave_out
from kornia_ditf.utils.borrowing import is_aligned


class _Converting(TorchFunctionMode):
    """Notes which tensors of a file each converted one is made of."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.sources = {id(value): {name} for name, value in tensors.items()}
        self._alive: list[Tensor] = []  # so that no other tensor gets the id of one of them

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.split:
            args, kwargs = _fit_split(*args, **(kwargs or {})), {}
        result = func(*args, **(kwargs or {}))
        used = [self.sources.get(id(each), set()) for each in _tensors(args)]
        for each in _tensors(result):
            self.sources.setdefault(id(each), set()).update(*used)
            self._alive.append(each)
        return result


def convert(
    file: WeightFile, layout: Layout, config: Mapping[str, Any], named: bool
) -> tuple[dict[str, Tensor], dict[str, set[str]]]:
    """Convert the shapes of a file, without its values.

    Args:
        file: the file.
        layout: the transformer's class, and where it keeps its blocks.
        config: the transformer's configuration, as far as it is known.
        named: whether the file has the names of diffusers already.

    Returns:
        the converted tensors on the device `meta`, and the names of those that each is made of.

    Raises:
        CheckpointError: diffusers cannot convert it to this class.
    """
    converting = _Converting(file.tensors)
    with converting:
        converted = _convert(file, file.tensors, layout, config, named)
    sources = {name: converting.sources.get(id(v), set()) for name, v in converted.items()}
    return converted, sources


def load_single_file(
    file: WeightFile,
    layout: Layout,
    config: dict[str, Any],
    *,
    last_block: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Load a transformer from a single file up to a block; a GGUF one stays quantised.

    Args:
        file: the file.
        layout: where the transformer keeps its blocks.
        config: its configuration.
        last_block: the last block to load; None loads all.
        dtype: of the weights; of a GGUF file's, the dtype in which it computes.

    Raises:
        CheckpointError: a tensor is missing, damaged, or of another shape.
        InvalidArgumentError: the block is out of range, or the dtype holds no fractions.
    """
    if not dtype.is_floating_point:
        raise InvalidArgumentError(f"dtype must be a floating-point one, got {dtype}")
    model, needed = plan_single_file(file, layout, config, last_block=last_block, dtype=dtype)
    values = {n: file.read(n) if n in needed else v for n, v in file.tensors.items()}
    with _Converting({}):
        converted = _convert(file, values, layout, config, _is_named(file, model))
    wanted = {name: converted[name] for name in model.state_dict()}
    if file.is_gguf:
        return _fill_gguf(model, wanted, dtype)
    return fill(model, ((n, v if is_aligned(v) else v.clone()) for n, v in wanted.items()), dtype)


def plan_single_file(
    file: WeightFile,
    layout: Layout,
    config: dict[str, Any],
    *,
    last_block: int | None,
    dtype: torch.dtype,
) -> tuple[nn.Module, set[str]]:
    """Build the empty transformer up to a block, and name the tensors of the file that it needs.

    Raises:
        CheckpointError: a tensor is missing or of another shape.
        InvalidArgumentError: the block is out of range.
    """
    model = build_empty(config, layout.class_name, dtype, layout.model_class)
    leave_out(model, layout.block_lists, layout.unused, last_block)
    converted, sources = convert(file, layout, config, _is_named(file, model))
    needed: set[str] = set()
    for name, value in model.state_dict().items():
        if name not in converted:
            raise CheckpointError(
                file.other()
                or f"{file.path} has no tensor for {name!r}: it is incomplete, or its "
                "configuration is of another model; give config=... with the model's own folder"
            )
        if converted[name].shape != value.shape:
            raise CheckpointError(
                f"{file.path}: {name!r} has the shape {tuple(converted[name].shape)}, but the "
                f"configuration asks for {tuple(value.shape)}; give config=... with the model's "
                "own folder"
            )
        needed |= sources[name]
    return model, needed


def infer_config(
    file: WeightFile, layout: Layout, counts: Sequence[str], known: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Find the configuration of a file's transformer among known ones, with its own depth.

    Args:
        file: the file.
        layout: where the transformer keeps its blocks.
        counts: keys of the configuration with the number of blocks, in the order of the lists.
        known: configurations to try.

    Returns:
        the first that fits all shapes; None where none does.
    """
    depths = _depths(file, layout)
    if not all(depths):
        return None
    for each in known:
        config = {**each, **dict(zip(counts, depths, strict=False))}
        try:
            plan_single_file(file, layout, config, last_block=None, dtype=torch.float32)
        except CheckpointError:
            continue
        return config
    return None


def converts(file: WeightFile, layout: Layout) -> bool:
    """Whether a file becomes a transformer with these lists of blocks, of whatever shape."""
    return all(_depths(file, layout))


def _depths(file: WeightFile, layout: Layout) -> list[int]:
    """Count the blocks of each list; zeros where the file cannot be converted."""
    lists = [f"{name}." for name in layout.block_lists]
    named = any(name.startswith(lists[0]) for name in _named(file.tensors))
    try:
        converted, _ = convert(file, layout, {}, named)
    except CheckpointError:
        return [0]
    return [len({n.split(".")[1] for n in converted if n.startswith(each)}) for each in lists]


def _convert(
    file: WeightFile,
    tensors: Mapping[str, Tensor],
    layout: Layout,
    config: Mapping[str, Any],
    named: bool,
) -> dict[str, Tensor]:
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    known: Any = SINGLE_FILE_LOADABLE_CLASSES
    if named or layout.class_name not in known:
        return _named(tensors)
    converter = known[layout.class_name]["checkpoint_mapping_fn"]
    try:
        converted: dict[str, Tensor] = converter(checkpoint=_named(tensors), config=dict(config))
    except Exception as error:  # of code that takes for granted what the file lacks
        raise CheckpointError(
            file.other()
            or f"{file.path} is no {layout.class_name} that diffusers converts "
            f"({type(error).__name__}: {error})"
        ) from error
    return converted


def _named(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("model.diffusion_model."): v for name, v in tensors.items()}


def _is_named(file: WeightFile, model: nn.Module) -> bool:
    """Whether a file has the names of diffusers."""
    return model.state_dict().keys() <= _named(file.tensors).keys()


def _fill_gguf(model: nn.Module, values: Mapping[str, Tensor], dtype: torch.dtype) -> nn.Module:
    from diffusers import GGUFQuantizationConfig
    from diffusers.models.model_loading_utils import load_model_dict_into_meta
    from diffusers.quantizers.auto import DiffusersAutoQuantizer
    from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor

    quantisation = GGUFQuantizationConfig(compute_dtype=dtype)
    quantizer = DiffusersAutoQuantizer.from_config(quantisation)
    in_float32 = list(getattr(model, "_keep_in_fp32_modules", None) or ())
    linear = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    values = {
        # What is no layer's weight is computed with as it is.
        name: dequantize_gguf_tensor(value).to(dtype)
        if isinstance(value, GGUFParameter) and name not in linear
        else value
        for name, value in values.items()
    }
    quantizer.preprocess_model(
        model=model, device_map=None, state_dict=values, keep_in_fp32_modules=in_float32
    )
    load_model_dict_into_meta(
        model,
        values,
        dtype=dtype,
        device_map={"": torch.device("cpu")},
        hf_quantizer=quantizer,
        keep_in_fp32_modules=in_float32,
        unexpected_keys=[],
    )
    quantizer.postprocess_model(model)
    owner: Any = model
    owner.register_to_config(quantization_config={"quant_method": "gguf"})
    return model.eval().requires_grad_(False)


def _fit_split(tensor: Tensor, sizes: Any, dim: int = 0) -> tuple[Any, ...]:
    """Fit the sizes of a split to the tensor: some converters know the published width alone."""
    if isinstance(sizes, tuple | list) and sum(sizes) != tensor.shape[dim]:
        sizes = [size * tensor.shape[dim] // sum(sizes) for size in sizes]
    return tensor, sizes, dim


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for each in values:
            yield from _tensors(each)
