"""Transformers in a single file, in diffusers' names or converted by diffusers from the original.

The converter runs twice: on shapes alone, to learn which tensors of the file a block needs, and
then with their values. All others stay without memory and are never read.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kornia_ditf.errors import CheckpointError, InvalidArgumentError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.weight_file import WeightFile
from kornia_ditf.loading.weights import Layout, build_empty, fill, leave_out, leave_out_decoder
from kornia_ditf.utils.borrowing import is_aligned

logger = logging.getLogger(__name__)

# Where files that hold more than a transformer keep it, and what else they hold.
_DIFFUSION = "diffusion_model."
_VAE = ("first_stage_model.", "vae.")
_TEXT = ("text_encoders.", "text_encoder", "cond_stage_model.", "conditioner.")
# What wraps a whole model: torch's DataParallel, compilers, trainers and pipelines.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "transformer.")


class _OtherShapeError(CheckpointError):
    """A file has all tensors of a model, and one of another shape."""


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
    wanted = _read(file, _transformer_names(file), layout.class_name, config, model, needed)
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
    return model, _needed(file, _transformer_names(file), layout.class_name, config, model)


def holds_vae(file: WeightFile) -> bool:
    """Whether a file holds a VAE beside its transformer."""
    return not file.is_gguf and any(name.startswith(_VAE) for name in file.tensors)


def load_own_vae(file: WeightFile, class_name: str, checkpoint: Checkpoint) -> nn.Module | None:
    """Load the encoder of the VAE that a file holds beside its transformer.

    Args:
        file: the file.
        class_name: the VAE's class in diffusers.
        checkpoint: has the VAE's configuration.

    Returns:
        the VAE in float32, or None where the file has none that diffusers converts.

    Raises:
        CheckpointError: the file is damaged.
    """
    told = [name for name in file.tensors if name.startswith(_TEXT)]
    if told:
        logger.warning(
            "%s also holds text encoders (%r); those of %s are used",
            *(file.path, told[0], checkpoint.source),
        )
    if not holds_vae(file):
        return None
    names = {n: n.removeprefix(p) for p in _VAE for n in file.tensors if n.startswith(p)}
    config = checkpoint.json("vae/config.json")
    model = build_empty(config, class_name, torch.float32)
    leave_out_decoder(model)
    try:
        needed = _needed(file, names, class_name, config, model)
    except CheckpointError as error:
        source = checkpoint.source
        logger.warning("the VAE in %s is not used, but that of %s: %s", file.path, source, error)
        return None
    values = _read(file, names, class_name, config, model, needed)
    return fill(model, values.items(), torch.float32)


def _needed(
    file: WeightFile,
    names: Mapping[str, str],
    class_name: str,
    config: Mapping[str, Any],
    model: nn.Module,
) -> set[str]:
    """Name the tensors of a file that a model is made of."""
    converted, sources = _convert_shapes(file, names, class_name, config, model)
    wanted = model.state_dict()
    missing = next((name for name in wanted if name not in converted), None)
    if missing is not None:
        raise CheckpointError(
            file.other()
            or f"{file.path} has no tensor for {missing!r}: it is incomplete, or its "
            "configuration is of another model; give config=... with the model's own folder"
        )
    for name, value in wanted.items():
        if converted[name].shape != value.shape:
            raise _OtherShapeError(
                f"{file.path}: {name!r} has the shape {tuple(converted[name].shape)}, but the "
                f"configuration asks for {tuple(value.shape)}; give config=... with the model's "
                "own folder"
            )
    return {source for name in wanted for source in sources[name]}


def _read(
    file: WeightFile,
    names: Mapping[str, str],
    class_name: str,
    config: Mapping[str, Any],
    model: nn.Module,
    needed: set[str],
) -> dict[str, Tensor]:
    """Read a model's tensors by their names in diffusers."""
    values = {own: file.read(n) if n in needed else file.tensors[n] for n, own in names.items()}
    with _Converting({}):
        converted = _convert(file, values, class_name, config, _has_names(model, names))
    return {name: converted[name] for name in model.state_dict()}


