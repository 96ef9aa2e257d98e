"""Loading a transformer up to a block, or the encoder of a VAE.

The whole architecture is built without memory, what is never reached is replaced by identities,
and only the tensors that remain are read, each from its own shard. A smaller `num_layers` would be
wrong: the last block of SD3 has another shape, and some families scale by depth.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from kornia_ditf.errors import CheckpointError, InvalidArgumentError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.weight_file import WeightFile
from kornia_ditf.utils.borrowing import align
from kornia_ditf.utils.checks import check_integer
from kornia_ditf.utils.isolation import SharedSetting, building, quiet, translated

logger = logging.getLogger(__name__)

# DiT and PixArt were published before they had classes of their own, told apart by their norm.
_FORMER_CLASS = "Transformer2DModel"
_FORMER_NORMS = {
    "ada_norm_zero": "DiTTransformer2DModel",
    "ada_norm_single": "PixArtTransformer2DModel",
}

_QUANTISERS = {"bitsandbytes": "bitsandbytes", "torchao": "torchao"}

# Attention layers had other names when the oldest VAEs were saved.
_OLD_NAMES = (
    ("to_q", "query"),
    ("to_k", "key"),
    ("to_v", "value"),
    ("to_out.0", "proj_attn"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a diffusers model keeps its blocks, and what it has besides them.

    Args:
        class_name: the model's class in diffusers.
        block_lists: its attributes that hold blocks, in the order in which they run.
        unused: its modules behind the last block, which a capture never reaches.
        model_class: a class of ours to build from the configuration, in place of diffusers'.
    """

    class_name: str
    block_lists: tuple[str, ...]
    unused: tuple[str, ...] = ()
    model_class: type[nn.Module] | None = None

    def build(
        self, config: Mapping[str, Any], dtype: torch.dtype, last_block: int | None
    ) -> nn.Module:
        """Build the model up to a block without memory; see `build_empty` and `leave_out`.

        Raises:
            CheckpointError: the configuration is of another class, or not one of its own.
            InvalidArgumentError: the block is out of range, or the dtype holds no fractions.
        """
        if not dtype.is_floating_point:
            raise InvalidArgumentError(f"dtype must be a floating-point one, got {dtype}")
        model = build_empty(config, self.class_name, dtype, self.model_class)
        leave_out(model, self.block_lists, self.unused, last_block)
        return model


def load_transformer(
    checkpoint: Checkpoint,
    layout: Layout,
    *,
    last_block: int | None = None,
    dtype: torch.dtype = torch.float32,
    quantization_config: object = None,
    subfolder: str = "transformer",
) -> nn.Module:
    """Load a transformer up to a block.

    Args:
        checkpoint: where the files are.
        layout: where it keeps its blocks.
        last_block: the last block to load, counted from 0 through all lists; None loads all.
        dtype: of the weights; a class that keeps modules in float32 keeps them.
        quantization_config: one of diffusers' quantisation configurations. With it, or where the
            checkpoint's own configuration says that it is stored quantised, diffusers loads the
            whole model, and later blocks are released afterwards.
        subfolder: of the checkpoint.

    Returns:
        the transformer in evaluation mode, without gradients; blocks left out are identities.

    Raises:
        CheckpointError: a file or tensor is missing, damaged, or of another model.
        HubError: the hub does not give a file.
        InvalidArgumentError: the block is out of range, or the dtype holds no fractions.
    """
    config = checkpoint.json(f"{subfolder}/config.json")
    model = layout.build(config, dtype, last_block)
    if quantization_config is not None or config.get("quantization_config") is not None:
        class_name = layout.class_name
        model = _load_quantized(checkpoint, class_name, dtype, quantization_config, subfolder)
        leave_out(model, layout.block_lists, layout.unused, last_block)
        return model.eval().requires_grad_(False)
    stored = _read(checkpoint, subfolder, model)
    return fill(model, ((name, align(value)) for name, value in stored), dtype)


def load_vae_encoder(checkpoint: Checkpoint, class_name: str = "AutoencoderKL") -> nn.Module:
    """Load the encoder of a VAE in float32; its decoder is neither read nor held.

    Returns:
        the VAE in evaluation mode, whose `encode` works and whose `decode` does not.

    Raises:
        CheckpointError: a file or tensor is missing, damaged, or of another model.
        HubError: the hub does not give a file.
    """
    config = checkpoint.json("vae/config.json")
    model = build_encoder(config, class_name)
    if config.get("quantization_config") is not None:
        model = _load_quantized(checkpoint, class_name, torch.float32, None, "vae")
        leave_out_decoder(model)
        return model.eval().requires_grad_(False)
    return fill(model, _read(checkpoint, "vae", model), torch.float32)


