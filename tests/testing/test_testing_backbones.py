"""For every rule of backbones, one that is deliberately broken shows that the rule catches it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kornia_ditf import find_backbone
from kornia_ditf.backbones.base import Backbone
from kornia_ditf.backbones.nano import NanoBackbone
from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.errors import ConformanceError, InvalidArgumentError
from kornia_ditf.tap import TableModulation
from kornia_ditf.testing import BACKBONE_RULES, check_backbone
from kornia_ditf.types import Conditioning, Tap

RULES = [rule.__name__ for rule in BACKBONE_RULES]


class WithInputs(NanoBackbone):
    """Changes what the transformer is given."""

    def change(self, latent: Tensor, timestep: float) -> tuple[Tensor, float]:
        raise NotImplementedError

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        return super().transformer_inputs(*self.change(latent, timestep), conditioning)


class WithTaps(NanoBackbone):
    """Changes what a capture gives."""

    def change(self, tap: Tap) -> Tap:
        raise NotImplementedError

    def taps(self, *args: Any, **options: Any) -> dict[int, Tap]:
        return {block: self.change(tap) for block, tap in super().taps(*args, **options).items()}


class TransposedGrid(WithTaps):
    def change(self, tap: Tap) -> Tap:
        return replace(tap, grid=tap.grid[::-1])


class Mirrored(WithInputs):
    def change(self, latent: Tensor, timestep: float) -> tuple[Tensor, float]:
        return latent.flip(-1), timestep


class OtherScale(WithTaps):
    def change(self, tap: Tap) -> Tap:
        assert tap.scale is not None
        return replace(tap, scale=1.5 * tap.scale)


class RunsOn(NanoBackbone):
    def taps(self, *args: Any, blocks: Sequence[int], **options: Any) -> dict[int, Tap]:
        taps = super().taps(*args, blocks=range(self.blocks), **options)
        return {block: taps[block] for block in blocks}


class LeavesAHook(NanoBackbone):
    def taps(self, *args: Any, **options: Any) -> dict[int, Tap]:
        self.transformer.register_forward_hook(lambda *_: None)
        return super().taps(*args, **options)


class LoadsAll(NanoBackbone):
    @classmethod
    def from_pretrained(cls, source: Any, *, block: Any = None, **options: Any) -> Any:
        return super().from_pretrained(source, **options)


class OneDtype(NanoBackbone):
    @classmethod
    def from_pretrained(cls, source: Any, *, dtype: Any = None, **options: Any) -> Any:
        return super().from_pretrained(source, **options)


class Drawn(WithInputs):
    def change(self, latent: Tensor, timestep: float) -> tuple[Tensor, float]:
        return latent + 0.1 * torch.randn_like(latent), timestep


class MinusTheBatch(WithInputs):
    def change(self, latent: Tensor, timestep: float) -> tuple[Tensor, float]:
        return latent - latent.mean(0, keepdim=True), timestep


class OnlyWide(WithInputs):
    def change(self, latent: Tensor, timestep: float) -> tuple[Tensor, float]:
        if latent.shape[2] > latent.shape[3]:
            raise RuntimeError("the height is larger than the width")
        return latent, timestep


class Deaf(NanoBackbone):
    def condition(self, prompts: Sequence[str]) -> Conditioning:
        return super().condition([""] * len(prompts))


class Timeless(WithInputs):
    def change(self, latent: Tensor, timestep: float) -> tuple[Tensor, float]:
        return latent, 0


class TakesAnyBlock(NanoBackbone):
    def taps(self, *args: Any, blocks: Sequence[int], **options: Any) -> dict[int, Tap]:
        taps = super().taps(*args, blocks=[b % self.blocks for b in blocks], **options)
        return {block: taps[block % self.blocks] for block in blocks}


class MirroredImages(NanoBackbone):
    def encode(self, image: Tensor) -> Tensor:
        return super().encode(image).flip(-1)


def plan_all(source: Any, **options: Any) -> Any:
    return NanoBackbone.plan_loading(source, **{**options, "dtype": torch.float16})


Change = Callable[[BackboneSpec], BackboneSpec]


def loaded_by(backbone: type[NanoBackbone]) -> Change:
    return lambda spec: replace(spec, load=backbone.from_pretrained)


BROKEN: dict[str, Change] = {
    "spec_describes_the_model": lambda spec: replace(spec, pixels_per_token=16),
    "taps_have_their_shapes": loaded_by(TransposedGrid),
    "tokens_stand_where_they_belong": loaded_by(Mirrored),
    "modulation_is_what_the_block_applies": loaded_by(OtherScale),
    "forward_stops_at_the_block": loaded_by(RunsOn),
    "nothing_is_left_behind": loaded_by(LeavesAHook),
    "loading_a_part_equals_loading_all": loaded_by(LoadsAll),
    "the_plan_is_what_is_held": lambda spec: replace(spec, plan=plan_all),
    "dtypes_are_kept": loaded_by(OneDtype),
    "results_repeat": loaded_by(Drawn),
    "images_do_not_depend_on_their_batch": loaded_by(MinusTheBatch),
    "every_shape_of_image_is_taken": loaded_by(OnlyWide),
    "prompts_are_rows_of_their_own": loaded_by(Deaf),
    "time_reaches_the_block": loaded_by(Timeless),
    "wrong_input_is_refused": loaded_by(TakesAnyBlock),
    "the_whole_chain_describes_images": loaded_by(MirroredImages),
}


def test_every_rule_has_a_backbone_that_breaks_it() -> None:
    assert list(BROKEN) == RULES


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_catches_what_breaks_it_and_says_what_to_do(rule: str, model: Path) -> None:
    spec = find_backbone(model)
    assert check_backbone(spec, model, rules=[rule]) == (rule,)
    with pytest.raises(ConformanceError) as caught:
        check_backbone(BROKEN[rule](spec), model, rules=[rule])
    name, seen, advice = str(caught.value).splitlines()[1:4]
    assert name.startswith(f"  {rule}: ")
    assert seen.startswith("    seen: ") and advice.startswith("    do: ")


class Swapped(NanoBackbone):
    """Declares shift and scale the wrong way round."""

    streams = (replace(NanoBackbone.streams[0], modulation=TableModulation(shift=1, scale=0)),)


def test_a_wrong_declaration_is_caught_by_the_capture_itself(model: Path) -> None:
    spec = loaded_by(Swapped)(find_backbone(model))
    with pytest.raises(ConformanceError, match="does not modulate as its family declares"):
        check_backbone(spec, model)


class OfItsOwn(Backbone):
    """Not declared, but a backbone all the same: it hands on what another one does."""

    def __init__(self, inner: NanoBackbone) -> None:
        super().__init__()
        self.inner, self.schedule, self.identity = inner, inner.schedule, inner.identity

    @property
    def blocks(self) -> int:
        return self.inner.blocks

    @property
    def width(self) -> int:
        return self.inner.width

    @property
    def pixels_per_token(self) -> int:
        return self.inner.pixels_per_token

    def settings(self) -> str:
        return self.inner.settings()

    def encode(self, image: Tensor) -> Tensor:
        return self.inner.encode(image)

    def condition(self, prompts: Sequence[str]) -> Conditioning:
        return self.inner.condition(prompts)

    def taps(self, *args: Any, **options: Any) -> dict[int, Tap]:
        return self.inner.taps(*args, **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_backbone_that_declares_nothing_is_checked_too(model: Path, dtype: str) -> None:
    def wrapped(inner: type[NanoBackbone]) -> BackboneSpec:
        def load(source: Path, **options: Any) -> Backbone:
            return OfItsOwn(inner.from_pretrained(source, **options)).eval()

        return replace(find_backbone(model), load=load)

    assert len(check_backbone(wrapped(NanoBackbone), model, dtype=dtype)) >= len(RULES) - 2
    for rule, broken in (
        ("modulation_is_what_the_block_applies", OtherScale),
        ("forward_stops_at_the_block", RunsOn),
    ):
        with pytest.raises(ConformanceError, match=rule):
            check_backbone(wrapped(broken), model, dtype=dtype, rules=[rule])


def test_an_error_of_any_kind_is_reported_with_its_line(model: Path) -> None:
    def load(*_: object, **__: object) -> Any:
        raise ZeroDivisionError("a bug")

    spec = replace(find_backbone(model), load=load)
    with pytest.raises(ConformanceError, match=r"ZeroDivisionError: a bug \(.*, line \d+\)"):
        check_backbone(spec, model)


def test_one_error_behind_many_broken_rules_is_told_once(model: Path) -> None:
    def load(*_: object, **__: object) -> Any:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ConformanceError) as caught:
        check_backbone(replace(find_backbone(model), load=load), model, rules=RULES[:3])
    assert str(caught.value).count("a bug") == 1
    assert str(caught.value).count(f"the same error as in {RULES[0]}") == 2


def test_an_unknown_rule_is_refused(model: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no rule is named 'shaps'.*known: spec_"):
        check_backbone(find_backbone(model), model, rules=["shaps"])


def test_pytest_is_not_needed() -> None:
    code = "import sys, kornia_ditf.testing.tiny; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
