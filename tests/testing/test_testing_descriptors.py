"""For every rule of descriptors, one that is deliberately broken shows that the rule catches it."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Barrier, current_thread, main_thread
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.dense import DenseDescriptor, DescriptorSpec
from kornia_ditf.errors import ConformanceError
from kornia_ditf.preprocess import as_image, fit_image
from kornia_ditf.testing import DESCRIPTOR_RULES, check_descriptor
from kornia_ditf.types import DescriptorMap

RULES = [rule.__name__ for rule in DESCRIPTOR_RULES]


class Colours(DenseDescriptor):
    """Describes each patch of 16 x 16 pixels by its mean colour and its contrast."""

    width = 6

    def describe(self, image: Tensor) -> Tensor:
        mean = F.avg_pool2d(image, 16)
        return torch.cat([mean, F.avg_pool2d(image.square(), 16) - mean.square()], 1)

    def forward(self, image: Any, prompts: Any = None) -> DescriptorMap:
        fitted, frame = fit_image(as_image(image), None, 16)
        return DescriptorMap(self.describe(fitted), frame)


class Narrow(Colours):
    def describe(self, image: Tensor) -> Tensor:
        return super().describe(image)[:, :3]


class Mirrored(Colours):
    def describe(self, image: Tensor) -> Tensor:
        return super().describe(image).flip(-1)


class MinusTheBatch(Colours):
    def describe(self, image: Tensor) -> Tensor:
        return super().describe(image) - super().describe(image).mean(0)


class Drawn(Colours):
    def describe(self, image: Tensor) -> Tensor:
        return super().describe(image) + 1e-6 * torch.randn(1)


class KeepsTheImage(Colours):
    """Keeps what it works on where other threads, which it waits for, put theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.meeting = Barrier(3)

    def describe(self, image: Tensor) -> Tensor:
        self.image = image
        if current_thread() is not main_thread():
            self.meeting.wait()
        return super().describe(self.image)


class TakesTheDefaultDtype(Colours):
    def describe(self, image: Tensor) -> Tensor:
        return super().describe(image).to(torch.get_default_dtype()).float()


class FittedFrame(Colours):
    """Forgets the size that the image had."""

    def forward(self, image: Any, prompts: Any = None) -> DescriptorMap:
        return super().forward(fit_image(as_image(image), None, 16)[0])


class LastFirst(Colours):
    def describe_together(
        self, images: Sequence[Any], prompts: str | Sequence[str] | None = None
    ) -> list[DescriptorMap]:
        return super().describe_together(images, prompts)[::-1]


class SwitchesItself(Colours):
    def describe(self, image: Tensor) -> Tensor:
        self.train(not self.training)
        return super().describe(image)


class TakesAnything(Colours):
    def forward(self, image: Any, prompts: Any = None) -> DescriptorMap:
        usable = isinstance(image, Tensor) and image.shape[1] == 3 and bool(image.isfinite().all())
        return super().forward(image.clamp(0, 1) if usable else torch.ones(1, 3, 32, 32))


class Renamed(Colours):
    calls = 0

    def describe(self, image: Tensor) -> Tensor:
        self.calls += 1
        return super().describe(image)

    @property
    def identity(self) -> str:
        return f"renamed {self.calls}"


BROKEN: dict[str, type[DenseDescriptor]] = {
    "map_fits_the_image": Narrow,
    "descriptors_stand_where_they_belong": Mirrored,
    "images_do_not_depend_on_their_batch": MinusTheBatch,
    "results_repeat": Drawn,
    "threads_do_not_disturb_one_another": KeepsTheImage,
    "settings_of_the_caller_do_not_matter": TakesTheDefaultDtype,
    "every_shape_of_image_is_taken": FittedFrame,
    "several_images_are_described_together": LastFirst,
    "nothing_is_left_behind": SwitchesItself,
    "bad_images_are_refused": TakesAnything,
    "identity_is_a_name": Renamed,
}


def test_every_rule_has_a_descriptor_that_breaks_it() -> None:
    assert list(BROKEN) == RULES


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_catches_what_breaks_it_and_says_what_to_do(rule: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_descriptor(BROKEN[rule](), rules=[rule])
    name, seen, advice = str(caught.value).splitlines()[1:4]
    assert name.startswith(f"  {rule}: ")
    assert seen.startswith("    seen: ") and advice.startswith("    do: ")


def test_a_sound_descriptor_keeps_every_rule() -> None:
    assert check_descriptor(Colours()) == tuple(RULES)


def test_a_spec_is_loaded_with_the_options() -> None:
    spec = DescriptorSpec(
        name="colours", load=Colours, width=6, pixels_per_token=16, source="a test", license="MIT"
    )
    assert check_descriptor(spec) == tuple(RULES)
    with pytest.raises(TypeError, match="colour"):
        check_descriptor(spec, colour="red")
