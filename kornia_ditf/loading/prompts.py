"""Prompt embeddings; text encoders are in memory only while a new prompt is embedded.

An embedding is cached on disk per weights, pipeline and prompt, so that a second run never loads
the text encoders, which for FLUX and SD3 are larger than what is kept of the transformer.
"""

from __future__ import annotations

import gc
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from kornia_ditf.errors import CheckpointError, HubError, InvalidArgumentError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.quantisation import check_plain
from kornia_ditf.loading.weights import (
    find_class,
    without_deprecations,
    without_progress_bars,
    without_remarks,
)
from kornia_ditf.types import Conditioning
from kornia_ditf.utils.cache import cache_folder, is_sound, write_checked
from kornia_ditf.utils.files import save_tensors
from kornia_ditf.utils.isolation import building, isolated, lock_of, translated

logger = logging.getLogger(__name__)

Encode = Callable[[Any, str], Mapping[str, Tensor]]
"""Calls a pipeline for one prompt; returns named tensors of one row."""
Modules = Callable[[Checkpoint, torch.dtype], Mapping[str, Any]]


class PromptCache:
    """Embeddings on disk, one safetensors file per prompt.

    Args:
        folder: where they are kept; made when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Return the file of a key."""
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.safetensors"

    def load(self, key: str, *, text_encoders: str | None = None) -> dict[str, Tensor] | None:
        """Read an embedding; None where there is none, a damaged one, or other encoders made it.

        Args:
            key: of the embedding.
            text_encoders: identity of the available ones; None, if there are none, accepts any.
        """
        from safetensors import SafetensorError, safe_open

        path = self.path(key)
        if not is_sound(path):
            return None
        try:
            with safe_open(path, "pt") as file:
                if text_encoders not in (None, (file.metadata() or {}).get("text_encoders")):
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            logger.warning("the cached prompt %s is damaged (%s); it is made anew", path, error)
            return None

    def save(self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Store an embedding.

        Raises:
            OutputError: the folder cannot be written.
        """
        whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        with write_checked(self.path(key)) as temporary:
            save_tensors(temporary, whole, metadata)


class CachedPromptEncoder:
    """Embeds prompts with a family's own diffusers pipeline, each of them once.

    Args:
        checkpoint: whose text encoders to use.
        pipeline_class: the pipeline's class in diffusers, or the dotted path of another.
        encode: calls the pipeline for one prompt; returns named tensors of one row.
        dtype: of the text encoders and the embeddings.
        device: where to encode.
        modules: the pipeline's modules that it shall not load by itself, None for those that
            encoding does without.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        pipeline_class: str,
        encode: Encode,
        *,
        dtype: torch.dtype,
        device: torch.device,
        modules: Modules = lambda checkpoint, dtype: {"transformer": None, "vae": None},
    ) -> None:
        self.checkpoint, self.pipeline_class, self.encode = checkpoint, pipeline_class, encode
        self.dtype, self.device, self.modules = dtype, device, modules
        self.cache = PromptCache(cache_folder() / "prompts")
        self._last: tuple[tuple[str, ...], Conditioning] | None = None  # one prompt serves most

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """Return the conditioning of prompts, one row each.

        Raises:
            CheckpointError: the text encoders are incomplete or damaged.
            HubError: the hub does not give them.
            InvalidArgumentError: there is no prompt.
        """
        with lock_of(self):  # text encoders are loaded once, whichever thread asks first
            if self._last is None or self._last[0] != tuple(prompts):
                found = {prompt: self._cached(prompt) for prompt in prompts}
                missing = [prompt for prompt, row in found.items() if row is None]
                rows = {**found, **dict(self._embed(missing))}
                self._last = (tuple(prompts), join_rows([rows[prompt] or {} for prompt in prompts]))
            return self._last[1]

    def prepare(self, prompts: Sequence[str]) -> None:
        """Embed many prompts while the text encoders are loaded once, and keep them on disk.

        To be called before work that meets one prompt after another.
        """
        missing = [prompt for prompt in dict.fromkeys(prompts) if self._cached(prompt) is None]
        for _ in self._embed(missing):
            pass

    def _cached(self, prompt: str) -> dict[str, Tensor] | None:
        at_hand = self.checkpoint.text_identity
        return self.cache.load(self._key(prompt), text_encoders=at_hand)

    def _key(self, prompt: str) -> str:
        return "\n".join([self.checkpoint.identity, self.pipeline_class, str(self.dtype), prompt])

    @torch.no_grad()
    def _embed(self, prompts: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        if not prompts:
            return
        pipeline = self._load_pipeline()
        message = f"the text encoders of {self.checkpoint.source} cannot embed"
        advice = "; a tokenizer or its configuration may be damaged"
        try:
            # One at a time, so that an embedding does not depend on its neighbours.
            for prompt in prompts:
                with translated(CheckpointError, f"{message} {prompt!r}", advice), isolated(self):
                    encoded = self.encode(pipeline, prompt)
                tensors = {name: value.cpu() for name, value in encoded.items()}
                metadata = {
                    "identity": self.checkpoint.identity,
                    "text_encoders": str(self.checkpoint.text_identity),
                    "pipeline": self.pipeline_class,
                    "prompt": prompt,
                }
                self.cache.save(self._key(prompt), tensors, metadata)
                yield prompt, tensors
        finally:
            del pipeline
            gc.collect()

    def _load_pipeline(self) -> Any:
        checkpoint = self.checkpoint
        with building(self.dtype):
            modules = self.modules(checkpoint, self.dtype)
        if not checkpoint.exists("model_index.json"):  # of a modular pipeline, the family's own
            for module in modules.values():
                if isinstance(module, nn.Module):
                    module.to(self.device)
            return SimpleNamespace(**modules)
        index = checkpoint.index
        parts = [name for name in index if name not in modules and is_component(index[name])]
        try:
            for part in parts:
                if part.startswith("text_encoder"):
                    check_plain(checkpoint, part)
            with without_deprecations(), without_remarks():  # that torchvision is not installed
                pipeline_class = find_class(self.pipeline_class)
            with building(self.dtype), without_progress_bars(), without_deprecations():
                pipeline = pipeline_class.from_pretrained(
                    **checkpoint.pretrained_options(),
                    **modules,
                    dtype=self.dtype,
                )
        except Exception as error:  # diffusers and transformers raise all kinds
            kind = HubError if checkpoint.folder is None else CheckpointError
            raise kind(
                f"cannot load the text encoders of {checkpoint.source} that an uncached prompt "
                f"needs: {error}"
            ) from error
        return pipeline.to(self.device)


def join_rows(rows: Sequence[Mapping[str, Tensor]]) -> Conditioning:
    """Join the embeddings of prompts, one row each.

    Raises:
        InvalidArgumentError: there is none.
    """
    if not rows:
        raise InvalidArgumentError("pass at least one prompt; it may be empty")
    return Conditioning({name: torch.cat([row[name] for row in rows]) for name in rows[0]})


def is_component(value: Any) -> bool:
    """Whether an entry of a pipeline's index names a part: its library and class, not a setting.

    Example:
        >>> is_component(["transformers", "T5EncoderModel"]), is_component([1, 2])
        (True, False)
    """
    return isinstance(value, list | tuple) and all(
        name is None or isinstance(name, str)
        for name in value[:2]  # then where it comes from
    )
