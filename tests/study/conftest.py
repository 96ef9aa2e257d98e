"""The small study, and a watcher that remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from study_files import study_file

from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.define.spec import Study

MakeStudy = Callable[..., Path]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """What is compared byte for byte is computed with one number of threads everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_study(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> MakeStudy:
    """Write a study file; keys replace those of the small study."""
    return partial(study_file, tmp_path, tiny_checkpoint("nano"))


@pytest.fixture
def small_study(make_study: MakeStudy) -> Study:
    return read_study(make_study())


class Heard:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.done = 0
        self.warnings: list[str] = []

    def begin(self, stage: str, total: int) -> None:
        self.stages.append((stage, total))

    def advance(self, count: int) -> None:
        self.done += count

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def total(self, stage: str) -> int:
        return sum(total for name, total in self.stages if name == stage)


@pytest.fixture
def heard() -> Heard:
    return Heard()
