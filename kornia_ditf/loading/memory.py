"""Models that are in memory already: a diffusers pipeline, or its parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kornia_ditf.errors import CheckpointError, InvalidArgumentError
from kornia_ditf.loading.checkpoint import HUB_OPTIONS
from kornia_ditf.loading.prompts import Encode, is_component, join_rows
from kornia_ditf.types import Conditioning
from kornia_ditf.utils.borrowing import borrowed
from kornia_ditf.utils.isolation import isolated, translated

_HOOKED = "_output_capturing_hooks_installed"
_LOADING = ("dtype", "device", "offload", "quantization_config")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LoadedModel:
    """The parts of a model in memory, which answers for its configurations as its files would.

    Args:
        model: the transformer or UNet.
        vae: its VAE, where there is one.
        scheduler: its scheduler, where there is one.
        pipeline: the pipeline that all are parts of, if any.
    """

    model: nn.Module
    vae: nn.Module | None = None
    scheduler: Any = None
    pipeline: Any = None

    @property
    def source(self) -> str:
        """What error messages call it."""
        return f"the {type(self.pipeline or self.model).__name__} in memory"

    @property
    def pipeline_classes(self) -> list[str]:
        """Names of the pipeline's class and of those that it is derived from, if there is one."""
        return [] if self.pipeline is None else [k.__name__ for k in type(self.pipeline).__mro__]

    @property
    def name(self) -> str:
        """The hub id or folder that the pipeline, or else the model, was loaded from; or empty."""
        owners = (each for each in (self.pipeline, self.model) if each is not None)
        return str(next((n for o in owners if (n := _config(o).get("_name_or_path"))), ""))

    @property
    def class_names(self) -> list[str]:
        """Names of the model's class and of those that it is derived from."""
        return [each.__name__ for each in type(self.model).__mro__]

    def json(self, name: str) -> Mapping[str, Any]:
        """Return the configuration that a file of its folder would hold.

        Raises:
            CheckpointError: it has no such part.
        """
        part = name.partition("/")[0]
        if name == "model_index.json":
            return {**_config(self.pipeline), "id2label": _labels(self.pipeline)}
        found = {"transformer": self.model, "unet": self.model, "vae": self.vae}.get(
            part, self.scheduler if part == "scheduler" else getattr(self.pipeline, part, None)
        )
        if found is None:
            advice = ": name it as the third part, (transformer, vae, scheduler)"
            raise CheckpointError(
                f"{self.source} has no {part}{advice if part == 'scheduler' else ''}"
            )
        return _config(found)

    def exists(self, name: str) -> bool:
        """Whether it has the part that a file of its folder would belong to."""
        try:
            return bool(self.json(name))
        except CheckpointError:
            return False


class LoadedPromptEncoder:
    """Embeds prompts with the text encoders of a pipeline in memory; nothing is kept on disk.

    Args:
        pipeline: a diffusers pipeline with text encoders.
        encode: calls the pipeline for one prompt; returns named tensors of one row.
    """

    def __init__(self, pipeline: Any, encode: Encode) -> None:
        self.pipeline, self.encode = pipeline, encode

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """Return the conditioning of prompts, one row each.

        Raises:
            InvalidArgumentError: there is no prompt, or the pipeline cannot embed one.
        """
        rows = {prompt: self._embed(prompt) for prompt in dict.fromkeys(prompts)}
        return join_rows([rows[prompt] for prompt in prompts])

    def prepare(self, prompts: Sequence[str]) -> None:
        """Do nothing: the text encoders are in memory already."""

    def _embed(self, prompt: str) -> Mapping[str, Tensor]:
        encoders = {
            name: getattr(self.pipeline, name, None)
            for name, value in self.pipeline.config.items()
            if name.startswith("text_encoder") and is_component(value)
        }
        modules = [each for each in encoders.values() if isinstance(each, nn.Module)]
        missing = [name for name, part in encoders.items() if part is None]
        advice = f" (it has no {', '.join(missing)})" if missing else ""
        message = f"the {type(self.pipeline).__name__} cannot embed {prompt!r}{advice}"
        with (
            translated(InvalidArgumentError, message),
            isolated(self.pipeline),
            borrowed(*modules),
            _without_new_hooks(modules),
        ):
            return self.encode(self.pipeline, prompt)


