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

from kornia_ditf.cli import failures
from kornia_ditf.cli.describing import BAD_IMAGE, SETTINGS, Describer, Request, differing
from kornia_ditf.cli.images import decode_fitting
from kornia_ditf.errors import DamagedFileError, DiTFError, ImageError, OutputError
from kornia_ditf.utils.files import os_errors_as
from kornia_ditf.utils.sources import Item, Piece

if TYPE_CHECKING:
    from torch import Tensor

    from kornia_ditf.types import DescriptorMap
    from kornia_ditf.types.prepared import PreparedImage

_Read = tuple[Item, bytes | ImageError]


@dataclass(slots=True)
class Shard:
    """Outcome of a piece.

    Args:
        name: of the shard's file; empty where no image of the piece could be described.
        images: in the shard.
        written: False where the shard was there already.
        failed: what messages call an image, its error's exit code and message.
        made: the settings that its maps were made with.
        warnings: what was warned of while the descriptor was loaded.
        error: exit code and message of what ended the work altogether.
        lost: whether workers died of it again and again, or the device's memory was too small.
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
    lost: bool = False
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class ShardWriter:
    """Describes pieces of images, and writes the maps of each into a shard of its own.

    A shard is named by a digest of the settings and of its images' names and contents, and appears
    whole or not at all: a piece whose shard is there is not described again, whoever wrote it.

    Args:
        request: what to describe with.
        out: folder of the shards, which all workers see.
        first: the pieces in whose images massive channels are found that nobody names; None to
            describe images alone and write nothing, which tells whether they end a worker.
    """

    tries = 2
    """How many workers may die of a piece."""

    def __init__(self, request: Request, out: Path, first: Sequence[Piece] | None) -> None:
        self.request, self.out, self.first = request, out, first
        self._describer: Describer | None = None
        self._warned: list[str] = []

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[str]]:
        """Write the shards of some rows of a Ray data set."""
        done = [self.write(Piece.from_json(str(text))) for text in rows["piece"]]
        shards = [json.dumps(asdict(shard)) for shard in done]
        return {"piece": list(rows["piece"]), "shard": shards}

    def write(self, piece: Piece) -> Shard:
        """Write the shard of a piece, unless it is there or workers died of it."""
        key = f"{self.first is None} {piece.to_json()}"
        note = self.out / f".{hashlib.sha256(key.encode()).hexdigest()[:16]}.tries"
        try:
            # Ray Data retries what a worker died of for ever; 2.64 drops max_task_retries.
            with os_errors_as(OutputError, f"cannot write {note}"):
                if note.exists() and len(note.read_bytes()) == self.tries:
                    note.unlink()
                    return Shard(lost=True)
                with note.open("ab") as file:
                    file.write(b".")
            return self._tried(piece)
        except DiTFError as error:
            return Shard(error=(failures.exit_code(error), str(error)))
        except RuntimeError as error:
            if not failures.is_out_of_memory(error):
                raise
            return Shard(lost=True)  # which of the images is too large is tried
        finally:
            note.unlink(missing_ok=True)

    def _tried(self, piece: Piece) -> Shard:
        if self._describer is None:
            self._describer = self._load()
        if self.first is None:
            list(self._describe(piece, self._describer, list(piece.read())))
            return Shard()
        shard = Shard(made=self._describer.made, warnings=self._warned)
        begin, cpu = time.perf_counter(), time.process_time()
        self._write(piece, self._describer, shard)
        shard.seconds = time.perf_counter() - begin
        shard.cpu_seconds = time.process_time() - cpu
        return shard

    def _load(self) -> Describer:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            describer = Describer(self.request)
            if self.first is None:
                return describer
            describer.find_channels(self._first_images(describer, self.first))
        own = (each for each in caught if each.category.__module__.startswith("kornia"))
        self._warned = [str(each.message) for each in own]
        made = describer.made
        if not made["identity"]:
            self._warned.append(
                f"{made['name']} does not say which weights it has; if they change, name another "
                "--out"
            )
        if not self.request.overwrite:
            check_folder(self.out, made)
        return describer

    def _first_images(self, describer: Describer, first: Sequence[Piece]) -> Iterator[Tensor]:
        for piece in first:
            for item, content in piece.read():
                with suppress(ImageError):  # it is reported in its turn
                    yield decode_fitting(content, piece.label(item), *describer.fitting)

    def _write(self, piece: Piece, describer: Describer, shard: Shard) -> None:
        from kornia_ditf.types.shards import list_stored, member_name, write_shard
        from kornia_ditf.utils.files import pack_sealed

        read = list(piece.read())
        digests = {
            item.name: ""
            if isinstance(content, ImageError)
            else hashlib.sha256(content).hexdigest()
            for item, content in read
        }
        settings = {name: shard.made.get(name) for name in SETTINGS}
        key = json.dumps([settings, sorted(digests.items())], sort_keys=True)
        target = self.out / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.tar"
        held: set[str] = set()
        if target.exists() and not self.request.overwrite:
            try:
                held = {stored.member for stored in list_stored(target)}
            except DamagedFileError:
                held = set()  # it is written anew

        def described(some: Sequence[_Read]) -> Iterator[tuple[str, bytes]]:
            shard.failed.clear()
            for item, maps in self._describe(piece, describer, some):
                label = piece.label(item)
                try:
                    if isinstance(maps, DiTFError):
                        raise maps
                    tensors, about = describer.encode(maps, label)
                except BAD_IMAGE as error:
                    shard.failed.append((label, failures.exit_code(error), str(error)))
                    continue
                name = {"image": PurePosixPath(item.name).name, "image_sha256": digests[item.name]}
                yield item.name, pack_sealed(tensors, {**shard.made, **name, **about})

        if held:
            # Images that it lacks could not be described before; perhaps now they can.
            lacking = [(i, content) for i, content in read if member_name(i.name) not in held]
            if next(described(lacking), None) is None:
                shard.name, shard.images = target.name, len(held)
                return
        files = described(read)
        first = next(files, None)
        if first is not None:
            write_shard(target, chain([first], files))
            shard.name, shard.written = target.name, True
            shard.images = len(read) - len(shard.failed)

    def _describe(
        self, piece: Piece, describer: Describer, read: Sequence[_Read]
    ) -> Iterator[tuple[Item, dict[str, DescriptorMap] | DiTFError]]:
        from kornia_ditf.utils.pipeline import readers, run_in_groups

        def prepare(one: _Read) -> PreparedImage:
            import torch

            item, content = one
            with torch.no_grad():
                image = decode_fitting(content, piece.label(item), *describer.fitting)
                return describer.descriptor.prepare(image)

        described = run_in_groups(
            read,
            prepare,
            lambda images: list(describer.describe(images)),
            describer.kind,
            ahead=describer.descriptor.images_ahead(self.request.batch),
            workers=readers(describer.descriptor.place),
        )
        return ((item, maps) for (item, _), maps in described)


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
    """Return the names of settings in which a shard differs; none if it is damaged or foreign."""
    from kornia_ditf.types.shards import first_stored

    try:
        stored = first_stored(shard)
        return [] if stored is None else differing(stored.about(), made)
    except DamagedFileError:
        return []
