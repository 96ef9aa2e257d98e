"""The small study, and a watcher that remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from study_files import study_file

from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.report.page import write_report
from kornia_ditf.study.run.runner import run_study

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


class Studies:
    """Runs the small study, whole or in pieces, with one cache of descriptor maps."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self._made: dict[str, Path] = {}

    def study(self, **changes: Any) -> Study:
        return read_study(study_file(self.folder, self.model, **changes))

    def __call__(
        self, name: str, study: Study | None = None, part: tuple[int, int] | None = None
    ) -> Path:
        """Give the folder of a study that has run; not to be changed."""
        if name not in self._made:
            out = self.folder / name
            run_study(study or self.study(), out, cache=self.folder / "maps", part=part)
            self._made[name] = out
        return self._made[name]


@pytest.fixture(scope="session")
def studies(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[[str], Path]
) -> Studies:
    return Studies(tmp_path_factory.mktemp("studies"), tiny_checkpoint("nano"))


@pytest.fixture(scope="session")
def reported(studies: Studies) -> Path:
    """The folder of the small study with its report; not to be changed."""
    write_report(studies("whole"))
    return studies("whole")
