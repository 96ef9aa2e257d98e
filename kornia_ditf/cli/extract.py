"""`kornia-ditf extract`: descriptors of images and of videos' frames, one file each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kornia_ditf.cli import failures, options, output, progress

if TYPE_CHECKING:
    from torch import Tensor

    from kornia_ditf.video.describe import VideoDiTF


_EachBlock = Annotated[
    list[int] | None,
    typer.Option(
        metavar="K",
        help="Take this block's input, counted from 0; may be repeated.  [default: preset]",
    ),
]


@options.describing(block=_EachBlock)
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
    chosen: options.Chosen,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Describe so many images of one size together.  [default: what suits the device]",
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Of videos: take each N-th frame alone."),
    ] = None,
    start: Annotated[
        float | None,
        typer.Option(
            parser=options.read_seconds,
            metavar="TIME",
            help="Of videos: begin here, at 90 or 1:30.",
        ),
    ] = None,
    end: Annotated[
        float | None,
        typer.Option(parser=options.read_seconds, metavar="TIME", help="Of videos: end here."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of videos: take at most so many frames.")
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="With a video model: show it so many frames as one clip.  [default: 8]",
        ),
    ] = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share",
            help="With a video model, which compresses time: let the frames of a latent frame "
            "share its descriptors, at a fraction of the cost.",
        ),
    ] = False,
    store: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Store float32, float16, or int8 with a scale per token, a quarter of float32.",
        ),
    ] = "float32",
    half: Annotated[
        bool, typer.Option("--half", hidden=True, help="The same as --store float16.")
    ] = False,
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
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="local (this process), or ray (a cluster).")
    ] = "local",
    ray_address: options.RayAddress = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="With --engine ray: at most so many workers.  [default: one per GPU, else CPU]",
        ),
    ] = None,
    cpus: Annotated[
        float, typer.Option(metavar="X", min=0, help="With --engine ray: CPUs of each worker.")
    ] = 1.0,
    gpus: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0,
            help="With --engine ray: GPUs of each worker.  [default: 1 where the cluster has any]",
        ),
    ] = None,
    per_shard: Annotated[
        int, typer.Option(metavar="N", min=1, help="With --engine ray: about so many images each.")
    ] = 64,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --engine ray: the column of Parquet files that holds the images.  "
            "[default: image, or the only one]",
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="With --engine ray: say how many images and bytes, and do no more."
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Write the descriptors of images, one safetensors file each; of videos, one per frame.

    A file holds `descriptors` (D, rows, columns), or `block_K` for each of several blocks, and
    says in its metadata how they were made; equal images and settings give equal bytes. Files that
    are there with the same settings are skipped, so the same command goes on where an interrupted
    one stopped; files of other settings are kept and reported. Massive channels that are not known
    are found on the first four images and discarded in all. Videos are decoded as they are
    described, so they may have any length; frame 12 of clip.mp4 becomes clip-000012.safetensors.

    With --engine ray, IMAGE may be a folder, a WebDataset .tar or a .parquet file as well, and the
    files of about --per-shard images are put into a .tar, named by what it holds.
    """
    from kornia_ditf.cli import settings
    from kornia_ditf.cli.describing import Describer
    from kornia_ditf.cli.extraction import KeptError, Stream, export_features, shared_names
    from kornia_ditf.cli.match_folder import check_exports
    from kornia_ditf.errors import CaptureError, ImageError, InvalidArgumentError
    from kornia_ditf.types.storage import STORES
    from kornia_ditf.utils.checks import check_one_of
    from kornia_ditf.utils.files import make_folder, sweep
    from kornia_ditf.video.describe import VideoDiTF, for_video
    from kornia_ditf.video.frames import is_video

    paths = list({path.resolve(): path for path in images}.values())
    films = [path for path in paths if is_video(path)]
    picked = {"every": every, "start": start, "end": end, "frames": frames}
    picked = {name: value for name, value in picked.items() if value is not None}
    if picked and not films:
        raise InvalidArgumentError(
            f"--{next(iter(picked))} chooses frames of videos, and there is no video; leave it out"
        )
    blocks = sorted(set(chosen.block or ()))
    for name in ("--tiles", "--projection", "--upsample"):
        if name in chosen.flags and len(blocks) > 1:
            raise InvalidArgumentError(f"{name} describes one block; give --block once")
    if chosen.blocks is not None and blocks:
        raise InvalidArgumentError("--blocks joins blocks, and --block stores each; give one")
    if export is not None:
        if len(blocks) > 1:
            raise InvalidArgumentError("--export writes one block; give --block once")
        check_exports([export], inputs=paths)
    store = "float16" if half else store
    check_one_of("--store", store, STORES)
    check_one_of("--engine", engine, ("local", "ray"))
    chosen = chosen.but(block=max(blocks) if blocks else None)
    if engine == "ray":
        from kornia_ditf.cli.extract_ray import Cluster, extract_on_ray
        from kornia_ditf.cli.shards import Request

        if export is not None or films:
            what = f"{films[0]} is a video" if films else "--export takes files of single images"
            raise InvalidArgumentError(f"{what}; leave out --engine ray")
        extract_on_ray(
            Request(chosen, blocks, store, batch, overwrite),
            paths,
            out,
            Cluster(ray_address, workers, cpus, gpus),
            per_shard=per_shard,
            column=column,
            plan_only=plan,
            as_json=as_json,
        )
        return
    make_folder(out)
    sweep(out)
    spec = chosen.spec()
    stages = progress.Stages()
    with stages.stage("load"):
        describer = Describer.load(chosen, spec, blocks=blocks, store=store, batch=batch)
    descriptor, blocks = describer.descriptor, describer.blocks
    with stages.stage("find massive channels"):
        describer.find_channels(_each_image(paths, describer.fitting, picked))
    clips = for_video(descriptor, not share) if films else None
    if not isinstance(clips, VideoDiTF):
        clips = None
        if window is not None or share:
            raise InvalidArgumentError(
                f"--{'share' if share else 'window'} is of videos that a video model sees as "
                f"clips; {spec.name} sees each frame alone; leave it out"
            )
    made = describer.made()
    stream = Stream(
        describer=describer,
        made=made,
        out=out,
        shared=shared_names(paths),
        overwrite=overwrite,
        picked=picked,
        clips=clips,
        window=1 if clips is None else window or 8,
    )
    done = stream.done
    many = None if films else len(paths)
    try:
        written = progress.track(stream.run(paths), "extract", many)
        for (given_image, _), writing in written:
            try:
                writing.result()
            except (ImageError, InvalidArgumentError, CaptureError, KeptError) as error:
                if done.fail(given_image.path, error):
                    failures.say_error(str(error))
    except KeyboardInterrupt as interrupt:
        count = len(done.written) + len(done.skipped)
        raise failures.fail(
            f"interrupted with {_count(count, many)} done; the same command goes on",
            failures.interrupt_code(interrupt),
        ) from interrupt
    exported = export_features(export, [*done.written, *done.skipped])
    found = [
        (
            f"discarded {number}" if len(blocks) > 1 else "discarded",
            settings.describe_channels_found(
                describer.channels.get(str(number), []), describer.origin
            ),
        )
        for number in blocks
    ]
    facts = output.Facts(
        [
            *settings.preset_facts(chosen.backbone, spec, descriptor),
            *found,
            *([] if clips is None else [("clips", _describe_clips(clips, stream.window))]),
            ("written", f"{_count(len(done.written), many)}, in {out}"),
            *(("exported", each) for each in exported),
            *done.remarks(),
        ]
    )
    document = {**made, **done.as_values(), "exported": exported}
    output.show(output.Result(document, [facts]), as_json=as_json)
    if done.failed:
        codes = {failures.exit_code(error) for _, error in done.failed}
        raise typer.Exit(codes.pop() if len(codes) == 1 else 1)


def _count(done: int, many: int | None) -> str:
    """Count images; how many frames a video has is not known before its end."""
    return f"{done} frames and images" if many is None else f"{done} of {many} images"


def _describe_clips(clips: VideoDiTF, window: int) -> str:
    backbone: Any = clips.backbone
    ratio = backbone.frames_per_latent
    own = (
        f"each shown for the {ratio} that a latent frame covers, so that it has its own "
        "descriptors (--share is faster)"
        if clips.every_frame
        else f"up to {ratio} of which share a latent frame's descriptors"
    )
    return f"of {window} frames (--window), {own}"


def _each_image(
    paths: Sequence[Path], fitting: tuple[int | None, int], picked: Mapping[str, Any]
) -> Iterator[Tensor]:
    """Read images and frames one after another; what cannot be read is reported in its turn."""
    from kornia_ditf.cli.images import check_fitting, read_fitting
    from kornia_ditf.errors import ImageError
    from kornia_ditf.video.frames import is_video, read_frames

    for path in paths:
        with suppress(ImageError):
            if not is_video(path):
                yield read_fitting(path, *fitting)
                continue
            for frame in read_frames(path, **picked):
                check_fitting(path, frame.image, *fitting)
                yield frame.image
