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

from kornia_ditf.errors import CheckpointError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.weight_file import WeightFile
from kornia_ditf.loading.weights import Layout, build_encoder, fill, find_class
from kornia_ditf.utils.borrowing import align

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


class _Part:
    """A model in a file, whose tensors diffusers converts from their original names.

    `names` are those of its tensors in the file, with what they are called without prefixes.
    """

    def __init__(
        self,
        file: WeightFile,
        names: Mapping[str, str],
        class_name: str,
        config: Mapping[str, Any],
    ) -> None:
        self.file, self.names, self.class_name, self.config = file, names, class_name, config

    def needed(self, model: nn.Module) -> set[str]:
        """Return the names of the file's tensors that an empty model needs.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        wanted, path = model.state_dict(), self.file.path
        shapes = self.file.tensors
        with _Converting({name: shapes[name] for name in self.names}) as converting:
            converted = self.convert(shapes, named=self._is_named(model))
        missing = next((name for name in wanted if name not in converted), None)
        if missing is not None:
            raise CheckpointError(
                self.file.other()
                or f"{path} has no tensor for {missing!r}: it is incomplete, or its configuration "
                "is of another model; give config=... with the model's own folder"
            )
        for name, value in wanted.items():
            if converted[name].shape != value.shape:
                raise _OtherShapeError(
                    f"{path}: {name!r} has the shape {tuple(converted[name].shape)}, but the "
                    f"configuration asks for {tuple(value.shape)}; give config=... with the "
                    "model's own folder"
                )
        return {source for name in wanted for source in converting.sources[id(converted[name])]}

    def read(self, model: nn.Module, needed: set[str]) -> dict[str, Tensor]:
        """Read an empty model's tensors by their names in diffusers."""
        file = self.file
        values = {n: file.read(n) if n in needed else file.tensors[n] for n in self.names}
        with _Converting({}):
            converted = self.convert(values, named=self._is_named(model))
        return {name: converted[name] for name in model.state_dict()}

    def convert(self, values: Mapping[str, Tensor], *, named: bool) -> dict[str, Tensor]:
        """Convert tensors by their names in the file; `named` ones have those of diffusers."""
        from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

        known: Any = SINGLE_FILE_LOADABLE_CLASSES
        tensors = {own: values[name] for name, own in self.names.items()}
        if named or self.class_name not in known:
            return tensors
        converter = known[self.class_name]["checkpoint_mapping_fn"]
        try:
            converted: dict[str, Tensor] = converter(checkpoint=tensors, config=dict(self.config))
        except Exception as error:  # of code that takes for granted what the file lacks
            raise CheckpointError(
                self.file.other()
                or f"{self.file.path} is no {self.class_name} that diffusers converts "
                f"({type(error).__name__}: {error})"
            ) from error
        return converted

    def _is_named(self, model: nn.Module) -> bool:
        return model.state_dict().keys() <= set(self.names.values())


def load_single_file(
    file: WeightFile,
    layout: Layout,
    config: Mapping[str, Any],
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
    model, needed = plan_single_file(file, layout, config, last_block=last_block, dtype=dtype)
    values = _transformer(file, layout, config).read(model, needed)
    if file.is_gguf:
        return _fill_gguf(model, values, dtype)
    return fill(model, ((name, align(value)) for name, value in values.items()), dtype)


def plan_single_file(
    file: WeightFile,
    layout: Layout,
    config: Mapping[str, Any],
    *,
    last_block: int | None,
    dtype: torch.dtype,
) -> tuple[nn.Module, set[str]]:
    """Build the empty transformer up to a block, and name the tensors of the file that it needs.

    Arguments and errors as of `load_single_file`.
    """
    model = layout.build(config, dtype, last_block)
    return model, _transformer(file, layout, config).needed(model)


def holds_vae(file: WeightFile) -> bool:
    """Whether a file holds a VAE beside its transformer."""
    return not file.is_gguf and any(name.startswith(_VAE) for name in file.tensors)


def load_own_vae(file: WeightFile, class_name: str, checkpoint: Checkpoint) -> nn.Module | None:
    """Load the encoder of the VAE that a file holds beside its transformer, in float32.

    The checkpoint has its configuration. None is returned where the file has no VAE that diffusers
    converts.

    Raises:
        CheckpointError: the file is damaged.
    """
    encoders = [name for name in file.tensors if name.startswith(_TEXT)]
    if encoders:
        logger.warning(
            "%s also holds text encoders (%r); those of %s are used",
            *(file.path, encoders[0], checkpoint.source),
        )
    if not holds_vae(file):
        return None
    names = {n: n.removeprefix(p) for p in _VAE for n in file.tensors if n.startswith(p)}
    config = checkpoint.json("vae/config.json")
    model = build_encoder(config, class_name)
    part = _Part(file, names, class_name, config)
    try:
        needed = part.needed(model)
    except CheckpointError as error:
        source = checkpoint.source
        logger.warning("the VAE in %s is not used, but that of %s: %s", file.path, source, error)
        return None
    return fill(model, part.read(model, needed).items(), torch.float32)


def default_config(class_name: str) -> dict[str, Any]:
    """Return the configuration that a class in diffusers has by default, often a published one."""
    try:
        options = dict(inspect.signature(find_class(class_name)).parameters)
    except CheckpointError:  # of another version of diffusers
        options = {}
    config = {
        name: each.default for name, each in options.items() if each.default is not each.empty
    }
    return {**config, "_class_name": class_name.rpartition(".")[2]}


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
    part = _transformer(file, layout, {})
    named = any(own.startswith(lists[0]) for own in part.names.values())
    try:
        with _Converting({}):
            converted = part.convert(file.tensors, named=named)
    except CheckpointError:
        return [0]
    return [len({n.split(".")[1] for n in converted if n.startswith(each)}) for each in lists]


def _transformer(file: WeightFile, layout: Layout, config: Mapping[str, Any]) -> _Part:
    """Find the transformer in a file, whatever prefixes its tensors have."""
    names = {name: name for name in file.tensors if not name.startswith((*_VAE, *_TEXT))}
    inside = [n for n in names if _DIFFUSION in n]
    if inside:  # what else there is belongs to samplers and averages
        names = {n: n.partition(_DIFFUSION)[2] for n in inside if "model_ema" not in n}
    else:
        for prefix in _WRAPPERS:
            if names and all(own.startswith(prefix) for own in names.values()):
                names = {name: own.removeprefix(prefix) for name, own in names.items()}
    return _Part(file, names, layout.class_name, config)


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