def _convert_shapes(
    file: WeightFile,
    names: Mapping[str, str],
    class_name: str,
    config: Mapping[str, Any],
    model: nn.Module,
) -> tuple[dict[str, Tensor], dict[str, set[str]]]:
    """Convert the shapes of a file, and name the tensors that each one is made of."""
    converting = _Converting({name: file.tensors[name] for name in names})
    shapes = {own: file.tensors[name] for name, own in names.items()}
    with converting:
        converted = _convert(file, shapes, class_name, config, _has_names(model, names))
    sources = {name: converting.sources.get(id(v), set()) for name, v in converted.items()}
    return converted, sources


def default_config(class_name: str) -> dict[str, Any]:
    """Return the configuration that a class in diffusers has by default, often a published one."""
    import diffusers

    kind = getattr(diffusers, class_name, None)
    options = {} if kind is None else inspect.signature(kind).parameters
    config = {
        name: each.default for name, each in options.items() if each.default is not each.empty
    }
    return {**config, "_class_name": class_name}


def infer_config(
    file: WeightFile, layout: Layout, counts: Sequence[str], known: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, int]:
    """Try whether a file's transformer has a known configuration, but for its depth.

    Args:
        file: the file.
        layout: where the transformer keeps its blocks.
        counts: keys of the configuration with the number of blocks, in the order of the lists.
        known: the configuration.

    Returns:
        the configuration with the file's depth, or None; and how much of the file fits: 0 nothing,
        1 the lists of blocks, 2 the names of all tensors, 3 their shapes too.
    """
    depths = _depths(file, layout)
    if not all(depths):
        return None, 0
    config = {**known, **dict(zip(counts, depths, strict=False))}
    try:
        plan_single_file(file, layout, config, last_block=None, dtype=torch.float32)
    except _OtherShapeError:
        return None, 2
    except CheckpointError:
        return None, 1
    return config, 3


def _depths(file: WeightFile, layout: Layout) -> list[int]:
    """Count the blocks of each list; zeros where the file cannot be converted."""
    lists = [f"{name}." for name in layout.block_lists]
    names = _transformer_names(file)
    named = any(own.startswith(lists[0]) for own in names.values())
    shapes = {own: file.tensors[name] for name, own in names.items()}
    try:
        with _Converting({}):
            converted = _convert(file, shapes, layout.class_name, {}, named)
    except CheckpointError:
        return [0]
    return [len({n.split(".")[1] for n in converted if n.startswith(each)}) for each in lists]


def _convert(
    file: WeightFile,
    tensors: dict[str, Tensor],
    class_name: str,
    config: Mapping[str, Any],
    named: bool,
) -> dict[str, Tensor]:
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    known: Any = SINGLE_FILE_LOADABLE_CLASSES
    if named or class_name not in known:
        return tensors
    converter = known[class_name]["checkpoint_mapping_fn"]
    try:
        converted: dict[str, Tensor] = converter(checkpoint=tensors, config=dict(config))
    except Exception as error:  # of code that takes for granted what the file lacks
        raise CheckpointError(
            file.other()
            or f"{file.path} is no {class_name} that diffusers converts "
            f"({type(error).__name__}: {error})"
        ) from error
    return converted


def _transformer_names(file: WeightFile) -> dict[str, str]:
    """Map the names of a transformer's tensors in a file to those without the file's prefixes."""
    names = {name: name for name in file.tensors if not name.startswith((*_VAE, *_TEXT))}
    inside = [n for n in names if _DIFFUSION in n]
    if inside:  # what else there is belongs to samplers and averages
        return {n: n.partition(_DIFFUSION)[2] for n in inside if "model_ema" not in n}
    for prefix in _WRAPPERS:
        if names and all(own.startswith(prefix) for own in names.values()):
            names = {name: own.removeprefix(prefix) for name, own in names.items()}
    return names


def _has_names(model: nn.Module, names: Mapping[str, str]) -> bool:
    """Whether tensors have the names of diffusers."""
    return model.state_dict().keys() <= set(names.values())


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
