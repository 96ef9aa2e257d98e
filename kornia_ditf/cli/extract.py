"""`kornia-ditf extract`: descriptors of images, one safetensors file each."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kornia_ditf.cli import failures, options, output, progress
from kornia_ditf.errors import OutputError

if TYPE_CHECKING:
    from torch import Tensor

    from kornia_ditf.dense import DenseDescriptor
    from kornia_ditf.errors import DiTFError
    from kornia_ditf.types import DescriptorMap

_CALIBRATION_IMAGES = 4
_LONGEST_NAME = 255  # bytes, on common file systems
# Files that agree in these were made with the same settings.
_SETTINGS = (
    *("name", "image_sha256", "identity", "descriptor_blocks", "timestep", "treatment"),
    *("long_side", "options", "settings"),
    *("ensemble", "prompt", "seed", "dtype", "massive_channels", "stored_as"),
)


def extract(
    images: options.Images,
    out: Annotated[
        Path,
        typer.Option(
            parser=options.read_path,
            metavar="FOLDER",
            help="Write here; the folder is made if needed.",
        ),
    ],
    backbone: options.Backbone = None,
    source: options.Source = None,
    block: Annotated[
        list[int] | None,
        typer.Option(
            metavar="K",
            help="Take this block's input, counted from 0; may be repeated.  [default: preset]",
        ),
    ] = None,
    timestep: options.Timestep = None,
    treatment: options.TreatmentName = None,
    long_side: options.LongSide = None,
    ensemble: options.Ensemble = None,
    rows: options.Rows = None,
    prompt: options.Prompt = None,
    seed: options.Seed = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    others: options.Others = None,
    preset: options.Preset = None,
    half: Annotated[bool, typer.Option("--half", help="Store float16, not float32.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there already.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Write the descriptors of images, one safetensors file each.

    A file holds `descriptors` (D, rows, columns), or `block_K` for each of several blocks, and
    says in its metadata how they were made; equal images and settings give equal bytes. Files that
    are there with the same settings are skipped, so the same command goes on where an interrupted
    one stopped; files of other settings are kept and reported. Massive channels that are not known
    are found on the first four images and discarded in all.
    """
    from kornia_ditf.cli import settings
    from kornia_ditf.cli.images import read_fitting
    from kornia_ditf.descriptor import DiTF
    from kornia_ditf.errors import CaptureError, ImageError, InvalidArgumentError
    from kornia_ditf.utils import provenance
    from kornia_ditf.utils.files import make_folder, sweep

    paths = list({path.resolve(): path for path in images}.values())
    blocks = sorted(set(block or ()))
    make_folder(out)
    sweep(out)
    given = {
        "block": max(blocks) if blocks else None,
        "timestep": timestep,
        "treatment": treatment,
        "long_side": long_side,
        "ensemble": ensemble,
        "rows_per_forward": rows,
        "prompt": prompt,
        "seed": seed,
        "dtype": dtype,
        "device": device,
        "preset": preset,
        **options.read_others(others),
    }
    spec = options.find_spec(backbone, others, source, preset)
    side = options.side_in_pixels(long_side, spec)
    stages = progress.Stages()
    with stages.stage("load"):
        descriptor = options.load_descriptor(spec, source, given)
    if isinstance(descriptor, DiTF):
        blocks = blocks or [descriptor.config.block]
    told = settings.told(descriptor, [prompt] if prompt else [])
    with stages.stage("find massive channels"):
        channels, origin = _agree_on_channels(descriptor, blocks, paths, side)
    made = {
        **settings.as_values(backbone, spec, descriptor, given),
        "descriptor_blocks": blocks,
        "massive_channels": channels,
        "massive_channels_from": origin,
        "stored_as": "float16" if half else "float32",
        "versions": provenance.versions(output.LIBRARIES),
    }
    made.pop("block", None)
    del made["embedded_default"]
    done = _Done()
    names = name_outputs(paths)
    try:
        for path in progress.track(paths, "extract"):
            try:
                image = read_fitting(path, side, spec.pixels_per_token)
                about = {**made, "image": path.name, "image_sha256": _digest(path)}
                target = out / names[path]
                if target.exists() and _image_of(target) != about["image_sha256"]:
                    target = out / _file_name(path, marked=True)
                if target.exists() and not overwrite:
                    _check_settings(target, about)
                    done.skipped.append(target)
                    continue
                maps = _describe(descriptor, image, blocks, told)
                first = next(iter(maps.values()))
                about.update(first.about())
                tensors = {name: described.data[0] for name, described in maps.items()}
                _write(target, _stored(tensors, half, path), about)
                done.written.append(target)
            except (ImageError, InvalidArgumentError, CaptureError, _KeptError) as error:
                failures.say_error(str(error))
                done.failed.append((path, error))
    except KeyboardInterrupt as interrupt:
        count = len(done.written) + len(done.skipped)
        raise failures.fail(
            f"interrupted with {count} of {len(paths)} images done; the same command goes on",
            failures.interrupt_code(interrupt),
        ) from interrupt
    found = [
        (
            f"discarded {number}" if len(blocks) > 1 else "discarded",
            settings.describe_channels_found(channels.get(str(number), []), origin),
        )
        for number in blocks
    ]
    facts = output.Facts(
        [
            *settings.preset_facts(backbone, spec, descriptor),
            *found,
            ("written", f"{len(done.written)} of {len(paths)} images, in {out}"),
            *done.remarks(),
        ]
    )
    output.show(output.Result({**made, **done.as_values()}, [facts]), as_json=as_json)
    if done.failed:
        codes = {failures.exit_code(error) for _, error in done.failed}
        raise typer.Exit(codes.pop() if len(codes) == 1 else 1)


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