@contextmanager
def _without_new_hooks(encoders: Sequence[nn.Module]) -> Iterator[None]:
    """Remove the hooks that transformers leaves in a model which it runs for the first time."""
    modules = [module for encoder in encoders for module in encoder.modules()]
    before = {id(module) for module in modules if _HOOKED in vars(module)}
    try:
        yield
    finally:
        for module in modules:
            if _HOOKED in vars(module) and id(module) not in before:
                delattr(module, _HOOKED)
                for child in module.modules():
                    for key, hook in list(child._forward_hooks.items()):
                        if getattr(hook, "__module__", "") == "transformers.utils.output_capturing":
                            del child._forward_hooks[key]


def is_in_memory(given: object) -> bool:
    """Whether a descriptor's name or source is a model rather than the name of one."""
    return not isinstance(given, str | Path)


def take_apart(given: Any) -> LoadedModel:
    """Find the parts of a pipeline, of (transformer, vae), or (transformer, vae, scheduler).

    Wrappers that share the model's modules are removed: those of torch.compile and PEFT.

    Raises:
        InvalidArgumentError: it is none of these, or its transformer skips blocks (`enable_cache`).
    """
    parts = given if isinstance(given, tuple | list) else (given,)
    pipeline = None
    if len(parts) == 1 and not isinstance(parts[0], nn.Module) and hasattr(parts[0], "components"):
        pipeline = parts[0]
        names = ("transformer", "unet", "prior")
        model = next((m for n in names if (m := getattr(pipeline, n, None)) is not None), None)
        parts = (model, getattr(pipeline, "vae", None), getattr(pipeline, "scheduler", None))
    model, vae, scheduler = (*parts, None, None, None)[:3]
    if not isinstance(model, nn.Module) or len(parts) > 3:
        raise InvalidArgumentError(
            "expected a name, a folder, a diffusers pipeline with a transformer, or a tuple "
            f"(transformer, vae) or (transformer, vae, scheduler), got {_describe(given)}"
        )
    if vae is not None and not (isinstance(vae, nn.Module) and hasattr(vae, "encode")):
        raise InvalidArgumentError(
            f"the second part must be a VAE or None, got a {type(vae).__name__}"
        )
    model = _unwrap(model)
    if getattr(model, "is_cache_enabled", False):
        raise InvalidArgumentError(
            f"the {type(model).__name__} skips blocks by a cache, so that none has its features; "
            "call its disable_cache() first"
        )
    return LoadedModel(
        model=model,
        vae=None if vae is None else _unwrap(vae),
        scheduler=scheduler,
        pipeline=pipeline,
    )


def refuse_loading_options(options: Mapping[str, Any]) -> None:
    """Raise for options that say how to load a model, which one in memory leaves nothing to.

    Raises:
        InvalidArgumentError: there is one.
    """
    given = [name for name in (*_LOADING, *HUB_OPTIONS) if name in options]
    if given:
        raise InvalidArgumentError(
            f"{given[0]} applies to loading a model, and this one is in memory already; leave it "
            "out, and move or convert the pipeline itself, as with pipe.to(...)"
        )


def _unwrap(model: nn.Module) -> nn.Module:
    model = getattr(model, "_orig_mod", model)
    base: Any = getattr(type(model), "get_base_model", None)
    return model if base is None else base(model)


def _config(part: Any) -> Mapping[str, Any]:
    config = getattr(part, "config", None) or {}
    return dict(config) if isinstance(config, Mapping) else dict(vars(config))


def _labels(pipeline: Any) -> Mapping[str, str]:
    """Return the names of classes by index, as DiT's model_index.json has them."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, index in (getattr(pipeline, "labels", None) or {}).items():
        names[str(index)].append(name)
    return {index: ",".join(synonyms) for index, synonyms in names.items()}


def _describe(given: Any) -> str:
    if isinstance(given, tuple | list):
        return f"({', '.join(type(part).__name__ for part in given)})"
    return f"a {type(given).__name__}"
