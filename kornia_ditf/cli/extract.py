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


@options.describing(block=list[int] | None)
def extract(
    images: options.Images,
    out: Path,
    chosen: options.Chosen,
    batch: Annotated[int | None, {"min": 1}] = None,
    every: Annotated[int | None, {"min": 1}] = None,
    start: Annotated[float | None, {"parser": options.read_seconds}] = None,
    end: Annotated[float | None, {"parser": options.read_seconds}] = None,
    frames: Annotated[int | None, {"min": 1}] = None,
    window: Annotated[int | None, {"min": 1}] = None,
    share: bool = False,
    store: str = "float32",
    half: Annotated[
        bool, typer.Option("--half", hidden=True, help="The same as --store float16.")
    ] = False,
    overwrite: bool = False,
    export: Path | None = None,
    engine: str = "local",
    ray_address: options.RayAddress = None,
    workers: Annotated[int | None, {"min": 1}] = None,
    cpus: Annotated[float, {"min": 0}] = 1.0,
    gpus: Annotated[float | None, {"min": 0}] = None,
    per_shard: Annotated[int, {"min": 1}] = 64,
    column: str | None = None,
    plan: bool = False,
    as_json: options.Json = False,
) -> None:
    """Write the descriptors of images or video frames, one safetensors file each.

    A file contains `descriptors` (D, rows, columns), or `block_K` for each of several blocks, and
    metadata with the settings; equal images and settings produce equal bytes. Existing files with
    the same settings are skipped, so the same command resumes after an interruption; files with
    other settings are kept and reported. Unknown massive channels are detected in the first four
    images and discarded in all. Videos are decoded as they are described, so they may have any
    length; frame 12 of clip.mp4 becomes clip-000012.safetensors.

    With --engine ray, IMAGE may also be a folder, a WebDataset .tar or a .parquet file, and the
    files of about --per-shard images are written as one .tar, named by a digest of its content.

    Options:
        --out FOLDER: Output folder, created if needed.
        --batch N: Describe N images of the same size together. [default: what suits the device]
        --every N: Of videos: use every N-th frame.
        --start TIME: Of videos: start at this time, such as 90 or 1:30.
        --end TIME: Of videos: end at this time.
        --frames N: Of videos: use at most N frames.
        --window N: With a video model: process N frames as one clip. [default: 8]
        --share: With a video model: let the frames that the model compresses into one latent frame
            share its descriptors, at a fraction of the cost.
        --store NAME: Store float32, float16, or int8 with a scale per token, a quarter of float32.
        --overwrite: Replace existing files.
        --export FILE: Also write the tokens of all images as features: hloc's (.h5) or the same as
            .npz; keypoints alone in a COLMAP database (.db) or .json.
        --engine NAME: local (this process), or ray (a cluster).
        --workers N: With --engine ray: use at most N workers. [default: one per GPU, else CPU]
        --cpus X: With --engine ray: CPUs of each worker.
        --gpus X: With --engine ray: GPUs of each worker. [default: 1 where the cluster has any]
        --per-shard N: With --engine ray: write about N images per shard.
        --column NAME: With --engine ray: the column of Parquet files that holds the images.
            [default: image, or the only one]
        --plan: With --engine ray: print the number and size of images and descriptors, and stop.
        --block K: Use the input of this block, counted from 0; may be repeated. [default: preset]
    """
    from kornia_ditf.cli import settings
    from kornia_ditf.cli.describing import BAD_IMAGE, Describer, Request
    from kornia_ditf.cli.extraction import KeptError, Stream, export_features
    from kornia_ditf.cli.pair import check_exports
    from kornia_ditf.errors import InvalidArgumentError
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
            f"--{next(iter(picked))} selects frames of videos, and there is no video; leave it out"
        )
    blocks = sorted(set(chosen.block or ()))
    if len(blocks) > 1:
        for name in ("--tiles", "--projection", "--upsample"):
            if name in chosen.flags:
                raise InvalidArgumentError(f"{name} describes one block; give --block once")
        if export is not None:
            raise InvalidArgumentError("--export writes one block; give --block once")
    if chosen.blocks is not None and blocks:
        raise InvalidArgumentError("--blocks joins blocks, and --block stores each; use only one")
    if export is not None:
        check_exports([export], inputs=paths)
    store = "float16" if half else store
    check_one_of("--store", store, STORES)
    check_one_of("--engine", engine, ("local", "ray"))
    chosen = chosen.but(block=max(blocks) if blocks else None)
    request = Request(chosen, blocks, store, batch, overwrite)
    if engine == "ray":
        from kornia_ditf.cli.extract_ray import extract_on_ray

        if export is not None or films:
            what = f"{films[0]} is a video" if films else "--export takes files of single images"
            raise InvalidArgumentError(f"{what}; leave out --engine ray")
        extract_on_ray(
            request,
            paths,
            out,
            per_shard=per_shard,
            column=column,
            plan_only=plan,
            as_json=as_json,
            address=ray_address,
            workers=workers,
            cpus=cpus,
            gpus=gpus,
        )
        return
    make_folder(out)
    sweep(out)
    stages = progress.Stages()
    with stages.stage("load"):
        describer = Describer(request)
    with stages.stage("find massive channels"):
        describer.find_channels(_each_image(paths, describer.fitting, picked))
    clips = for_video(describer.descriptor, not share) if films else None
    if not isinstance(clips, VideoDiTF):
        clips = None
        if window is not None or share:
            raise InvalidArgumentError(
                f"--{'share' if share else 'window'} is of videos that a video model sees as "
                f"clips; {describer.spec.name} sees each frame alone; leave it out"
            )
    stream = Stream(
        describer=describer,
        out=out,
        paths=paths,
        picked=picked,
        clips=clips,
        window=1 if clips is None else window or 8,
    )

    def count(done: int) -> str:
        """Count images; how many frames a video has is not known before its end."""
        return f"{done} frames and images" if films else f"{done} of {len(paths)} images"

    def so_far() -> str:
        done = count(len(stream.written) + len(stream.skipped))
        return f" with {done} done; the same command goes on"

    with failures.saying_interrupted(so_far):
        total = None if films else len(paths)
        for (given_image, _), writing in progress.track(stream.run(), "extract", total):
            try:
                writing.result()
            except (*BAD_IMAGE, KeptError) as error:
                if given_image.path not in stream.failed:  # a video counts once
                    failures.say_error(str(error))
                    stream.failed[given_image.path] = error
    exported = export_features(export, [*stream.written, *stream.skipped])
    found = [
        (
            f"discarded {block}" if len(describer.blocks) > 1 else "discarded",
            settings.describe_channels_found(
                describer.channels.get(str(block), []), describer.origin
            ),
        )
        for block in describer.blocks
    ]
    facts = [
        *settings.preset_facts(chosen.backbone, describer.spec, describer.descriptor),
        *found,
        *([] if clips is None else [("clips", _describe_clips(clips, stream.window))]),
        ("written", f"{count(len(stream.written))}, in {out}"),
        *(("exported", each) for each in exported),
    ]
    if stream.skipped:
        facts.append(("skipped", f"{len(stream.skipped)} that are there with the same settings"))
    if stream.failed:
        facts.append(("failed", ", ".join(map(str, stream.failed))))
    document = {
        **describer.made,
        "written": list(map(str, stream.written)),
        "skipped": list(map(str, stream.skipped)),
        "failed": [
            {"image": str(path), "error": str(error)} for path, error in stream.failed.items()
        ],
        "exported": exported,
    }
    output.show(document, facts, as_json=as_json)
    failures.fail_with(map(failures.exit_code, stream.failed.values()))


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
