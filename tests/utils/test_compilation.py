from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import CompilationWarning, InvalidArgumentError
from kornia_ditf.registry.lookup import create_ditf
from kornia_ditf.utils.compilation import CompiledModules


def image() -> torch.Tensor:
    return torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))


def test_compiled_blocks_give_the_same_descriptors(
    tiny_checkpoint: Callable[[str], Path],
) -> None:
    options: dict[str, Any] = {"block": 2, "long_side": 64, "massive_channels": ()}
    folder = tiny_checkpoint("sd3")
    plain = create_ditf(folder, **options)
    compiled = create_ditf(folder, compile="aot_eager", **options)
    transformer: Any = compiled.backbone.transformer
    calls = [module._compiled_call_impl for module in transformer.modules()]
    assert sum(call is not None for call in calls) == 3
    for block in (2, 1):
        expected = plain.describe_blocks(image(), [block])[block].data
        found = compiled.describe_blocks(image(), [block])[block].data
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert [module._compiled_call_impl for module in transformer.modules()] == calls
    assert compiled.backbone.settings() == f"{plain.backbone.settings()} compiled"
    assert compiled.identity != plain.identity


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, by its own compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_the_default_backend_gives_the_same_result() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 8), nn.GELU()).requires_grad_(False)
    compiled = copy.deepcopy(plain)
    x = torch.rand(4, 8)
    found = CompiledModules([compiled]).run(lambda: compiled(x))
    torch.testing.assert_close(found, plain(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("treatment", ["adaln+discard", "smooth(0.5) > adaln > whiten"])
def test_the_treatment_is_compiled_whole_with_the_blocks(
    treatment: str, tiny_checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"block": 1, "long_side": 64, "treatment": treatment}
    compiled = create_ditf(tiny_checkpoint("nano"), compile="aot_eager", **options)
    whole: list[bool] = []
    compile_function = torch.compile

    def strictly(function: Any, **given: Any) -> Any:
        whole.append(True)
        return compile_function(function, fullgraph=True, **given)

    monkeypatch.setattr(torch, "compile", strictly)
    for channels in ((3, 5), None):
        config = replace(compiled.config, massive_channels=channels)
        plain = create_ditf(tiny_checkpoint("nano"), massive_channels=channels, **options)
        found = DiTF(compiled.backbone, config)(image()).data
        torch.testing.assert_close(found, plain(image()).data, rtol=1e-4, atol=1e-5)
    assert len(whole) == 1


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so_once(
    tiny_checkpoint: Callable[[str], Path], recwarn: pytest.WarningsRecorder
) -> None:
    def fail(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    options: dict[str, Any] = {"block": 2, "long_side": 64, "massive_channels": ()}
    folder = tiny_checkpoint("nano")
    ditf: Any = create_ditf(folder, **options)
    ditf.backbone._compiled = CompiledModules([*ditf.backbone.transformer.transformer_blocks], fail)  # type: ignore[arg-type]
    with pytest.warns(CompilationWarning, match=r"compile=True failed, .*no C\+\+ compiler"):
        found = ditf(image())
    assert torch.equal(found.data, create_ditf(folder, **options)(image()).data)
    ditf(image())
    assert not recwarn.list and "compiled" not in ditf.backbone.settings()


def test_errors_of_the_model_itself_are_told_as_they_are() -> None:
    module = nn.Linear(3, 3)
    compiled = CompiledModules([module], "eager")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        compiled.run(lambda: module(torch.rand(1, 4)))


def test_an_unknown_backend_is_refused(tiny_checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidArgumentError, match="compile must be one of .*inductor"):
        create_ditf(tiny_checkpoint("nano"), compile="indcutor")