def build_encoder(config: Mapping[str, Any], class_name: str) -> nn.Module:
    """Build the encoder of a VAE without memory; errors as of `build_empty`."""
    model = build_empty(config, class_name, torch.float32)
    leave_out_decoder(model)
    return model


def find_class(name: str) -> Any:
    """Return a class of diffusers by its name, or of another module by its dotted path.

    Raises:
        CheckpointError: the module cannot be imported, or has no such class.
    """
    module, _, kind = name.rpartition(".")
    with translated(CheckpointError, f"cannot import {module or 'diffusers'}, which has {kind}"):
        owner = import_module(module or "diffusers")
        found = getattr(owner, kind, None)
    if found is None and module:
        raise CheckpointError(f"the module {module} has no class {kind}")
    if found is None:
        raise CheckpointError(
            f"diffusers {owner.__version__} has no {kind}; pip install -U diffusers, or, for a "
            f"class of your own, declare its dotted path, as in 'my_package.models.{kind}'"
        )
    return found


def build_empty(
    config: Mapping[str, Any],
    class_name: str,
    dtype: torch.dtype,
    model_class: type[nn.Module] | None = None,
) -> nn.Module:
    """Build a model whose parameters and stored buffers have shapes and no memory.

    Buffers that are computed and not stored, such as the positions of DiT, hold their values.

    Args:
        config: the model's configuration.
        class_name: its class in diffusers, or the dotted path of another.
        dtype: of its parameters.
        model_class: a class of ours to build from the configuration, in place of diffusers'.

    Raises:
        CheckpointError: the configuration is of another class, or not one of its own.
    """
    from accelerate import init_empty_weights

    named = config.get("_class_name", class_name)
    if named == _FORMER_CLASS:
        named = _FORMER_NORMS.get(str(config.get("norm_type")), named)
    expected = class_name.rpartition(".")[2]
    if named != expected:
        raise CheckpointError(f"expected the configuration of a {expected}, got a {named}")
    build_from: Any = model_class or find_class(class_name)

    def build(*, include_buffers: bool) -> nn.Module:
        # Both change the whole process while the model is built.
        with (
            building(dtype),
            init_empty_weights(include_buffers=include_buffers),
            without_deprecations(),
        ):
            model: nn.Module = build_from.from_config(dict(config))
            return model

    with translated(CheckpointError, f"{class_name} rejects its configuration"):
        # SD3 stores its positions: to compute 384 x 384 of them would take many gigabytes.
        with suppress(RuntimeError):  # some classes ask for values while they are built
            model = build(include_buffers=True)
            if not _lacks_values(model):
                return model
        return build(include_buffers=False)


def _lacks_values(model: nn.Module) -> bool:
    """Whether a model built without memory needs values that no checkpoint stores."""
    stored = model.state_dict().keys()
    if any(buffer.is_meta for name, buffer in model.named_buffers() if name not in stored):
        return True
    attributes = [value for module in model.modules() for value in vars(module).values()]
    lists = [value for value in attributes if isinstance(value, list | tuple)]
    values = chain(attributes, *lists)  # Lumina2 keeps its rotations in a list
    return any(isinstance(value, Tensor) and value.is_meta for value in values)


def tensor_dtype(model: nn.Module, name: str, dtype: torch.dtype) -> torch.dtype:
    """Choose the dtype of a model's tensor; some classes keep some modules in float32."""
    in_float32 = getattr(model, "_keep_in_fp32_modules", None) or ()
    return torch.float32 if any(part in name.split(".") for part in in_float32) else dtype


def leave_out(
    model: nn.Module,
    block_lists: Sequence[str],
    unused: Sequence[str],
    last_block: int | None = None,
) -> None:
    """Replace what a capture up to a block never reaches by identities, lists keeping length.

    Raises:
        InvalidArgumentError: the block is out of range.
    """
    lists: list[Any] = [model.get_submodule(name) for name in block_lists]
    count = sum(len(blocks) for blocks in lists)
    if last_block is not None:
        check_integer("block", last_block, 0, count - 1)
    kept = count if last_block is None else last_block + 1
    for blocks in lists:
        for index in range(max(kept, 0), len(blocks)):
            blocks[index] = nn.Identity()
        kept -= len(blocks)
    for name in unused:
        model.set_submodule(name, nn.Identity())


