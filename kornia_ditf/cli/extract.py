"""`kornia-ditf extract`: descriptors of images, one safetensors file each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kornia_ditf.cli import failures, options, output, progress

if TYPE_CHECKING:
    from torch import Tensor

    from kornia_ditf.dense import DenseDescriptor

_CALIBRATION_IMAGES = 4


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
    tiles: options.Tiles = None,
    upsample: options.Upsample = None,
    ensemble: options.Ensemble = None,
    rows: options.Rows = None,
    prompt: options.Prompt = None,
    seed: options.Seed = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    others: options.Others = None,
    preset: options.Preset = None,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Describe so many images of one size together.  [default: what suits the device]",
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store float16, not float32.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there already.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            parser=options.read_path,
            metavar="FILE",
            help="Also write the tokens of all images as features: hloc's (.h5) or the same as "
            ".npz; keypoints alone in a COLMAP database (.db) or .json.",
        ),
    ] = None,
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
    from kornia_ditf.cli.extraction import KeptError, Stream, export_features, name_outputs
    from kornia_ditf.cli.match_folder import check_exports
    from kornia_ditf.descriptor import DiTF
    from kornia_ditf.errors import CaptureError, ImageError, InvalidArgumentError
    from kornia_ditf.utils import provenance
    from kornia_ditf.utils.files import make_folder, sweep

    paths = list({path.resolve(): path for path in images}.values())
    blocks = sorted(set(block or ()))
    for name, given_once in (("--tiles", tiles), ("--upsample", upsample)):
        if given_once is not None and len(blocks) > 1:
            raise InvalidArgumentError(f"{name} describes one block; give --block once")
    if export is not None:
        if len(blocks) > 1:
            raise InvalidArgumentError("--export writes one block; give --block once")
        check_exports([export], inputs=paths)
    make_folder(out)
    sweep(out)
    given = {
        "block": max(blocks) if blocks else None,
        "timestep": timestep,
        "treatment": treatment,
        "long_side": long_side,
        "tiles": tiles,
        "upsample": upsample,
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
    base, _ = settings.unwrapped(descriptor)
    if isinstance(base, DiTF):
        blocks = blocks or [base.config.block]
    told = settings.told(descriptor, [prompt] if prompt else [])
    with stages.stage("find massive channels"):
        channels, origin = _agree_on_channels(base, blocks, paths, side)
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
    stream = Stream(
        descriptor=descriptor,
        blocks=blocks,
        told=told,
        fitting=(side, spec.pixels_per_token),
        targets={path: out / name for path, name in name_outputs(paths).items()},
        made=made,
        half=half,
        overwrite=overwrite,
        batch=batch,
    )
    done = stream.done
    try:
        written = progress.track(stream.run(paths), "extract", len(paths))
        for (path, _), writing in written:
            try:
                writing.result()
            except (ImageError, InvalidArgumentError, CaptureError, KeptError) as error:
                failures.say_error(str(error))
                done.failed.append((path, error))
    except KeyboardInterrupt as interrupt:
        count = len(done.written) + len(done.skipped)
        raise failures.fail(
            f"interrupted with {count} of {len(paths)} images done; the same command goes on",
            failures.interrupt_code(interrupt),
        ) from interrupt
    exported = export_features(export, [*done.written, *done.skipped])
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
            *(("exported", each) for each in exported),
            *done.remarks(),
        ]
    )
    document = {**made, **done.as_values(), "exported": exported}
    output.show(output.Result(document, [facts]), as_json=as_json)
    if done.failed:
        codes = {failures.exit_code(error) for _, error in done.failed}
        raise typer.Exit(codes.pop() if len(codes) == 1 else 1)


def _agree_on_channels(
    descriptor: DenseDescriptor, blocks: Sequence[int], paths: Sequence[Path], side: int | None
) -> tuple[dict[str, list[int]], str]:
    """Settle which channels every image of this run does without, by block."""
    from kornia_ditf.cli.images import read_fitting
    from kornia_ditf.cli.settings import known_channels
    from kornia_ditf.descriptor import DiTF
    from kornia_ditf.errors import ImageError

    _, origin = known_channels(descriptor)
    if not isinstance(descriptor, DiTF) or not descriptor.config.steps.discards:
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
