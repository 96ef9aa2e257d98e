"""Without the extra, a study says what to type."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import pytest

import kornia_ditf.study
from kornia_ditf.errors import MissingExtraError
from kornia_ditf.study.define.jobs import Setup
from kornia_ditf.study.run.ray_cluster import RayCluster


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = importlib.util.find_spec

    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda n: None if n == "pyarrow" else whole(n))
        with pytest.raises(MissingExtraError, match=r"need pyarrow; type `pip install .*\[study\]"):
            importlib.reload(kornia_ditf.study)
    importlib.reload(kornia_ditf.study)


def test_without_ray_its_engine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kornia-ditf\[ray\]'"):
        RayCluster(Setup("", "float32", {}))
