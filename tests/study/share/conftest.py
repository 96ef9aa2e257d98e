"""Studies that have run, made once; tests copy what they change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from study_files import study_file

from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.report.page import write_report
from kornia_ditf.study.run.runner import run_study


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
