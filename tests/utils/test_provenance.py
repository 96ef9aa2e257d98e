from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
import torch

from kornia_ditf.utils import provenance


def test_versions_are_those_that_are_installed_and_unknown_ones_say_so() -> None:
    assert provenance.versions(["no-such-package-anywhere"]) == {
        "python": platform.python_version(),
        "no-such-package-anywhere": "unknown",
    }
    assert set(provenance.versions()) == {"python", *provenance.LIBRARIES}


def test_hardware_names_the_processor_and_as_many_threads_as_torch_uses() -> None:
    found = provenance.hardware()
    assert found["processor"] == provenance.processor() and found["processor"]
    assert found["threads"] == torch.get_num_threads() and found["cores"] >= 1


def test_the_commit_is_that_of_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    assert (provenance.commit() or "").removesuffix(" with changes") == head
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None
