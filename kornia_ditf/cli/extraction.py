"""Images read, described and stored at the same time, for `kornia-ditf extract`."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_ditf.cli.describing import Describer, differing
from kornia_ditf.errors import DamagedFileError, DiTFError, OutputError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from kornia_ditf.types import DescriptorMap
    from kornia_ditf.types.prepared import PreparedImage

_LONGEST_NAME = 255  # bytes, on common file systems


def name_outputs(paths: Sequence[Path]) -> dict[Path, str]:
    """Choose a file name for each image: the image's own, marked where another image has it too."""
    counts = Counter(path.stem.casefold() for path in paths)
    return {path: _file_name(path, marked=counts[path.stem.casefold()] > 1) for path in paths}


def _file_name(path: Path, *, marked: bool) -> str:
    """Return `STEM.safetensors`; where marked or too long, with a part of the path's digest."""
    name = f"{path.stem}.safetensors"
    if not marked and len(os.fsencode(name)) <= _LONGEST_NAME:
        return name
    end = f"-{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]}.safetensors"
    stem = os.fsencode(path.stem)
    if len(stem) + len(end) > _LONGEST_NAME:
        return stem[: _LONGEST_NAME - len(end)].decode("utf-8", "ignore") + end
    return path.stem + end


class KeptError(OutputError):
    """A file that is kept, as it was made with other settings."""


@dataclass(slots=True)
class Done:
    """What became of each image."""

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, DiTFError]] = field(default_factory=list)

    def remarks(self) -> list[tuple[str, str]]:
        remarks = []
        if self.skipped:
            count = len(self.skipped)
            remarks.append(("skipped", f"{count} that are there with the same settings"))
        if self.failed:
            remarks.append(("failed", ", ".join(str(path) for path, _ in self.failed)))
        return remarks

    def as_values(self) -> dict[str, Any]:
        return {
            "written": [str(path) for path in self.written],
            "skipped": [str(path) for path in self.skipped],
            "failed": [{"image": str(path), "error": str(error)} for path, error in self.failed],
        }


@dataclass(frozen=True, slots=True)
class _Work:
    """An image that was read: what will be said of it, and where; nothing to describe if done."""

    target: Path
    about: dict[str, Any]
    image: PreparedImage | None
    maps: dict[str, DescriptorMap] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Stream:
    """Images read, described and written at the same time, each a step behind the one before."""

    describer: Describer
    made: Mapping[str, Any]
    targets: Mapping[Path, Path]
    overwrite: bool
    done: Done = field(default_factory=Done)

    def run(self, paths: Sequence[Path]) -> Iterator[tuple[tuple[Path, Any], Future[None]]]:
        from kornia_ditf.utils.pipeline import ahead_of, readers, run_in_groups

        descriptor = self.describer.descriptor
        described = run_in_groups(
            paths,
            self._read,
            self._describe,
            lambda work: (None, 1) if work.image is None else self.describer.group(work.image),
            ahead=descriptor.images_ahead(self.describer.request.batch),
            workers=readers(descriptor.place),
        )
        return ahead_of(described, self._write)

    def _read(self, path: Path) -> _Work:
        from kornia_ditf.utils.images import read_bytes

        content = read_bytes(path)
        digest = hashlib.sha256(content).hexdigest()
        about = {**self.made, "image": path.name, "image_sha256": digest}
        target = self.targets[path]
        if target.exists() and _metadata(target).get("image_sha256") != digest:
            target = target.with_name(_file_name(path, marked=True))
        if target.exists() and not self.overwrite:
            _check_settings(target, about)
            return _Work(target, about, None)
        return _Work(target, about, self.describer.prepare(str(path), content))

    def _describe(self, works: Sequence[_Work]) -> list[_Work]:
        images = [work.image for work in works if work.image is not None]
        if not images:
            return list(works)
        described = self.describer.describe(images)
        return [replace(w, image=None, maps=m) for w, m in zip(works, described, strict=True)]

    def _write(self, described: tuple[Path, _Work | DiTFError]) -> None:
        from kornia_ditf.utils.files import atomic_write, save_sealed

        path, work = described
        if isinstance(work, DiTFError):
            raise work
        if not work.maps:
            self.done.skipped.append(work.target)
            return
        tensors, about = self.describer.encode(str(path), work.maps)
        with atomic_write(work.target) as temporary:
            save_sealed(temporary, tensors, {**work.about, **about})
        self.done.written.append(work.target)


def export_features(target: Path | None, files: Sequence[Path]) -> list[str]:
    """Write what is in the files as features for other tools; returns what was written."""
    from kornia_ditf.sfm.formats import write_features
    from kornia_ditf.types.descriptors import read_map

    if target is None or not files:
        return []
    names = Counter(_metadata(path).get("image") for path in files)

    def read(path: Path) -> tuple[str, DescriptorMap]:
        described, about = read_map(path)
        # Images of one name are told apart as their files are.
        return about["image"] if names[about["image"]] == 1 else path.stem, described

    write_features(target, map(read, sorted(files)))
    return [str(target)]


def _metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a file of descriptors; none where it is no such file."""
    from kornia_ditf.types.shards import StoredMap

    try:
        return StoredMap(path).about()
    except DamagedFileError:
        return {}


def _check_settings(target: Path, about: Mapping[str, Any]) -> None:
    found = _metadata(target)
    names = differing(found, about)
    if found.get("image_sha256") != about["image_sha256"]:
        names.append("image_sha256")
    if not about["identity"]:
        names.append("weights without an identity")  # they may be any
    if names:
        raise KeptError(
            f"{target} is there, made with other settings ({', '.join(names)}); add --overwrite to "
            "replace it, or name another --out"
        )
