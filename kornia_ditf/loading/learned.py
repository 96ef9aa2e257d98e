"""Tensors learned from a model's answer to a blank image, kept in memory and on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from kornia_ditf.errors import OutputError
from kornia_ditf.loading.prompts import PromptCache
from kornia_ditf.utils.cache import cache_folder

logger = logging.getLogger(__name__)

_RULE = 1  # of how they are learned; what an earlier rule learned is not read
_MOST = 16  # kept in memory per model
_in_memory: WeakKeyDictionary[nn.Module, dict[str, Mapping[int, Tensor]]] = WeakKeyDictionary()


def learned_tensors(
    model: nn.Module,
    identity: str | None,
    key: str,
    learn: Callable[[], Mapping[int, Tensor]],
) -> Mapping[int, Tensor]:
    """Return what was learned under a key, and learn it where that was not done yet.

    Args:
        model: in whose name it is kept in memory.
        identity: of the model's weights, under which it is kept on disk; None keeps none there.
        key: everything else that decides it.
        learn: computes it.
    """
    known = _in_memory.setdefault(model, {})
    if key not in known:
        cache = PromptCache(cache_folder() / "learned")
        name = f"{_RULE}\n{identity}\n{key}"
        kept = None if identity is None else cache.load(name)
        if kept is None:
            kept = {str(index): value for index, value in learn().items()}
            if identity is not None:
                try:
                    cache.save(name, kept, {"identity": identity, "key": key})
                except OutputError as error:
                    logger.warning("%s; it is learned anew in the next process", error)
        while len(known) >= _MOST:
            known.pop(next(iter(known)), None)
        known[key] = {int(index): value for index, value in kept.items()}
    return known[key]