class _KeptError(OutputError):
    """A file that is kept, as it was made with other settings."""


@dataclass(slots=True)
class _Done:
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


def _describe(
    descriptor: DenseDescriptor, image: Tensor, blocks: Sequence[int], told: Any
) -> dict[str, DescriptorMap]:
    """Describe an image, and name what is stored of it."""
    from kornia_ditf.descriptor import DiTF

    if not isinstance(descriptor, DiTF):
        return {"descriptors": descriptor(image, told)}
    maps = descriptor.describe_blocks(image, blocks)
    return {
        "descriptors" if len(blocks) == 1 else f"block_{block}": maps[block] for block in blocks
    }


def _agree_on_channels(
    descriptor: DenseDescriptor, blocks: Sequence[int], paths: Sequence[Path], side: int | None
) -> tuple[dict[str, list[int]], str]:
    """Settle which channels every image of this run does without, by block."""
    from kornia_ditf.cli.images import read_fitting
    from kornia_ditf.cli.settings import known_channels
    from kornia_ditf.descriptor import DiTF
    from kornia_ditf.errors import ImageError

    _, origin = known_channels(descriptor)
    if not isinstance(descriptor, DiTF) or "discard" not in descriptor.config.treatment:
        return {}, origin
    missing = [block for block in blocks if descriptor.massive_channels(block) is None]
    if missing:
        images: list[Tensor] = []
        for path in paths:
            try:
                images.append(read_fitting(path, side, descriptor.backbone.pixels_per_token))
            except ImageError:
                continue  # it is reported when its turn comes
            if len(images) == _CALIBRATION_IMAGES:
                break
        if images:
            for block in missing:
                descriptor.calibrate(images, block=block, keep=False)
        plural = "s" if len(images) > 1 else ""
        origin = f"found in the first {len(images)} image{plural}" if images else "no image"
    return {str(block): list(descriptor.massive_channels(block) or ()) for block in blocks}, origin


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
        raise _KeptError(
            f"{target} is there, made with other settings ({names}); add --overwrite to replace "
            "it, or name another --out"
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
