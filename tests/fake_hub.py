"""A model hub made of a folder, in place of huggingface_hub's own calls."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

REPO = "someone/model"


class FakeHub:
    """Serves a folder as `someone/model`, and notes which files were asked for.

    Set `refusal` to what asking for the repository raises, and `download_refusal` to what asking
    for a file raises.
    """

    def __init__(self, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.cache, self.sha = folder, cache, "c0ffee"
        self.downloaded: list[str] = []
        self.refusal: Exception | None = None
        self.download_refusal: Exception | None = None
        monkeypatch.setattr("huggingface_hub.HfApi.model_info", self._model_info)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", self._download)
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", self._cached)

    def _model_info(self, source: str, **options: Any) -> Any:
        assert source == REPO and options["timeout"] <= 10
        if self.refusal is not None:
            raise self.refusal
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        siblings = [
            SimpleNamespace(
                rfilename=path.relative_to(self.folder).as_posix(), size=path.stat().st_size
            )
            for path in files
        ]
        return SimpleNamespace(sha=self.sha, siblings=siblings)

    def _download(self, source: str, name: str, **options: Any) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        target = self.cache / self.sha / name
        if not target.exists():
            if options["local_files_only"]:
                raise LocalEntryNotFoundError("not cached")
            if self.download_refusal is not None:
                raise self.download_refusal
            assert options["revision"] == self.sha
            self.downloaded.append(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.folder / name, target)
        return str(target)

    def _cached(self, source: str, name: str, **options: Any) -> str | None:
        target = self.cache / self.sha / name
        return str(target) if target.exists() else None


def http_error(kind: str, status: int) -> Exception:
    """Make an error as the hub's client raises it."""
    from huggingface_hub import errors

    response: Any = SimpleNamespace(status_code=status, headers={}, request=None, url="")
    error: Exception = getattr(errors, kind)("refused", response=response)
    return error
