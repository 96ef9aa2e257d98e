"""Images and frames of videos read, described and stored at once, for `kornia-ditf extract`."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_ditf.cli.describing import Describer, differing
from kornia_ditf.errors import DamagedFileError, DiTFError, ImageError, OutputError
from kornia_ditf.utils.cache import sha256
from kornia_ditf.utils.files import os_errors_as
from kornia_ditf.video.frames import VideoFrame, is_video, read_frames, windows

if TYPE_CHECKING:
    from concurrent.futures import Future

    from kornia_ditf.types import DescriptorMap
    from kornia_ditf.types.prepared import PreparedImage
    from kornia_ditf.video.describe import VideoDiTF

_LONGEST_NAME = 255  # bytes, on common file systems
_OF_IMAGES = ("image_sha256", "frame", "clip", "every_frame")


def _file_name(path: Path, frame: int | None, *, marked: bool) -> str:
    """Return `STEM.safetensors` or, of a frame, `STEM-000012.safetensors`.

    Where marked or too long, it has a part of the path's digest.
    """
    end = f"{'' if frame is None else f'-{frame:06d}'}.safetensors"
    if not marked and len(os.fsencode(path.stem + end)) <= _LONGEST_NAME:
        return path.stem + end
    end = f"-{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]}{end}"
    stem = os.fsencode(path.stem)
    if len(stem) + len(end) > _LONGEST_NAME:
        return stem[: _LONGEST_NAME - len(end)].decode("utf-8", "ignore") + end
    return path.stem + end


class KeptError(OutputError):
    """A file that is kept, as it was made with other settings."""


@dataclass(slots=True)
class Given:
    """An image file; or frames of a video, several where a video model sees them as one clip."""

    path: Path
    frames: list[VideoFrame] = field(default_factory=list)
    error: DiTFError | None = None


@dataclass(frozen=True, slots=True)
class _Work:
    """An image that was read: what will be said of it, and where; nothing to describe if done."""

    target: Path
    about: dict[str, Any]
    image: PreparedImage | None
    maps: dict[str, DescriptorMap] = field(default_factory=dict)
    done: bool = False


@dataclass(slots=True, kw_only=True)
class Stream:
    """Images read, described and written at the same time, each a step behind the one before.

    Of videos, `read_frames` takes `picked`, and `clips` describes so many frames together as the
    window has; None describes each alone.
    """

    describer: Describer
    out: Path
    paths: Sequence[Path]
    picked: Mapping[str, Any]
    clips: VideoDiTF | None
    window: int
    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: dict[Path, DiTFError] = field(default_factory=dict)
    _digests: dict[Path, str] = field(default_factory=dict)
    _stems: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self._stems = Counter(path.stem.casefold() for path in self.paths)

    def run(self) -> Iterator[tuple[tuple[Given, Any], Future[None]]]:
        from kornia_ditf.utils.pipeline import ahead_of, readers, run_in_groups

        descriptor = self.describer.descriptor
        ahead = descriptor.images_ahead(self.describer.request.batch)
        described = run_in_groups(
            self._given(),
            self._read,
            self._describe,
            self._kind,
            ahead=max(1, ahead // self.window),
            workers=readers(descriptor.place),
        )
        return ahead_of(described, self._write)

    def _given(self) -> Iterator[Given]:
        """Iterate over images, and over videos while they are decoded."""
        for path in self.paths:
            if not is_video(path):
                yield Given(path)
                continue
            try:
                for frames in windows(read_frames(path, **self.picked), self.window):
                    if path in self.failed:
                        break
                    yield Given(path, frames)
            except ImageError as error:
                yield Given(path, error=error)

    def _read(self, given: Given) -> list[_Work]:
        import torch

        from kornia_ditf.cli.images import check_fitting, read_fitting

        if given.error is not None:
            raise given.error
        frames: Sequence[VideoFrame | None] = given.frames or [None]
        works = [self._about(given, frame) for frame in frames]
        if all(work.done for work in works):
            return works
        fitting, prepare = self.describer.fitting, self.describer.descriptor.prepare
        with torch.no_grad():
            if not given.frames:
                image = prepare(read_fitting(given.path, *fitting))
                return [replace(works[0], image=image)]
            check_fitting(given.path, given.frames[0].image, *fitting)
            images = [prepare(frame.image) for frame in given.frames]
        given.frames.clear()  # those that wait hold the prepared ones alone
        return [replace(work, image=image) for work, image in zip(works, images, strict=True)]

    def _about(self, given: Given, frame: VideoFrame | None) -> _Work:
        path, number = given.path, None if frame is None else frame.number
        if path not in self._digests:
            with os_errors_as(ImageError, f"cannot read {path}"):
                self._digests[path] = sha256(path)
        about = {**self.describer.made, "image": path.name, "image_sha256": self._digests[path]}
        if frame is not None:
            about |= {"frame": number, "seconds": round(frame.seconds, 6)}
            if self.clips is not None:
                about["clip"] = [each.number for each in given.frames]
                about["every_frame"] = self.clips.every_frame
        target = self.out / _file_name(path, number, marked=self._stems[path.stem.casefold()] > 1)
        if target.exists() and _metadata(target).get("image_sha256") != about["image_sha256"]:
            target = target.with_name(_file_name(path, number, marked=True))
        there = target.exists() and not self.describer.request.overwrite
        if there:
            _check_settings(target, about)
        return _Work(target, about, None, done=there)

    def _kind(self, works: Sequence[_Work]) -> tuple[Any, int]:
        first = works[0]
        if first.image is None:
            return None, 1
        if self.clips is not None and "clip" in first.about:
            return str(first.target), 1
        return self.describer.kind(first.image)

    def _describe(self, some: Sequence[Sequence[_Work]]) -> list[list[_Work]]:
        """Describe images of one size, or the frames of one clip, and name what is stored."""
        works = [work for each in some for work in each]
        images = [work.image for work in works if work.image is not None]
        if not images:
            return [list(each) for each in some]
        clips = self.clips if "clip" in works[0].about else None
        described = self.describer.describe(images, clips)
        return [[replace(w, image=None, maps=next(described)) for w in each] for each in some]

    def _write(self, described: tuple[Given, Sequence[_Work] | DiTFError]) -> None:
        from kornia_ditf.utils.files import atomic_write, save_sealed

        given, works = described
        if isinstance(works, DiTFError):
            raise works
        for work in works:
            if work.done:
                self.skipped.append(work.target)
                continue
            tensors, about = self.describer.encode(work.maps, str(given.path))
            with atomic_write(work.target) as temporary:
                save_sealed(temporary, tensors, {**work.about, **about})
            self.written.append(work.target)


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
    """Read the metadata of a file of descriptors; none if it is not such a file."""
    from kornia_ditf.types.shards import StoredMap

    try:
        return StoredMap(path).about()
    except DamagedFileError:
        return {}


def _check_settings(target: Path, about: Mapping[str, Any]) -> None:
    found = _metadata(target)
    names = differing(found, about)
    names += [name for name in _OF_IMAGES if found.get(name) != about.get(name)]
    if not about["identity"]:
        names.append("weights without an identity")  # they may be any
    if names:
        raise KeptError(
            f"{target} exists, made with other settings ({', '.join(names)}); add --overwrite to "
            "replace it, or name another --out"
        )