def leave_out_decoder(vae: nn.Module) -> None:
    """Replace what a VAE needs for decoding alone by identities."""
    children = dict(vae.named_children())
    leave_out(vae, (), [name for name in ("decoder", "post_quant_conv") if name in children])


def fill(model: nn.Module, values: Iterable[tuple[str, Tensor]], dtype: torch.dtype) -> nn.Module:
    """Fill an empty model with its tensors, by name, and return it for evaluation."""
    from accelerate.utils import set_module_tensor_to_device

    for name, value in values:
        if value.is_floating_point():
            value = value.to(tensor_dtype(model, name, dtype))
        set_module_tensor_to_device(model, name, "cpu", value=value, dtype=value.dtype)
    return model.eval().requires_grad_(False)


def _read(checkpoint: Checkpoint, subfolder: str, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Read a model's tensors shard by shard, opening only the shards that hold one of them."""
    stored = checkpoint.shards(subfolder)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    wanted: dict[str, dict[str, str]] = {}
    for name in shapes:
        found = name if name in stored else _old_name(name)
        if found not in stored:
            raise _lacking(checkpoint, subfolder, name, stored)
        wanted.setdefault(stored[found], {})[name] = found
    known = {found for names in wanted.values() for found in names.values()}
    for shard, names in wanted.items():
        path = checkpoint.file(shard)
        file = WeightFile(path, known=known)
        if file.unused:
            logger.warning(
                "%s has a tensor %r that the configuration has no place for; it is ignored",
                *(path, file.unused[0]),
            )
        for name, found in names.items():
            value = file.read(found)
            if value.shape != shapes[name]:
                raise CheckpointError(
                    f"{path}: {found!r} has the shape {tuple(value.shape)}, but the "
                    f"configuration asks for {tuple(shapes[name])}"
                )
            yield name, value


def _lacking(
    checkpoint: Checkpoint, subfolder: str, name: str, stored: Mapping[str, str]
) -> CheckpointError:
    module = name.rpartition(".")[0]
    others = [other for other in stored if module and other.startswith(f"{module}.")]
    others = [other for other in others if other.rpartition(".")[2] not in ("weight", "bias")]
    advice = "it is incomplete, or its configuration is of another model"
    if others:
        advice = (
            f"it has {others[0]!r} in its place, as quantised models and adapters do; name the "
            "model's plain weights"
        )
    return CheckpointError(f"{checkpoint.source}/{subfolder} has no tensor {name!r}: {advice}")


def _old_name(name: str) -> str:
    for new, old in _OLD_NAMES:
        name = name.replace(f".{new}.", f".{old}.")
    return name


def _load_quantized(
    checkpoint: Checkpoint,
    class_name: str,
    dtype: torch.dtype,
    quantization_config: object,
    subfolder: str,
) -> nn.Module:
    stored = checkpoint.json(f"{subfolder}/config.json").get("quantization_config") or {}
    method = stored.get("quant_method") if isinstance(stored, dict) else None
    package = _QUANTISERS.get(str(method))
    if package is not None and find_spec(package) is None:
        raise CheckpointError(
            f"cannot load {checkpoint.source}/{subfolder}, which is stored quantised: {method} is "
            f"not installed; pip install {package}"
        )
    model_class = find_class(class_name)
    given = {} if quantization_config is None else {"quantization_config": quantization_config}
    kind = "" if given else ", as which it is stored"
    message = f"cannot load {checkpoint.source}/{subfolder} quantised{kind}"
    with translated(CheckpointError, message), building(dtype), without_progress_bars():
        model: nn.Module = model_class.from_pretrained(
            **checkpoint.pretrained_options(), subfolder=subfolder, dtype=dtype, **given
        )
    return model


def without_deprecations() -> AbstractContextManager[None]:
    """Silence third-party FutureWarnings."""
    return quiet(FutureWarning)


@SharedSetting
@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Hide progress bars of diffusers and transformers, temporarily."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries: tuple[Any, ...] = (diffusers_logging, transformers_logging)
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


@SharedSetting
@contextmanager
def without_remarks() -> Iterator[None]:
    """Silence messages of transformers below errors, temporarily."""
    from transformers.utils import logging as messages

    logging: Any = messages
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
