"""What the tests of the zoo share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_zoo import save_tiny
from torch import nn

from kornia_ditf.loading.prompts import CachedPromptEncoder
from kornia_ditf.testing.tiny import saved_once

for _group in ("image", "flux", "video"):
    import_module(f"tiny_{_group}")  # where each family's tiny model is described


@pytest.fixture(scope="session")
def tiny_zoo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a tiny random model of a backbone, saved once; not to be changed."""
    folder = tmp_path_factory.getbasetemp()
    return cache(lambda name: saved_once(folder / f"zoo-{name}", partial(save_tiny, name)))


@pytest.fixture(scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


# What Hunyuan's pipelines write around a prompt, and how many tokens they read: for time.
_SHORT = {
    "prompt_template_encode": 34 * "x" + "{}",  # as long as what they cut off again
    "system_message": 108 * "x",
    "tokenizer_max_length": 24,  # of 1000
    "tokenizer_2_max_length": 24,
}


def shortened(pipeline: Any) -> Any:
    """Make a pipeline that pads prompts to thousands of tokens read short ones alone."""
    if type(pipeline).__name__ == "Ideogram4Pipeline":
        encode = pipeline.encode_prompt
        pipeline.encode_prompt = lambda *told, **more: encode(
            *told, **{**more, "max_sequence_length": 64}
        )
    if getattr(pipeline, "tokenizer_max_length", None) == 1000:
        for name in vars(pipeline).keys() & _SHORT:
            setattr(pipeline, name, _SHORT[name])
    return pipeline


_PIPELINES: dict[tuple[Any, ...], Any] = {}


@pytest.fixture(autouse=True)
def _few_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let VAEs be narrow that always normalise 32 groups of channels (HunyuanImage, Mochi)."""
    init = nn.GroupNorm.__init__

    def init_narrow(norm: nn.GroupNorm, num_groups: int, num_channels: int, **more: Any) -> None:
        init(norm, min(num_groups, num_channels), num_channels, **more)

    monkeypatch.setattr(nn.GroupNorm, "__init__", init_narrow)


@pytest.fixture(autouse=True)
def _own_cache(_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep prompts and tiny text encoders between tests."""
    load = CachedPromptEncoder._load_pipeline

    def load_once(encoder: CachedPromptEncoder) -> Any:
        key = (encoder.checkpoint.source, encoder.pipeline_class, encoder.dtype)
        if key not in _PIPELINES:
            _PIPELINES[key] = shortened(load(encoder))
        return _PIPELINES[key]

    monkeypatch.setenv("KORNIA_DITF_CACHE", str(_cache))
    monkeypatch.setattr(CachedPromptEncoder, "_load_pipeline", load_once)
    # Nothing is freed, as pipelines are kept; looking for it takes .3 s.
    monkeypatch.setattr("kornia_ditf.loading.prompts.gc", SimpleNamespace(collect=int))
