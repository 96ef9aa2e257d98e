from __future__ import annotations

import re
from pathlib import Path

import pytest

from kornia_ditf.loading.source import as_folder, explain, is_hub_id, is_path


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models" / "flux-dev").mkdir(parents=True)
    (tmp_path / "models" / "flux.safetensors").write_bytes(b"")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models"


def test_a_folder_is_found_with_its_tilde_expanded(models: Path) -> None:
    assert as_folder("~/models/flux-dev") == models / "flux-dev"
    assert as_folder("models/flux-dev") == Path("models/flux-dev")


@pytest.mark.parametrize(
    "source", ["", " ", "models/flux.safetensors", "~nobody/at-all", "x" * 5000, "a\0b"]
)
def test_what_is_no_folder_is_none(models: Path, source: str) -> None:
    assert as_folder(source) is None


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("black-forest-labs/FLUX.1-dev", False),
        ("nano", False),
        ("./models/flux", True),
        ("~/models/flux", True),
        ("/models", True),
        ("models/flux/", True),
        ("a/b/c", True),
        ("models\\flux", True),
        ("flux1-dev.safetensors", True),
        ("city96/flux1-dev.gguf", True),
        ("https://huggingface.co/owner/name", True),
    ],
)
def test_a_path_is_told_from_a_hub_id_by_its_form(source: str, path: bool) -> None:
    assert is_path(source) == path


def test_a_hub_id_has_an_owner_and_a_name() -> None:
    assert is_hub_id("black-forest-labs/FLUX.1-dev")
    assert not any(is_hub_id(name) for name in ("nano", "a/b/c", "a b/c", "owner/a--b"))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("models/flux.safetensors", "is a file; name a folder in the diffusers layout"),
        ("models/flux.safetensors", "from_single_file"),
        ("models/flux-def", "did you mean 'models/flux-dev'?"),
        ("./models/flux-def", "did you mean 'models/flux-dev'?"),
        ("~/models/FLUX-def", "did you mean '.*/models/flux-dev'?"),
        ("~/nowhere", "there is no folder ~/nowhere; name"),
        (f"{'x' * 300}/y/z", "x does not exist"),
        ("huggingface.co/owner/name", "name the model by its hub id, 'owner/name'"),
        ("/no/such/place/flux", r"\(/no does not exist\)"),
        ("https://huggingface.co/owner/name", "name the model by its hub id, 'owner/name'"),
        ("https:/huggingface.co/owner/name", "https://huggingface.co/owner/name is a URL"),
        ("https://hf.co/owner/name/tree/v2", "'owner/name' with revision='v2'"),
        ("https://example.org/model.safetensors", "download the model and name its folder"),
    ],
)
@pytest.mark.usefixtures("models")
def test_what_is_no_folder_is_explained(source: str, told: str) -> None:
    assert re.search(told, explain(source))
