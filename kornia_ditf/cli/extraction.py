"""Images read, described and stored at the same time, for `kornia-ditf extract`."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_ditf.errors import DiTFError, OutputError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from torch import Tensor

    from kornia_ditf.dense import DenseDescriptor
    from kornia_ditf.types import DescriptorMap
    from kornia_ditf.types.prepared import PreparedImage

_LONGEST_NAME = 255  # bytes, on common file systems
# Files that agree in these were made with the same settings.
_SETTINGS = (
    *("name", "image_sha256", "identity", "descriptor_blocks", "timestep", "treatment"),
    *("long_side", "options", "settings", "upsample"),
    *("ensemble", "prompt", "seed", "dtype", "massive_channels", "stored_as"),
)


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

    descriptor: DenseDescriptor
    blocks: list[int]
    told: Any
    fitting: tuple[int | None, int]
    targets: Mapping[Path, Path]
    made: Mapping[str, Any]
    half: bool
    overwrite: bool
    batch: int | None
    done: Done = field(default_factory=Done)

    def run(self, paths: Sequence[Path]) -> Iterator[tuple[tuple[Path, Any], Future[None]]]:
        from kornia_ditf.utils.pipeline import ahead_of, readers, run_in_groups

        described = run_in_groups(
            paths,
            self._read,
            self._describe,
            self._kind,
            ahead=self.descriptor.images_ahead(self.batch),
            workers=readers(self.descriptor.place),
        )
        return ahead_of(described, self._write)

    def _read(self, path: Path) -> _Work:
        import torch

        from kornia_ditf.cli.images import read_fitting

        about = {**self.made, "image": path.name, "image_sha256": _digest(path)}
        target = self.targets[path]
        if target.exists() and _image_of(target) != about["image_sha256"]:
            target = target.with_name(_file_name(path, marked=True))
        if target.exists() and not self.overwrite:
            _check_settings(target, about)
            return _Work(target, about, None)
        with torch.no_grad():
            image = self.descriptor.prepare(read_fitting(path, *self.fitting))
        return _Work(target, about, image)

    def _kind(self, work: _Work) -> tuple[Any, int]:
        if work.image is None:
            return None, 1
        return work.image.pixels.shape, self.descriptor.batch_of(work.image, self.batch)

    def _describe(self, works: Sequence[_Work]) -> list[_Work]:
        """Describe images of one size, and name what is stored of each."""
        from kornia_ditf.descriptor import DiTF

        images = [work.image for work in works if work.image is not None]
        if not images:
            return list(works)
        described: list[dict[str, DescriptorMap]]
        if isinstance(self.descriptor, DiTF):
            name = "descriptors" if len(self.blocks) == 1 else "block_{}"
            by_block = self.descriptor.describe_prepared_blocks(images, self.blocks)
            described = [{name.format(b): maps[b] for b in self.blocks} for maps in by_block]
        else:
            maps = self.descriptor.describe_prepared(images, [self.told] * len(images))
            described = [{"descriptors": one} for one in maps]
        return [replace(w, image=None, maps=m) for w, m in zip(works, described, strict=True)]

    def _write(self, described: tuple[Path, _Work | DiTFError]) -> None:
        path, work = described
        if isinstance(work, DiTFError):
            raise work
        if not work.maps:
            self.done.skipped.append(work.target)
            return
        first = next(iter(work.maps.values()))
        first.check()
        tensors = {name: described.data[0] for name, described in work.maps.items()}
        _write(work.target, _stored(tensors, self.half, path), {**work.about, **first.about()})
        self.done.written.append(work.target)


def export_features(target: Path | None, files: Sequence[Path]) -> list[str]:
    """Write what is in the files as features for other tools; returns what was written."""
    from kornia_ditf.sfm.formats import write_features
    from kornia_ditf.types.descriptors import read_map

    if target is None or not files:
        return []
    names = Counter((_metadata(path) or {}).get("image") for path in files)

    def read(path: Path) -> tuple[str, DescriptorMap]:
        described, about = read_map(path)
        # Images of one name are told apart as their files are.
        return about["image"] if names[about["image"]] == 1 else path.stem, described

    write_features(target, map(read, sorted(files)))
    return [str(target)]


def _stored(tensors: Mapping[str, Tensor], half: bool, path: Path) -> dict[str, Tensor]:
    import torch

    from kornia_ditf.errors import InvalidArgumentError

    stored = {
        name: data.cpu().to(torch.float16 if half else torch.float32).contiguous()
        for name, data in tensors.items()
    }
    if not all(bool(torch.isfinite(data).all()) for data in stored.values()):
        raise InvalidArgumentError(
            f"the descriptors of {path} exceed float16; leave out --half to store float32"
        )
    return stored


def _write(target: Path, tensors: dict[str, Tensor], about: Mapping[str, Any]) -> None:
    from kornia_ditf.utils.files import atomic_write, save_sealed

    with atomic_write(target) as temporary:
        save_sealed(temporary, tensors, about)


def _metadata(path: Path) -> dict[str, Any] | None:
    """Read the metadata of a file of descriptors; None where it is no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
    except (SafetensorError, OSError, ValueError):
        return None


def _image_of(target: Path) -> Any:
    """Return the digest of the image that a file describes; None where that is not known."""
    return (_metadata(target) or {}).get("image_sha256")


def _check_settings(target: Path, about: Mapping[str, Any]) -> None:
    found = _metadata(target) or {}
    other = [name for name in _SETTINGS if found.get(name) != about.get(name)]
    if other or about["identity"] is None:  # weights without a name may be any
        names = ", ".join(other) or "weights without an identity"
        raise KeptError(
            f"{target} is there, made with other settings ({names}); add --overwrite to replace "
            "it, or name another --out"
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
