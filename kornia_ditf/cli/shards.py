"""The worker of `kornia-ditf extract --engine ray`: describes pieces of images, a shard of each."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kornia_ditf.cli import failures, options
from kornia_ditf.cli.describing import SETTINGS, Describer, differing
from kornia_ditf.errors import (
    CaptureError,
    DamagedFileError,
    DiTFError,
    ImageError,
    InvalidArgumentError,
    OutputError,
)
from kornia_ditf.utils.sources import Item, Piece

if TYPE_CHECKING:
    from torch import Tensor

    from kornia_ditf.types.prepared import PreparedImage

BAD_IMAGE = (ImageError, InvalidArgumentError, CaptureError)
"""Errors of a single image, which the others do not share."""

_Read = tuple[Item, bytes | ImageError]


@dataclass(frozen=True, slots=True)
class Request:
    """What to describe with, and how to store it.

    Args:
        chosen: the command's options.
        blocks: which to store; the preset's where there are none.
        store: the format of stored descriptors; see `encode`.
        batch: how many images of one size to describe together; None for what suits the device.
        overwrite: describe what is there already.
    """

    chosen: options.Chosen
    blocks: Sequence[int]
    store: str
    batch: int | None = None
    overwrite: bool = False


@dataclass(slots=True)
class Shard:
    """What became of a piece.

    Args:
        name: of the shard's file; empty where no image of the piece could be described.
        images: in the shard.
        written: False where the shard was there already.
        failed: what messages call an image, its error's exit code and message.
        made: the settings that its maps were made with.
        warnings: what was warned of while the descriptor was loaded.
        error: exit code and message of what ended the work altogether.
        seconds: that the piece took.
        cpu_seconds: of this process, that it took.
    """

    name: str = ""
    images: int = 0
    written: bool = False
    failed: list[tuple[str, int, str]] = field(default_factory=list)
    made: Mapping[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: tuple[int, str] | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class ShardWriter:
    """Describes pieces of images, and writes the maps of each into a shard of its own.

    A shard is named by a digest of the settings and of its images' names and contents, and appears
    whole or not at all: a piece whose shard is there is not described again, whoever wrote it.

    Args:
        request: what to describe with.
        out: folder of the shards, which all workers see.
        first: the pieces in whose images massive channels are found that nobody names.
    """

    def __init__(self, request: Request, out: Path, first: Sequence[Piece]) -> None:
        self.request, self.out, self.first = request, out, first
        self._loaded: tuple[Describer, dict[str, Any], list[str]] | None = None

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[str]]:
        """Write the shards of some rows of a Ray data set."""
        done = [self.write(Piece.from_json(str(text))) for text in rows["piece"]]
        return {"shard": [json.dumps(asdict(shard)) for shard in done]}

    def write(self, piece: Piece) -> Shard:
        """Write the shard of a piece, unless it is there."""
        try:
            if self._loaded is None:
                self._loaded = self._load()
            describer, made, warned = self._loaded
            shard = Shard(made=made, warnings=warned)
            begin, cpu = time.perf_counter(), time.process_time()
            self._write(piece, describer, shard)
            shard.seconds = time.perf_counter() - begin
            shard.cpu_seconds = time.process_time() - cpu
        except DiTFError as error:
            return Shard(error=(failures.exit_code(error), str(error)))
        return shard

    def _load(self) -> tuple[Describer, dict[str, Any], list[str]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            asked = self.request
            describer = Describer.load(
                asked.chosen,
                asked.chosen.spec(),
                blocks=asked.blocks,
                store=asked.store,
                batch=asked.batch,
            )
            describer.find_channels(self._first_images(describer))
        told = [str(one.message) for one in caught if one.category.__module__.startswith("kornia")]
        made = describer.made()
        if not made["identity"]:
            told.append(
                f"{made['name']} does not say which weights it has; if they change, name another "
                "--out"
            )
        if not self.request.overwrite:
            check_folder(self.out, made)
        return describer, made, told

    def _first_images(self, describer: Describer) -> Iterator[Tensor]:
        for piece in self.first:
            for item, content in piece.read():
                with suppress(ImageError):  # it is reported in its turn
                    yield decode_fitting(describer, piece.label(item), content)

    def _write(self, piece: Piece, describer: Describer, shard: Shard) -> None:
        from kornia_ditf.types.shards import list_stored, member_name, write_shard

        read = list(piece.read())
        digests = {
            item.name: ""
            if isinstance(content, ImageError)
            else hashlib.sha256(content).hexdigest()
            for item, content in read
        }
        told = {name: shard.made.get(name) for name in SETTINGS}
        key = json.dumps([told, sorted(digests.items())], sort_keys=True)
        target = self.out / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.tar"
        held: set[str] = set()
        if target.exists() and not self.request.overwrite:
            try:
                held = {stored.member for stored in list_stored(target)}
            except DamagedFileError:
                held = set()  # it is written anew
        describe = _Pieces(piece, describer, digests, shard)
        if held:
            # Images that it lacks could not be described before; perhaps now they can.
            lacking = [(i, content) for i, content in read if member_name(i.name) not in held]
            if next(describe(lacking), None) is None:
                shard.name, shard.images = target.name, len(held)
                return
        files = describe(read)
        first = next(files, None)
        if first is not None:
            write_shard(target, chain([first], files))
            shard.name, shard.written = target.name, True
            shard.images = len(read) - len(shard.failed)


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Describes some images of a piece, and notes in its shard which fail."""

    piece: Piece
    describer: Describer
    digests: Mapping[str, str]
    shard: Shard

    def __call__(self, read: Sequence[_Read]) -> Iterator[tuple[str, bytes]]:
        from kornia_ditf.utils.files import pack_sealed
        from kornia_ditf.utils.pipeline import readers, run_in_groups

        self.shard.failed.clear()
        descriptor = self.describer.descriptor
        described = run_in_groups(
            read,
            self._prepare,
            lambda images: list(self.describer.describe(images)),
            lambda image: (image.pixels.shape, self.describer.batch_of(image)),
            ahead=descriptor.images_ahead(self.describer.batch),
            workers=readers(descriptor.place),
        )
        for (item, _), maps in described:
            label = self.piece.label(item)
            try:
                if isinstance(maps, DiTFError):
                    raise maps
                tensors, about = self.describer.encode(maps, label)
            except BAD_IMAGE as error:
                self.shard.failed.append((label, failures.exit_code(error), str(error)))
                continue
            image = {
                "image": PurePosixPath(item.name).name,
                "image_sha256": self.digests[item.name],
            }
            yield item.name, pack_sealed(tensors, {**self.shard.made, **image, **about})

    def _prepare(self, one: _Read) -> PreparedImage:
        import torch

        with torch.no_grad():
            image = decode_fitting(self.describer, self.piece.label(one[0]), one[1])
            return self.describer.descriptor.prepare(image)


def decode_fitting(describer: Describer, label: str, content: bytes | ImageError) -> Tensor:
    """Decode an image that the model can take.

    Raises:
        ImageError: it could not be read or cannot be used.
    """
    from kornia_ditf.cli.images import check_fitting
    from kornia_ditf.utils.images import decode_image

    if isinstance(content, ImageError):
        raise content
    image = decode_image(content, label)
    check_fitting(label, image, *describer.fitting)
    return image


def check_folder(out: Path, made: Mapping[str, Any]) -> None:
    """Check that a folder holds no shards of other settings, by the first that is there.

    Raises:
        OutputError: it does.
    """
    from kornia_ditf.types.shards import visible

    for shard in visible(out, "*.tar")[:1]:
        names = differing_in(shard, made)
        if names:
            raise OutputError(
                f"{shard} was made with other settings ({', '.join(names)}); name another --out, "
                "or add --overwrite to replace the shards there"
            )


def differing_in(shard: Path, made: Mapping[str, Any]) -> list[str]:
    """Name the settings in which a shard differs; none where it is damaged, or not ours."""
    from kornia_ditf.types.shards import first_stored

    try:
        stored = first_stored(shard)
        return [] if stored is None else differing(stored.about(), made)
    except DamagedFileError:
        return []
