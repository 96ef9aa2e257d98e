"""`kornia-ditf extract`: images in, one safetensors file of descriptors each out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kornia_ditf.cli import failures, options

if TYPE_CHECKING:
    from torch import Tensor

    from kornia_ditf.dense import DenseDescriptor
    from kornia_ditf.errors import DiTFError
    from kornia_ditf.types import DescriptorMap

_CALIBRATION_IMAGES = 4
# What a file must agree in with what would be written, to be left as it is.
_SETTINGS = (
    *("name", "image_sha256", "identity", "descriptor_blocks", "timestep", "treatment"),
    *("long_side", "options", "settings"),
    *("ensemble", "prompt", "seed", "dtype", "massive_channels", "stored_as"),
)


def extract(
    images: options.Images,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Write here; the folder is made if needed.")
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
    half: Annotated[bool, typer.Option("--half", help="Store float16, not float32.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make files anew that are there already.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Write the descriptors of images, one safetensors file each.

    A file holds `descriptors` (D, rows, columns), or `block_K` for each of several blocks, and
    says in its metadata how they were made. Files that are there with the same settings are
    skipped, so the same command goes on where an interrupted one stopped. Massive channels that
    are not known are found on the first four images and discarded in all.
    """
    from kornia_ditf.cli import output, settings
    from kornia_ditf.cli.images import read_fitting
    from kornia_ditf.descriptor import DiTF
    from kornia_ditf.errors import CaptureError, ImageError, InvalidArgumentError

    paths = list({path.resolve(): path for path in images}.values())
    blocks = sorted(set(block or ()))
    output.make_folder(out)
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
        **options.read_others(others),
    }
    spec = options.find_spec(backbone, others)
    side = options.side_in_pixels(long_side, spec)
    stages = output.Stages()
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
        "versions": output.versions(),
    }
    made.pop("block", None)
    del made["embedded_default"]
    done = _Done()
    targets = name_outputs(paths, out)
    try:
        for path in output.track(paths, "extract"):
            target = targets[path]
            try:
                image = read_fitting(path, side, spec.pixels_per_token)
                about = {**made, "image": str(path.resolve()), "image_sha256": _digest(path)}
                if not overwrite and _is_there(target, about):
                    done.skipped.append(target)
                    continue
                maps = _describe(descriptor, image, blocks, told)
                first = next(iter(maps.values()))
                about["image_size"] = list(first.frame.image_size)
                about["model_size"] = list(first.frame.model_size)
                about["grid"] = list(first.grid)
                tensors = {name: described.data[0] for name, described in maps.items()}
                _write(target, _stored(tensors, half, path), about)
                done.written.append(target)
            except (ImageError, InvalidArgumentError, CaptureError) as error:
                failures.say_error(str(error))
                done.failed.append((path, error))
    except KeyboardInterrupt as interrupt:
        count = len(done.written) + len(done.skipped)
        raise failures.fail(
            f"interrupted with {count} of {len(paths)} images done; the same command goes on",
            failures.INTERRUPTED,
        ) from interrupt
    if as_json:
        output.print_json({**made, **done.as_values()})
    else:
        output.print_facts(
            [
                *settings.preset_facts(backbone, spec, descriptor),
                *(
                    (
                        f"discarded {number}" if len(blocks) > 1 else "discarded",
                        settings.describe_channels_found(channels.get(str(number), []), origin),
                    )
                    for number in blocks
                ),
                ("written", f"{len(done.written)} of {len(paths)} images, in {out}"),
                *done.remarks(),
            ]
        )
    if done.failed:
        codes = {failures.exit_code(error) for _, error in done.failed}
        raise typer.Exit(codes.pop() if len(codes) == 1 else 1)


def name_outputs(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Choose a file for each image, so that none takes another's.

    It is the image's name, and where another image has that name, part of a digest of the image's
    whole path with it.
    """
    counts = Counter(path.stem.casefold() for path in paths)
    targets = {}
    for path in paths:
        target = folder / f"{path.stem}.safetensors"
        if counts[path.stem.casefold()] > 1 or _belongs_to_another(target, path):
            digest = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape"))
            target = folder / f"{path.stem}-{digest.hexdigest()[:8]}.safetensors"
        targets[path] = target
    return targets


@dataclass(slots=True)
class _Done:
    """What became of each image."""

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, DiTFError]] = field(default_factory=list)

    def remarks(self) -> Iterable[tuple[str, str]]:
        if self.skipped:
            remark = f"{len(self.skipped)} that are there with these settings"
            yield "skipped", f"{remark}; --overwrite makes them anew"
        if self.failed:
            yield "failed", ", ".join(str(path) for path, _ in self.failed)

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
    from safetensors.torch import save_file

    from kornia_ditf.utils.files import atomic_write

    with atomic_write(target) as temporary:
        save_file(tensors, temporary, {name: json.dumps(value) for name, value in about.items()})


def _metadata(path: Path) -> dict[str, Any] | None:
    """Read what a file says of itself; None where it is none of ours."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
    except (SafetensorError, OSError, ValueError):
        return None


def _is_there(target: Path, about: Mapping[str, Any]) -> bool:
    found = _metadata(target) if target.exists() else None
    if found is None or about["identity"] is None:  # weights without a name may be any
        return False
    return all(found.get(name) == about.get(name) for name in _SETTINGS)


def _belongs_to_another(target: Path, image: Path) -> bool:
    if not target.exists():
        return False
    found = _metadata(target)
    return found is None or found.get("image") != str(image.resolve())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
